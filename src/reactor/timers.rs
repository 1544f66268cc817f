//! Hashed timer wheel: one entry per deadline, no system call, no allocation in the steady state.
//!
//! Is told the time, never asks for it. Deadlines are rounded up to the next tick, so a timer never fires early
//! and at most one tick late. There is no cancel: whoever is told of an expiry compares the tick with the one it
//! was given last and ignores a stale one. Entries beyond the wheel's span wait in its last slot and are put back
//! by the wheel itself.

use crate::moment::Moment;
use std::time::Duration;

/// Length of one tick.
pub const TICK: Duration = Duration::from_millis(50);
/// Number of slots, a power of two; the wheel spans `TICK * SLOTS`, about 102 s.
const SLOTS: u64 = 2048;
const WORDS: usize = (SLOTS / 64) as usize;

/// A point in time as the wheel counts it; two deadlines are equal when their ticks are.
pub type Tick = u64;

#[derive(Debug, Clone, Copy)]
struct Entry {
    id: u64,
    tick: Tick,
}

/// The wheel. Holds as many entries as were scheduled and not yet expired.
#[derive(Debug)]
pub struct Wheel {
    origin: Moment,
    /// All ticks up to and including this one have been expired.
    done: Tick,
    slots: Vec<Vec<Entry>>,
    /// One bit per slot that is not empty.
    occupied: [u64; WORDS],
}

impl Wheel {
    /// An empty wheel whose tick 0 is `now`.
    #[must_use]
    pub fn new(now: Moment) -> Self {
        Self { origin: now, done: 0, slots: (0..SLOTS).map(|_| Vec::new()).collect(), occupied: [0; WORDS] }
    }

    /// Puts `id` on the wheel for `at` and returns the tick under which it will expire.
    pub fn schedule(&mut self, id: u64, at: Moment) -> Tick {
        let tick = self.tick_of(at);
        self.put(Entry { id, tick });
        tick
    }

    /// The tick under which something scheduled for `at` would expire.
    #[must_use]
    pub fn tick_of(&self, at: Moment) -> Tick {
        let since = at.saturating_duration_since(self.origin);
        let tick = u64::try_from(since.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX);
        tick.max(self.done + 1)
    }

    fn put(&mut self, entry: Entry) {
        let slot = entry.tick.min(self.done + SLOTS) % SLOTS;
        if let Some(entries) = self.slots.get_mut(usize::try_from(slot).unwrap_or_default()) {
            entries.push(entry);
        }
        self.mark(slot, true);
    }

    fn mark(&mut self, slot: u64, on: bool) {
        if let Some(word) = self.occupied.get_mut(usize::try_from(slot / 64).unwrap_or_default()) {
            let bit = 1 << (slot % 64);
            if on { *word |= bit } else { *word &= !bit }
        }
    }

    /// Takes all entries whose tick has come and appends them to `out` as `(id, tick)`.
    pub fn expire(&mut self, now: Moment, out: &mut Vec<(u64, Tick)>) {
        let since = now.saturating_duration_since(self.origin);
        let reached = u64::try_from(since.as_nanos() / TICK.as_nanos()).unwrap_or(u64::MAX);
        // After a long pause (a suspended machine) one round visits every slot; more rounds would find nothing.
        let mut tick = self.done.max(reached.saturating_sub(SLOTS));
        let mut again = Vec::new();
        while tick < reached {
            tick += 1;
            self.done = tick;
            self.take_slot(tick % SLOTS, reached, out, &mut again);
        }
        self.done = self.done.max(reached);
        for entry in again {
            self.put(entry);
        }
    }

    fn take_slot(&mut self, slot: u64, reached: Tick, out: &mut Vec<(u64, Tick)>, again: &mut Vec<Entry>) {
        let Some(entries) = self.slots.get_mut(usize::try_from(slot).unwrap_or_default()) else { return };
        if entries.is_empty() {
            return;
        }
        for entry in std::mem::take(entries) {
            if entry.tick <= reached { out.push((entry.id, entry.tick)) } else { again.push(entry) }
        }
        self.mark(slot, false);
    }

    /// How long the loop may sleep: until the first occupied slot is due. `None` when the wheel is empty;
    /// zero when something is due already.
    #[must_use]
    pub fn sleep(&self, now: Moment) -> Option<Duration> {
        let first = self.done + 1;
        let (start_word, start_bit) = ((first % SLOTS) / 64, first % 64);
        for step in 0..=WORDS as u64 {
            let index = (start_word + step) % WORDS as u64;
            let mut word = *self.occupied.get(usize::try_from(index).unwrap_or_default())?;
            if step == 0 {
                word &= u64::MAX << start_bit;
            } else if step == WORDS as u64 {
                word &= !(u64::MAX << start_bit);
            }
            if word != 0 {
                let slot = index * 64 + u64::from(word.trailing_zeros());
                let tick = first + (slot + SLOTS - first % SLOTS) % SLOTS;
                let nanos = u128::from(tick) * TICK.as_nanos();
                let due = self.origin + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
                return Some(due.saturating_duration_since(now));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn start() -> Moment {
        Moment::at(1 << 40)
    }

    #[test]
    fn a_due_timer_means_no_sleep() {
        let t0 = start();
        let mut wheel = Wheel::new(t0);
        assert_eq!(wheel.sleep(t0), None);
        wheel.schedule(7, t0 + TICK);
        assert_eq!(wheel.sleep(t0), Some(TICK));
        assert_eq!(wheel.sleep(t0 + TICK), Some(Duration::ZERO));
        assert_eq!(wheel.sleep(t0 + TICK * 9), Some(Duration::ZERO));
        let mut out = Vec::new();
        wheel.expire(t0 + TICK - Duration::from_nanos(1), &mut out);
        assert_eq!(out, []);
        wheel.expire(t0 + TICK, &mut out);
        assert_eq!(out, [(7, 1)]);
        assert_eq!(wheel.sleep(t0 + TICK), None);
    }

    proptest! {
        #[test]
        fn fires_once_never_early_and_at_most_a_tick_late(
            delays in proptest::collection::vec(0_u64..400_000, 1..60),
            steps in proptest::collection::vec(1_u64..150_000, 1..60),
        ) {
            let t0 = start();
            let mut wheel = Wheel::new(t0);
            let mut pending: Vec<(u64, Moment)> = Vec::new();
            let mut now = t0;
            let mut next_id = 0;
            let mut queue = delays.into_iter();
            for step in steps.into_iter().chain(std::iter::repeat_n(30_000, 20)) {
                if let Some(delay) = queue.next() {
                    let at = now + Duration::from_millis(delay);
                    wheel.schedule(next_id, at);
                    pending.push((next_id, at));
                    next_id += 1;
                }
                if let Some(first) = pending.iter().map(|p| p.1).min() {
                    let sleep = wheel.sleep(now).expect("something is pending");
                    prop_assert!(now + sleep <= first.max(now) + TICK, "would oversleep");
                }
                now += Duration::from_millis(step);
                let mut fired = Vec::new();
                wheel.expire(now, &mut fired);
                for (id, _) in fired {
                    let at = pending.iter().position(|p| p.0 == id).expect("fired once");
                    prop_assert!(pending.swap_remove(at).1 <= now, "fired early");
                }
                for (_, at) in &pending {
                    prop_assert!(*at + TICK > now, "still pending a tick after its time");
                }
            }
        }
    }
}
