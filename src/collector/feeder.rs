//! A connection as the record keeper sees it: whose it is, which sessions it feeds, how often it sent nonsense. Pure.

use std::net::IpAddr;
use std::time::Duration;

use crate::client::{ClientType, ConnectionInfo};
use crate::moment::Moment;
use crate::reactor::slots::SlotId;
use crate::session::{Carried, Sessions, State};

/// What a connection brings along when it feeds sessions.
#[derive(Debug)]
pub struct Feeder {
    /// The connection.
    pub connection: SlotId,
    /// Its dialect, fixed at the upgrade.
    pub client: ClientType,
    /// Where it comes from: the client itself, whoever stands between.
    pub address: IpAddr,
    /// What it said about itself.
    pub info: ConnectionInfo,
    /// The sessions it feeds.
    pub carried: Carried,
    /// Made when there is any of it.
    rare: Option<Box<Rare>>,
}

impl Feeder {
    /// A connection that feeds nothing yet.
    #[must_use]
    pub fn new(connection: SlotId, client: ClientType, address: IpAddr, info: ConnectionInfo) -> Self {
        Self { connection, client, address, info, carried: Carried::None, rare: None }
    }

    /// Counts a bad request; returns how many it had in the current minute.
    pub(super) fn count_bad_request(&mut self, now: Moment) -> u32 {
        self.rare.get_or_insert_default().bad_requests.count_one(now)
    }

    /// The session without an entry for the longest time; the caller ends it.
    pub(super) fn longest_idle(&mut self, sessions: &Sessions) -> Option<SlotId> {
        let order_of = |session: SlotId| sessions.find(session).map(|found| found.last_entry);
        for _ in 0..2 {
            let by_idleness = &mut self.rare.get_or_insert_default().by_idleness;
            while let Some((order, session)) = by_idleness.pop() {
                let is_fed =
                    sessions.find(session).is_some_and(|found| found.state == State::Open(self.connection));
                if is_fed && order_of(session) == Some(order) {
                    return Some(session);
                }
            }
            let all = self.carried.all().into_iter();
            *by_idleness = all.filter_map(|session| Some((order_of(session)?, session))).collect();
            by_idleness.sort_unstable_by(|one, other| other.cmp(one));
        }
        None
    }
}

/// What few connections need.
#[derive(Debug, Default)]
struct Rare {
    bad_requests: BadRequests,
    /// The sessions when they were last sorted, the longest idle one last. Whatever has had an entry since then is younger
    /// than all others in it, so sorting once serves for as many evictions as there are sessions.
    by_idleness: Vec<(Moment, SlotId)>,
}

/// Bad requests of one connection in the current minute.
#[derive(Debug, Default)]
struct BadRequests {
    since: Option<Moment>,
    count: u32,
}

impl BadRequests {
    /// Counts one more; returns how many the current minute has.
    fn count_one(&mut self, now: Moment) -> u32 {
        let minute = Duration::from_secs(60);
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= minute) {
            *self = Self { since: Some(now), count: 0 };
        }
        self.count += 1;
        self.count
    }
}
