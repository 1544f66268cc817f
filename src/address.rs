//! Whose connection is it? The client's address, from the peer or from what trusted proxies say. Pure.
//!
//! Only a peer in `server.trusted_proxies` is believed, and of what it says only the part that trusted proxies wrote:
//! the list is read from its right end, where the nearest proxy appended, up to the first address that is not trusted.
//! What stands left of that one was sent by the client itself and may say anything.
//!
//! `X-Forwarded-For` wins over `Forwarded` (RFC 7239) when both are there. Most proxies write the former and pass the
//! latter on as the client sent it; one that writes `Forwarded` must therefore remove the other field (docs/limits.md).
//!
//! An address is a person's: it is for limits and, cut by [`crate::logging::Peer`], for logs; never for a dump.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::config::Network;
use crate::handshake::Forwarding;

/// The address of the client behind `peer`, in its canonical form (no IPv4 inside IPv6).
///
/// When a trusted proxy names nobody, or says `unknown` or something unreadable, the proxy itself stands for its client.
#[must_use]
pub fn client_address(peer: IpAddr, forwarding: &Forwarding, trusted: &[Network]) -> IpAddr {
    let peer = peer.to_canonical();
    match (&forwarding.x_forwarded_for, &forwarding.forwarded) {
        (Some(list), _) => nearest_untrusted(peer, list.rsplit(',').map(node_address), trusted),
        (None, Some(list)) => nearest_untrusted(peer, rsplit_unquoted(list, ',').map(forwarded_for), trusted),
        (None, None) => peer,
    }
}

fn nearest_untrusted(
    peer: IpAddr,
    hops: impl Iterator<Item = Option<IpAddr>>,
    trusted: &[Network],
) -> IpAddr {
    let mut nearest = peer;
    for hop in hops {
        if !is_trusted(nearest, trusted) {
            break;
        }
        let Some(address) = hop else { break };
        nearest = address;
    }
    nearest
}

/// Whether the address is that of a proxy that is believed.
#[must_use]
pub fn is_trusted(address: IpAddr, trusted: &[Network]) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// An address as it stands in both fields: bare, in brackets, with or without a port; an IPv6 address with a port has
/// brackets, and what has a zone is of no use to anybody else (RFC 7239 6).
fn node_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = match bare.parse() {
        Ok(address) => address,
        Err(_) => text.parse::<SocketAddr>().ok()?.ip(),
    };
    Some(address.to_canonical())
}

/// The address in the parameter `for` of one element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let node = rsplit_unquoted(element, ';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim())
    })?;
    let unquoted = node.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(node);
    node_address(unquoted)
}

/// The parts between separators that are not inside quoted strings, the last one first. Read from the right end, so that
/// a quote which the client left open cannot swallow what a proxy appended. A backslash in front of a quote means
/// nothing here: no address has one.
fn rsplit_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    text.rsplit(move |c| {
        if c == '"' {
            is_quoted = !is_quoted;
        }
        c == separator && !is_quoted
    })
}

/// What counts as one client: an IPv4 address, or the /64 of an IPv6 address, which is what one subscriber has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressKey(IpAddr);

impl AddressKey {
    /// The client that this address counts for.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            v4 @ IpAddr::V4(_) => Self(v4),
            IpAddr::V6(v6) => Self(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into()),
        }
    }
}

/// How many connections each client has. Holds one entry per client that has any, so it is bounded by the connections.
#[derive(Debug, Default)]
pub struct AddressCounts(HashMap<AddressKey, usize>);

impl AddressCounts {
    /// Counts one more for `key` unless it has `max` already. Returns whether it was counted.
    #[must_use]
    pub fn enter(&mut self, key: AddressKey, max: usize) -> bool {
        let count = self.0.entry(key).or_default();
        if *count >= max.max(1) {
            return false;
        }
        *count += 1;
        true
    }

