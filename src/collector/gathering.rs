//! What is gathered and not yet appended: when each session is due, how much it is in all, and buffers to gather in.
//!
//! Knows no session and no file: the collector tells what it added and what it took out. Sessions are due in the order in
//! which they began to gather, because the interval is the same for all.
//! Bounds: at most one place per session; `dump.flush_total_bytes` of lines in all, beyond which the collector appends for
//! whoever gathers longest; `SPARE_BUFFERS_MAX` empty buffers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::reactor::slots::SlotId;

/// Sessions whose deadlines are as close as this are flushed together, at the last of them: so the loop wakes up once
/// for all, and the next line of a client that sends one each interval goes into the same append.
const FLUSH_GROUP: Duration = Duration::from_millis(20);
/// Places in the queue that are kept when there is nothing in them.
const QUEUE_KEPT: usize = 256;
/// Free append buffers that are kept for reuse.
const SPARE_BUFFERS_MAX: usize = 64;
/// Largest append buffer that is kept for reuse.
const SPARE_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// The lines of all sessions that wait to be appended, by their sum and their deadlines.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    queue: VecDeque<(Instant, SlotId)>,
    bytes: usize,
    spare: Vec<Vec<u8>>,
}

impl Gathering {
    /// Lines that are gathered, in bytes, of all sessions.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A line was gathered.
    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Lines were appended or given up.
    pub(super) fn remove(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// A session that was in no place gathers: it is due at `latest`, and not before the last in the queue.
    pub(super) fn enqueue(&mut self, session: SlotId, latest: Instant) {
        let due = match self.queue.back() {
            Some((last, _)) if *last + FLUSH_GROUP >= latest => *last,
            Some(_) | None => latest,
        };
        self.queue.push_back((due, session));
    }

    /// Takes the next session that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<SlotId> {
        self.queue.pop_front_if(|(due, _)| *due <= now).map(|(_, session)| session)
    }

    /// Takes the session that gathers longest.
    pub(super) fn take_oldest(&mut self) -> Option<SlotId> {
        self.queue.pop_front().map(|(_, session)| session)
    }

    /// When the next session is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.queue.front().map(|(due, _)| *due)
    }

    /// An empty buffer.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes back a buffer that is no longer needed.
    pub(super) fn reuse(&mut self, mut buffer: Vec<u8>) {
        let is_useful = (1..=SPARE_BUFFER_BYTES_MAX).contains(&buffer.capacity());
        if is_useful && self.spare.len() < SPARE_BUFFERS_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Gives memory back that a crowd of sessions needed.
    pub(super) fn shrink(&mut self) {
        if self.queue.len() < self.queue.capacity() / 8 {
            self.queue.shrink_to(QUEUE_KEPT);
        }
    }
}
