//! A connection as the record keeper sees it: whose it is, which sessions it feeds, how often it sent nonsense. Pure.

use crate::moment::Moment;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::client::{ClientType, ConnectionInfo, SessionId};
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
    pub info: Rc<ConnectionInfo>,
    /// The session id in its URL, when there is a valid one.
    pub url_id: Option<SessionId>,
    /// The sessions it feeds.
    pub carried: Carried,
    /// Made by the first one.
    bad_requests: Option<Box<BadRequests>>,
    /// Its sessions when they were last sorted, the longest idle one last. Whatever has had an entry since then is younger
    /// than all others in it, so sorting once serves for as many evictions as there are sessions.
    by_idleness: Vec<(u64, SlotId)>,
}

impl Feeder {
    /// A connection that feeds nothing yet.
    #[must_use]
    pub fn new(
        connection: SlotId,
        client: ClientType,
        address: IpAddr,
        info: Rc<ConnectionInfo>,
        url_id: Option<SessionId>,
    ) -> Self {
        let bad_requests = None;
        let by_idleness = Vec::new();
        Self { connection, client, address, info, url_id, carried: Carried::None, bad_requests, by_idleness }
    }

    /// Counts a bad request; returns how many it had in the current minute.
    pub(super) fn count_bad_request(&mut self, now: Moment) -> u32 {
        self.bad_requests.get_or_insert_with(|| Box::new(BadRequests { since: now, count: 0 })).count_one(now)
    }

    /// The session without an entry for the longest time; the caller ends it.
    pub(super) fn longest_idle(&mut self, sessions: &Sessions) -> Option<SlotId> {
        let order_of = |session: SlotId| sessions.find(session).map(|found| found.last_entry_order);
        for _ in 0..2 {
            while let Some((order, session)) = self.by_idleness.pop() {
                let is_fed =
                    sessions.find(session).is_some_and(|found| found.state == State::Open(self.connection));
                if is_fed && order_of(session) == Some(order) {
                    return Some(session);
                }
            }
            let all = self.carried.all().into_iter();
            self.by_idleness = all.filter_map(|session| Some((order_of(session)?, session))).collect();
            self.by_idleness.sort_unstable_by(|one, other| other.cmp(one));
        }
        None
    }
}

/// Bad requests of one connection in the current minute.
#[derive(Debug)]
struct BadRequests {
    since: Moment,
    count: u32,
}

impl BadRequests {
    /// Counts one more; returns how many the current minute has.
    fn count_one(&mut self, now: Moment) -> u32 {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(60) {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count
    }
}
