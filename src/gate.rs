//! Who is let in: handshakes per second, connections per client address, who may send.
//!
//! Decides, and keeps the counts; what a refused peer is told is the connection's business. Pure; told the time. Loopback
//! and trusted proxies are exempt from the limit per address, because they stand for many clients: a proxy's
//! connection counts for the client that it names, see [`crate::address`].

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use crate::address::{self, AddressCounts, AddressKey};
use crate::auth::{Auth, Claims, Denied};
use crate::config::{Config, Network};
use crate::handshake::{Forwarding, Upgrade};
use crate::moment::Moment;
use crate::reasons::Refusal;

/// Keeps the gate.
#[derive(Debug)]
pub struct Gate {
    handshakes: HandshakeBudget,
    /// `limits.connections_per_address`; 0 = no limit.
    per_address_max: usize,
    trusted_proxies: Vec<Network>,
    addresses: AddressCounts,
    auth: Auth,
}

impl Gate {
    /// A gate nobody went through yet.
    #[must_use]
    pub fn new(config: &Config, auth: Auth, now: Moment) -> Self {
        let per_s = config.limits.handshakes_per_s_max;
        Self {
            handshakes: HandshakeBudget { per_s, left: per_s, refilled: now },
            per_address_max: config.limits.connections_per_address_max,
            trusted_proxies: config.server.trusted_proxies.clone(),
            addresses: AddressCounts::default(),
            auth,
        }
    }

    /// Takes over changed settings. A limit per address counts the connections from then on; who is in stays in. Without
    /// `auth`, which could not be read, the origins and keys stay as they are.
    pub fn reconfigure(&mut self, config: &Config, auth: Option<Auth>) {
        if let Some(auth) = auth {
            self.auth = auth;
        }
        self.handshakes.per_s = config.limits.handshakes_per_s_max;
        self.per_address_max = config.limits.connections_per_address_max;
        self.trusted_proxies.clone_from(&config.server.trusted_proxies);
    }

    /// Earns handshakes for the time that has passed.
    pub fn refill(&mut self, now: Moment) {
        self.handshakes.refill(now);
    }

    /// A socket was accepted. Returns whether it counts for the peer already: not when others stand behind it.
    ///
    /// # Errors
    /// [`Refusal::TooManyRequests`] when that peer has too many.
    pub fn accept(&mut self, peer: IpAddr) -> Result<bool, Refusal> {
        self.count(peer.to_canonical())
    }

    /// A head asks for an upgrade. Returns the client's address; `is_counted` says whether the connection counts for the
    /// peer, before, and for the client, after.
    ///
    /// # Errors
    /// [`Refusal::TooManyRequests`] when that client has too many connections, or there are too many handshakes.
    pub fn admit(
        &mut self,
        peer: IpAddr,
        forwarding: &Forwarding,
        is_counted: &mut bool,
    ) -> Result<IpAddr, Refusal> {
        if self.handshakes.left == 0 {
            return Err(Refusal::TooManyRequests);
        }
        let client = address::client_address(peer, forwarding, &self.trusted_proxies);
        if !*is_counted || AddressKey::of(client) != AddressKey::of(peer) {
            if std::mem::take(is_counted) {
                self.leave(peer);
            }
            *is_counted = self.count(client)?;
        }
        self.handshakes.left -= 1;
        Ok(client)
    }

    /// May whoever asks for this upgrade send? See [`Auth::check`].
    ///
    /// # Errors
    /// Why not.
    pub fn authorize(&self, upgrade: &Upgrade, now: SystemTime) -> Result<Option<Claims>, Denied> {
        self.auth.check(upgrade, now)
    }

    fn count(&mut self, client: IpAddr) -> Result<bool, Refusal> {
        let is_exempt = client.is_loopback() || address::is_trusted(client, &self.trusted_proxies);
        if self.per_address_max == 0 || is_exempt {
            return Ok(false);
        }
        let is_in = self.addresses.enter(AddressKey::of(client), self.per_address_max);
        is_in.then_some(true).ok_or(Refusal::TooManyRequests)
    }

    /// A counted connection is gone.
    pub fn leave(&mut self, address: IpAddr) {
        self.addresses.leave(AddressKey::of(address));
    }
}

/// Admits so many handshakes per second, and as many at once.
#[derive(Debug)]
struct HandshakeBudget {
    per_s: u32,
    left: u32,
    refilled: Moment,
}

