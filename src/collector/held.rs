//! Sessions whose clients are gone for good while their last lines cannot be written.
//!
//! Nobody can send those lines again, so they are held in memory, the session waiting as if for its client, and the
//! append is tried again every second until it succeeds and the session is finished.
//! Bounds: `HELD_BYTES_MAX` in all and `HELD_FOR` each; what is beyond is lost, as is all of it when the process ends.

use std::collections::VecDeque;
use std::time::Duration;

use log::Level;

use super::{Collector, FLUSHES_PER_TURN, Now};
use crate::dump::AppendError;
use crate::limited;
use crate::logging::{chain, member, value};
use crate::metrics::Tally;
use crate::reactor::slots::SlotId;
use crate::session::{Session, State};

/// Lines that are held at most, in all. A session has gathered `dump.flush_bytes` (64 KiB) at most, mostly a few KiB.
const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long they are held: somebody has to be called and to make room.
const HELD_FOR: Duration = Duration::from_secs(600);

/// The sessions that are held, in the order in which they are tried, and whether their clients ended them.
#[derive(Debug, Default)]
pub(super) struct HeldSessions {
    sessions: VecDeque<(SlotId, bool)>,
    bytes: usize,
}

impl HeldSessions {
    /// Lines that are held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Collector {
    /// As [`Collector::finish`], of a session whose client is gone and can bring nothing again.
    pub(super) fn finish_gone(&mut self, key: SlotId, by_client: bool, tally: &mut Tally, now: Now) {
        match self.append(key, tally, now) {
            Ok(()) => self.finish(key, by_client, tally, now),
            Err(failure) if self.can_hold(key, &failure) => {
                tally.dump_write_errors += 1;
                self.note_held(key, &failure, now);
                self.held.bytes += self.sessions.find(key).map_or(0, |session| session.buffer.len());
                self.held.sessions.push_back((key, by_client));
                self.sessions.hold(key, now.instant + HELD_FOR);
            }
            Err(failure) => {
                self.append_failed(key, &failure, tally, now);
                if self.sessions.find(key).is_some_and(|session| session.buffer.is_empty()) {
                    self.finish(key, by_client, tally, now);
                }
            }
        }
    }

    fn can_hold(&self, key: SlotId, failure: &AppendError) -> bool {
        let bytes = self.sessions.find(key).map_or(0, |session| session.buffer.len());
        matches!(failure, AppendError::Io { .. }) && self.held.bytes + bytes <= HELD_BYTES_MAX
    }

    fn note_held(&mut self, key: SlotId, failure: &AppendError, now: Now) {
        let Some(session) = self.sessions.find(key) else { return };
        limited!(
            self.lines.error,
            now.instant,
            Level::Error,
            "dump.error{} session={} err={} held_bytes={}",
            member("conn", session.last_connection),
            session.id,
            value(chain(failure)),
            session.buffer.len()
        );
    }

    /// Tries again to write what is held. Called once a second; ends at the first failure, which the others would meet,
    /// too.
    pub(super) fn retry_held(&mut self, tally: &mut Tally, now: Now) {
        for _ in 0..self.held.sessions.len().min(FLUSHES_PER_TURN) {
            let Some((key, by_client)) = self.held.sessions.pop_front() else { break };
            let waits = |session: &Session| matches!(session.state, State::Waiting { .. });
            if !self.sessions.find(key).is_some_and(waits) {
                // Its client has come back all the same, or its time is up.
                continue;
            }
            // What was due to be appended anyway may have been by now; that is as good.
            if self.append(key, tally, now).is_err() {
                self.held.sessions.push_back((key, by_client));
                break;
            }
            self.finish(key, by_client, tally, now);
        }
        let held = self.held.sessions.iter().filter_map(|(key, _)| self.sessions.find(*key));
        self.held.bytes = held.map(|session| session.buffer.len()).sum();
    }

    /// The time of a session is up; what of it is held is tried for the last time.
    pub(super) fn finish_expired(&mut self, key: SlotId, tally: &mut Tally, now: Now) {
        if let Err(failure) = self.append(key, tally, now)
            && let Some(session) = self.sessions.find_mut(key)
        {
            let (conn, lost_bytes) = (member("conn", session.last_connection), session.drop_buffer());
            self.gathering.remove(lost_bytes);
            tally.session_errors += 1;
            limited!(
                self.lines.error,
                now.instant,
                Level::Error,
                "dump.error{conn} session={} err={} lost_bytes={lost_bytes}",
                session.id,
                value(chain(&failure))
            );
        }
        self.finish(key, false, tally, now);
    }
}
