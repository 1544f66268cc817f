//! Sessions that are over while their last lines cannot be written.
//!
//! Nobody can send those lines again, so they are held in memory, and the append is tried again every second until it
//! succeeds and the session is finished. For its client the session has ended: who comes back is told so, or begins anew.
//! Bounds: `HELD_BYTES_MAX` in all and `HELD_FOR` each; what is beyond is lost, as is all of it when the process ends.

use std::collections::VecDeque;
use std::time::Duration;

use log::Level;

use super::{Collector, FLUSHES_PER_TURN, Now, shrink_queue};
use crate::dump::AppendError;
use crate::limited;
use crate::logging::{chain, member, value};
use crate::metrics::Tally;
use crate::reactor::slots::SlotId;
use crate::session::{Session, State};

/// Memory that is held at most, in all. A session has gathered `dump.flush_bytes` (256 KiB) at most, mostly a few KiB.
const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a session costs beside its lines, so that many small ones are bounded, too.
const SESSION_BYTES: usize = 1024;
/// How long they are held: somebody has to be called and to make room.
const HELD_FOR: Duration = Duration::from_secs(600);

/// The sessions that are held, in the order in which they are tried.
#[derive(Debug, Default)]
pub(super) struct HeldSessions {
    sessions: VecDeque<SlotId>,
    /// What they cost, as far as it is known since they were last tried.
    bytes: usize,
}

impl HeldSessions {
    /// Gives memory back that a crowd of them needed.
    pub(super) fn shrink(&mut self) {
        shrink_queue(&mut self.sessions);
    }
}

fn cost(session: &Session) -> usize {
    SESSION_BYTES + session.lines.bytes()
}

impl Collector {
    /// As [`Collector::finish`], of a session whose client is gone and can bring nothing again.
    pub(super) fn finish_gone(&mut self, key: SlotId, by_client: bool, tally: &mut Tally, now: Now) {
        match self.append(key, tally, now) {
            Ok(()) => self.finish(key, by_client, tally, now),
            Err(failure) => {
                tally.dump_write_errors += 1;
                if self.can_hold(key, &failure) {
                    self.hold(key, by_client, &failure, now);
                } else if self.drop_lines(key, &failure, tally, now) {
                    self.finish(key, by_client, tally, now);
                }
            }
        }
    }

    fn can_hold(&self, key: SlotId, failure: &AppendError) -> bool {
        let bytes = self.sessions.find(key).map_or(0, cost);
        matches!(failure, AppendError::Io { .. }) && self.held.bytes + bytes <= HELD_BYTES_MAX
    }

    fn hold(&mut self, key: SlotId, by_client: bool, failure: &AppendError, now: Now) {
        let Some(session) = self.sessions.find_mut(key) else { return };
        // Where they are gathered they would hold the lines of others in use.
        self.slabs.set_aside(&mut session.lines);
        limited!(
            self.log_limits.error,
            now.instant,
            Level::Error,
            "dump.error{} session={} err={} held_bytes={}",
            member("conn", session.last_connection),
            session.id,
            value(chain(failure)),
            session.lines.bytes()
        );
        self.held.bytes += cost(session);
        self.held.sessions.push_back(key);
        self.sessions.hold(key, by_client, now.instant + HELD_FOR, now.instant);
    }

    /// Tries again to write what is held. Called once a second; ends at the first failure, which the others would meet,
    /// too.
    pub(super) fn retry_held(&mut self, tally: &mut Tally, now: Now) {
        for _ in 0..self.held.sessions.len().min(FLUSHES_PER_TURN) {
            let Some(key) = self.held.sessions.pop_front() else { break };
            // Its time may have been up.
            let Some(by_client) = self.held_end(key) else { continue };
            // What was due to be appended anyway may have been by now; that is as good.
            match self.append(key, tally, now) {
                Ok(()) => self.finish(key, by_client, tally, now),
                Err(AppendError::Io { .. }) => {
                    self.held.sessions.push_back(key);
                    break;
                }
                // There is nothing left that they could be appended to.
                Err(failure @ AppendError::Replaced { .. }) => {
                    self.drop_lines(key, &failure, tally, now);
                }
            }
        }
        let held = self.held.sessions.iter().filter_map(|key| self.sessions.find(*key));
        self.held.bytes = held.map(cost).sum();
    }

    /// Whether its client ended a session that is held; `None` when it is not.
    pub(super) fn held_end(&self, key: SlotId) -> Option<bool> {
        match self.sessions.find(key)?.state {
            State::Held { by_client, .. } => Some(by_client),
            State::Open(_) | State::Waiting { .. } => None,
        }
    }

    /// The time of a session is up, or the server's; what of it is held is tried for the last time.
    pub(super) fn finish_at_last(&mut self, key: SlotId, tally: &mut Tally, now: Now) {
        let by_client = self.held_end(key).unwrap_or(false);
        if let Err(failure) = self.append(key, tally, now)
            && !self.drop_lines(key, &failure, tally, now)
        {
            return;
        }
        self.finish(key, by_client, tally, now);
    }
}