impl HandshakeBudget {
    fn refill(&mut self, now: Moment) {
        let elapsed = now.saturating_duration_since(self.refilled);
        let earned = elapsed.as_secs_f64() * f64::from(self.per_s);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "capped by a u32 just below"
        )]
        let earned = earned.min(f64::from(self.per_s)) as u32;
        if earned == self.per_s {
            (self.left, self.refilled) = (self.per_s, now);
        } else if earned > 0 {
            self.left = self.left.saturating_add(earned).min(self.per_s);
            // What was earned in part is not lost.
            self.refilled += Duration::from_secs_f64(f64::from(earned) / f64::from(self.per_s));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn gate(per_address: usize, handshakes_per_s: u32) -> (Gate, Moment) {
        let mut config = Config::built_in();
        config.limits.connections_per_address_max = per_address;
        config.limits.handshakes_per_s_max = handshakes_per_s;
        config.server.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        let now = Moment::at(1 << 40);
        (Gate::new(&config, Auth::default(), now), now)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn behind(client: &str) -> Forwarding {
        Forwarding { x_forwarded_for: Some(client.to_owned()), forwarded: None }
    }

    /// A peer counts once for itself, from its accept on; whoever is exempt is not counted at all.
    #[test]
    fn direct_peers_count_from_the_accept_on() {
        let (mut gate, _) = gate(1, 100);
        let mut counted = gate.accept(ip("::ffff:192.0.2.1")).unwrap();
        assert!(counted);
        assert_eq!(gate.accept(ip("192.0.2.1")), Err(Refusal::TooManyRequests));
        let none = Forwarding::default();
        assert_eq!(gate.admit(ip("::ffff:192.0.2.1"), &none, &mut counted), Ok(ip("192.0.2.1")));
        gate.leave(ip("::ffff:192.0.2.1"));
        assert!(gate.accept(ip("192.0.2.1")).unwrap());
        for exempt in ["127.0.0.1", "::1", "::ffff:127.0.0.9", "10.1.2.3"] {
            for _ in 0..3 {
                assert_eq!(gate.accept(ip(exempt)), Ok(false), "{exempt}");
            }
        }
    }

    /// Behind a proxy the client counts that the proxy names; a proxy that names nobody stays exempt.
    #[test]
    fn clients_behind_a_proxy_count_from_the_upgrade_on() {
        let (mut gate, _) = gate(2, 100);
        let mut enter = |forwarding: &Forwarding| {
            let mut counted = gate.accept(ip("10.0.0.1")).unwrap();
            gate.admit(ip("10.0.0.1"), forwarding, &mut counted).map(|_| counted)
        };
        for _ in 0..2 {
            assert!(enter(&behind("6.6.6.6, 192.0.2.1")).unwrap());
        }
        assert_eq!(enter(&behind("7.7.7.7, 192.0.2.1")), Err(Refusal::TooManyRequests));
        assert!(enter(&behind("192.0.2.2")).unwrap());
        for _ in 0..5 {
            assert_eq!(enter(&Forwarding::default()), Ok(false));
        }
    }

    /// A peer that has become a trusted proxy since it was accepted counts for its client from the upgrade on.
    #[test]
    fn a_connection_counts_for_one_address_at_a_time() {
        let (mut gate, _) = gate(1, 100);
        gate.trusted_proxies.clear();
        let mut counted = gate.accept(ip("10.0.0.1")).unwrap();
        gate.trusted_proxies.push("10.0.0.0/8".parse().unwrap());
        assert_eq!(gate.admit(ip("10.0.0.1"), &behind("192.0.2.1"), &mut counted), Ok(ip("192.0.2.1")));
        assert!(counted);
        assert_eq!(gate.accept(ip("192.0.2.1")), Err(Refusal::TooManyRequests));
        gate.leave(ip("192.0.2.1"));
        assert!(gate.addresses.is_empty());
    }

    #[test]
    fn zero_sets_no_limit_per_address() {
        let (mut gate, _) = gate(0, 100);
        for _ in 0..5 {
            assert_eq!(gate.accept(ip("192.0.2.1")), Ok(false));
        }
    }

    /// The burst is one second's worth, and time earns more.
    #[test]
    fn handshakes_are_earned() {
        let (mut gate, start) = gate(0, 10);
        let admitted = |gate: &mut Gate| {
            let admit = |_: &i32| {
                gate.admit(ip("192.0.2.1"), &Forwarding::default(), &mut false) == Ok(ip("192.0.2.1"))
            };
            (0..100).filter(admit).count()
        };
        assert_eq!(admitted(&mut gate), 10);
        gate.refill(start + Duration::from_millis(99));
        assert_eq!(admitted(&mut gate), 0);
        gate.refill(start + Duration::from_millis(300));
        assert_eq!(admitted(&mut gate), 3);
        gate.refill(start + Duration::from_secs(60));
        assert_eq!(admitted(&mut gate), 10);
    }
}