    /// Counts one less.
    pub fn leave(&mut self, key: AddressKey) {
        if let Some(count) = self.0.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&key);
            }
        }
    }

    /// Whether nobody is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUSTED: [&str; 3] = ["10.0.0.0/8", "127.0.0.1", "2001:db8:1::/48"];

    #[track_caller]
    fn check(peer: &str, x_forwarded_for: Option<&str>, forwarded: Option<&str>, expected: &str) {
        let trusted: Vec<Network> = TRUSTED.iter().map(|network| network.parse().unwrap()).collect();
        let forwarding = Forwarding {
            x_forwarded_for: x_forwarded_for.map(str::to_owned),
            forwarded: forwarded.map(str::to_owned),
        };
        let address = client_address(peer.parse().unwrap(), &forwarding, &trusted);
        assert_eq!(address, expected.parse::<IpAddr>().unwrap(), "{peer} {forwarding:?}");
    }

    #[test]
    fn only_trusted_peers_are_believed() {
        check("203.0.113.9", Some("198.51.100.1"), None, "203.0.113.9");
        check("203.0.113.9", None, Some("for=198.51.100.1"), "203.0.113.9");
        check("10.0.0.1", Some("198.51.100.1"), None, "198.51.100.1");
        check("::ffff:10.0.0.1", Some("198.51.100.1"), None, "198.51.100.1");
        check("10.0.0.1", None, None, "10.0.0.1");
    }

    /// What a client wrote itself stands left of what the proxies wrote, and is never reached.
    #[test]
    fn the_right_most_untrusted_address_counts() {
        check("10.0.0.1", Some("1.1.1.1, 198.51.100.1"), None, "198.51.100.1");
        check("10.0.0.1", Some("1.1.1.1, 198.51.100.1, 10.0.0.2 ,127.0.0.1"), None, "198.51.100.1");
        check("10.0.0.1", Some("10.0.0.3, 10.0.0.2"), None, "10.0.0.3");
        check("10.0.0.1", Some("1.1.1.1, unknown, 10.0.0.2"), None, "10.0.0.2");
        check("10.0.0.1", Some("1.1.1.1, rubbish"), None, "10.0.0.1");
        check("10.0.0.1", Some(""), None, "10.0.0.1");
        check("10.0.0.1", Some("1.1.1.1,"), None, "10.0.0.1");
    }

    #[test]
    fn every_spelling_of_a_node_is_read() {
        for (text, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:4711", "192.0.2.1"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("fe80::1%eth0", "10.0.0.1"),
            ("192.0.2.1:port", "10.0.0.1"),
            ("192.0.2.256", "10.0.0.1"),
        ] {
            check("10.0.0.1", Some(text), None, expected);
            check("10.0.0.1", None, Some(&format!("for=\"{text}\"")), expected);
        }
    }

    /// The examples of RFC 7239 4 and 7, and separators inside quoted strings.
    #[test]
    fn forwarded_is_read_as_the_standard_says() {
        check("10.0.0.1", None, Some("for=\"_gazonk\""), "10.0.0.1");
        check("10.0.0.1", None, Some("For=\"[2001:db8:cafe::17]:4711\""), "2001:db8:cafe::17");
        check("10.0.0.1", None, Some("for=192.0.2.60;proto=http;by=203.0.113.43"), "192.0.2.60");
        check("10.0.0.1", None, Some("for=1.1.1.1, for=192.0.2.43, for=10.9.9.9"), "192.0.2.43");
        check("10.0.0.1", None, Some("for=1.1.1.1, host=\"a,b;for=9.9.9.9\";for=192.0.2.43"), "192.0.2.43");
        check("10.0.0.1", None, Some("for=\"1.1.1.1, for=192.0.2.43"), "192.0.2.43");
        check("10.0.0.1", None, Some("for=\"1.1.1.1\\\", for=\"192.0.2.43:80\""), "192.0.2.43");
        check("10.0.0.1", None, Some("proto=https"), "10.0.0.1");
        check("10.0.0.1", None, Some("for"), "10.0.0.1");
    }

    #[test]
    fn x_forwarded_for_wins() {
        check("10.0.0.1", Some("192.0.2.1"), Some("for=198.51.100.1"), "192.0.2.1");
    }

    #[test]
    fn counts_are_per_client_and_return() {
        let key = |text: &str| AddressKey::of(text.parse().unwrap());
        let mut counts = AddressCounts::default();
        assert!(counts.enter(key("2001:db8::1"), 2));
        assert!(counts.enter(key("2001:db8::2"), 2), "the limit is two");
        assert!(!counts.enter(key("2001:db8::3"), 2), "one /64 is one client");
        assert!(counts.enter(key("2001:db8:0:1::3"), 2));
        assert!(counts.enter(key("::ffff:192.0.2.1"), 1));
        assert!(!counts.enter(key("192.0.2.1"), 1), "IPv4 inside IPv6 is IPv4");
        counts.leave(key("2001:db8::9"));
        assert!(counts.enter(key("2001:db8::3"), 2));
        for address in ["2001:db8::", "2001:db8::", "2001:db8:0:1::", "192.0.2.1"] {
            counts.leave(key(address));
        }
        assert!(counts.is_empty());
    }
}
