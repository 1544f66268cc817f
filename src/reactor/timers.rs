//! Hashed timer wheel: one timer per connection, no system call, no allocation in the steady state.
//!
//! Is told the time, never asks for it. Deadlines are rounded up to the next tick, so a timer never fires early
//! and at most one tick late. A timer is known by the place of its connection in the table of connections; those of one
//! slot of the wheel are a ring through the slot's head, so each can be moved or taken away wherever it stands. Timers beyond the wheel's
//! span wait in its last slot and are put back by the wheel itself.

use std::time::Duration;

use crate::moment::Moment;

/// Length of one tick.
pub const TICK: Duration = Duration::from_millis(50);
/// Number of slots, a power of two; the wheel spans `TICK * SLOTS`, about 102 s.
const SLOTS: u32 = 2048;
const WORDS: u32 = SLOTS / 64;
/// Where the heads begin in the numbers of links; below it are the timers.
const FIRST_HEAD: u32 = u32::MAX - SLOTS + 1;
/// Ticks from now on in which a timer can stand: some seven years. One that is set to a later one is early.
const TICKS_MAX: Tick = u32::MAX as Tick;
/// A wheel of no more timers than this keeps its memory.
const KEPT_TIMERS: usize = 1024;

/// Ticks since the origin of the wheel.
type Tick = u64;

/// Neighbours in the ring of a slot, as numbers of links.
#[derive(Debug, Clone, Copy)]
struct Link {
    before: u32,
    behind: u32,
}

#[derive(Debug, Clone, Copy)]
struct Timer {
    /// Of one that is on the wheel; else it points at itself.
    link: Link,
    /// The lower half of the tick; what is set lies within the next [`TICKS_MAX`].
    tick: u32,
}

impl Timer {
    /// Its tick, which lies behind `before`.
    fn tick_after(self, before: Tick) -> Tick {
        before + u64::from(self.tick.wrapping_sub(lower_half(before)))
    }
}

/// The wheel. Holds one timer per number; 12 bytes for each up to the largest.
#[derive(Debug)]
pub struct Wheel {
    origin: Moment,
    /// All ticks up to and including this one have been expired.
    done: Tick,
    timers: Vec<Timer>,
    /// Timers that are on the wheel.
    count: usize,
    /// One per slot; that of an empty one points at itself.
    heads: Vec<Link>,
    /// One bit per slot that is not empty.
    occupied: [u64; WORDS as usize],
}

impl Wheel {
    /// An empty wheel whose tick 0 is `now`.
    #[must_use]
    pub fn new(now: Moment) -> Self {
        let heads = (FIRST_HEAD..=u32::MAX).map(|head| Link { before: head, behind: head }).collect();
        Self { origin: now, done: 0, timers: Vec::new(), count: 0, heads, occupied: [0; WORDS as usize] }
    }

    /// Sets the timer `number`, which may be set already, to `at`.
    pub fn schedule(&mut self, number: u32, at: Moment) {
        self.cancel(number);
        while self.timers.len() <= number as usize {
            let number = u32::try_from(self.timers.len()).unwrap_or(u32::MAX);
            self.timers.push(Timer { link: Link { before: number, behind: number }, tick: 0 });
        }
        let tick = self.tick_of(at);
        self.put(number, tick);
    }

    /// As [`Wheel::schedule`], unless the timer is set to the same tick or an earlier one.
    pub fn bring_forward(&mut self, number: u32, at: Moment) {
        let set = self.timers.get(number as usize).filter(|timer| timer.link.before != number);
        if set.is_none_or(|timer| self.tick_of(at) < timer.tick_after(self.done)) {
            self.schedule(number, at);
        }
    }

    /// Takes the timer `number` off the wheel if it is there.
    pub fn cancel(&mut self, number: u32) {
        self.take_off(number);
        self.give_back();
    }

    /// Gives the memory of a crowd back when nobody needs it.
    fn give_back(&mut self) {
        if self.count == 0 && self.timers.len() > KEPT_TIMERS {
            self.timers = Vec::new();
        }
    }

    fn take_off(&mut self, number: u32) {
        let Some(timer) = self.timers.get_mut(number as usize) else { return };
        let Link { before, behind } =
            std::mem::replace(&mut timer.link, Link { before: number, behind: number });
        if before == number {
            return;
        }
        self.join(before, behind);
        if before == behind {
            // Only a head has no other neighbour than itself.
            self.mark(before - FIRST_HEAD, false);
        }
        self.count -= 1;
    }

    fn tick_of(&self, at: Moment) -> Tick {
        let since = at.saturating_duration_since(self.origin);
        let tick = u64::try_from(since.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX);
        tick.clamp(self.done + 1, self.done + TICKS_MAX)
    }

    fn link(&mut self, number: u32) -> Option<&mut Link> {
        match number.checked_sub(FIRST_HEAD) {
            Some(slot) => self.heads.get_mut(slot as usize),
            None => self.timers.get_mut(number as usize).map(|timer| &mut timer.link),
        }
    }

    /// Makes two links neighbours.
    fn join(&mut self, before: u32, behind: u32) {
        if let Some(link) = self.link(before) {
            link.behind = behind;
        }
        if let Some(link) = self.link(behind) {
            link.before = before;
        }
    }

    /// Puts a timer that is off the wheel at the end of the ring of its slot.
    fn put(&mut self, number: u32, tick: Tick) {
        let Some(timer) = self.timers.get_mut(number as usize) else { return };
        timer.tick = lower_half(tick);
        let slot = slot_of(tick.min(self.done + u64::from(SLOTS)));
        let head = FIRST_HEAD + slot;
        let last = self.link(head).map_or(head, |link| link.before);
        self.join(last, number);
        self.join(number, head);
        self.mark(slot, true);
        self.count += 1;
    }

    fn mark(&mut self, slot: u32, on: bool) {
        if let Some(word) = self.occupied.get_mut((slot / 64) as usize) {
            let bit = 1 << (slot % 64);
            if on { *word |= bit } else { *word &= !bit }
        }
    }

    /// Takes all timers off whose tick has come and appends their numbers to `out`.
    pub fn expire(&mut self, now: Moment, out: &mut Vec<u32>) {
        let since = now.saturating_duration_since(self.origin);
        let reached = u64::try_from(since.as_nanos() / TICK.as_nanos()).unwrap_or(u64::MAX);
        let before = self.done;
        // After a long pause (a suspended machine) one round visits every slot; more rounds would find nothing.
        let mut tick = self.done.max(reached.saturating_sub(u64::from(SLOTS)));
        let mut again = Vec::new();
        while tick < reached {
            tick += 1;
            self.done = tick;
            while let Some((number, due)) = self.first_in(slot_of(tick), before) {
                self.take_off(number);
                if due <= reached { out.push(number) } else { again.push((number, due)) }
            }
        }
        self.done = self.done.max(reached);
        for (number, tick) in again {
            self.put(number, tick);
        }
        self.give_back();
    }

    /// The first timer of a slot and its tick, which lies behind `before`.
    fn first_in(&mut self, slot: u32, before: Tick) -> Option<(u32, Tick)> {
        let number = self.link(FIRST_HEAD + slot)?.behind;
        self.timers.get(number as usize).map(|timer| (number, timer.tick_after(before)))
    }

    /// How long the loop may sleep: until the first occupied slot is due. `None` when the wheel is empty;
    /// zero when something is due already.
    #[must_use]
    pub fn sleep(&self, now: Moment) -> Option<Duration> {
        let first = self.done + 1;
        let (start_word, start_bit) = (slot_of(first) / 64, slot_of(first) % 64);
        for step in 0..=WORDS {
            let index = (start_word + step) % WORDS;
            let mut word = *self.occupied.get(index as usize)?;
            if step == 0 {
                word &= u64::MAX << start_bit;
            } else if step == WORDS {
                word &= !(u64::MAX << start_bit);
            }
            if word != 0 {
                let slot = index * 64 + word.trailing_zeros();
                let tick = first + u64::from((slot + SLOTS - slot_of(first)) % SLOTS);
                let nanos = u128::from(tick) * TICK.as_nanos();
                let due = self.origin + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
                return Some(due.saturating_duration_since(now));
            }
        }
        None
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the upper half follows from the ticks that are done")]
fn lower_half(tick: Tick) -> u32 {
    tick as u32
}

/// The slot in which a tick stands.
#[expect(clippy::cast_possible_truncation, reason = "there are 2048 slots")]
fn slot_of(tick: Tick) -> u32 {
    (tick % u64::from(SLOTS)) as u32
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
        assert_eq!(out, [0; 0]);
        wheel.expire(t0 + TICK, &mut out);
        assert_eq!(out, [7]);
        assert_eq!(wheel.sleep(t0 + TICK), None);
    }

    #[test]
    fn an_emptied_wheel_gives_its_memory_back() {
        let t0 = start();
        let mut wheel = Wheel::new(t0);
        (0..5000).for_each(|number| wheel.schedule(number, t0 + TICK * 4));
        (1..5000).for_each(|number| wheel.cancel(number));
        assert_eq!((wheel.sleep(t0), wheel.timers.len()), (Some(TICK * 4), 5000));
        wheel.cancel(0);
        assert_eq!((wheel.sleep(t0), wheel.timers.capacity()), (None, 0));
    }

    #[test]
    fn the_last_of_a_crowd_that_is_far_away_fires() {
        let t0 = start();
        let mut wheel = Wheel::new(t0);
        let crowd = 2000;
        for number in 0..crowd {
            wheel.schedule(number, t0 + TICK * (SLOTS + 1000));
        }
        (1..crowd).for_each(|number| wheel.cancel(number));
        let mut out = Vec::new();
        wheel.expire(t0 + TICK * (SLOTS + 500), &mut out);
        assert_eq!(out, [0; 0]);
        wheel.expire(t0 + TICK * (SLOTS + 1000), &mut out);
        assert_eq!((&*out, wheel.timers.capacity()), (&[0][..], 0));
    }

    #[test]
    fn years_of_uptime_change_nothing() {
        let t0 = start();
        let mut wheel = Wheel::new(t0);
        let (years, hour) = (TICK * (u32::MAX - 200), Duration::from_secs(3600));
        let mut out = Vec::new();
        wheel.schedule(1, t0 + years * 3);
        wheel.expire(t0 + years, &mut out);
        assert_eq!(out, [0; 0]);
        let now = t0 + years;
        wheel.schedule(2, now + hour);
        wheel.schedule(3, now + TICK * 30);
        wheel.bring_forward(2, now + TICK * 40);
        wheel.expire(now + TICK * 29, &mut out);
        assert_eq!(out, [0; 0]);
        wheel.expire(now + TICK * 30, &mut out);
        // What was set to a time after the next seven years is early.
        wheel.expire(now + hour, &mut out);
        assert_eq!(out, [3, 2, 1]);
    }

    /// What may happen to one of a few timers.
    #[derive(Debug, Clone, Copy)]
    enum Change {
        Schedule,
        BringForward,
        Cancel,
        Nothing,
    }

    proptest! {
        #[test]
        fn fires_once_never_early_and_at_most_a_tick_late(
            changes in proptest::collection::vec((0_u32..20, 0_u64..400_000, 0_usize..4), 1..60),
            steps in proptest::collection::vec(1_u64..150_000, 1..60),
        ) {
            let t0 = start();
            let mut wheel = Wheel::new(t0);
            let mut pending: std::collections::BTreeMap<u32, Moment> = std::collections::BTreeMap::new();
            let mut now = t0;
            let mut queue = changes.into_iter();
            for step in steps.into_iter().chain(std::iter::repeat_n(30_000, 20)) {
                let (number, delay, change) = queue.next().unwrap_or((0, 0, 3));
                let at = now + Duration::from_millis(delay);
                let change =
                    [Change::Schedule, Change::BringForward, Change::Cancel, Change::Nothing][change];
                match change {
                    Change::Schedule => {
                        wheel.schedule(number, at);
                        pending.insert(number, at);
                    }
                    Change::BringForward => {
                        wheel.bring_forward(number, at);
                        let earliest = pending.get(&number).map_or(at, |before| at.min(*before));
                        pending.insert(number, earliest);
                    }
                    Change::Cancel => {
                        wheel.cancel(number);
                        pending.remove(&number);
                    }
                    Change::Nothing => {}
                }
                prop_assert_eq!(wheel.count, pending.len());
                match pending.values().min() {
                    Some(first) => {
                        let sleep = wheel.sleep(now).expect("something is pending");
                        prop_assert!(now + sleep <= now.max(*first) + TICK, "would oversleep");
                    }
                    None => prop_assert_eq!(wheel.sleep(now), None),
                }
                now += Duration::from_millis(step);
                let mut fired = Vec::new();
                wheel.expire(now, &mut fired);
                for number in fired {
                    let at = pending.remove(&number).expect("fired once");
                    prop_assert!(at <= now, "fired early");
                }
                for at in pending.values() {
                    prop_assert!(*at + TICK > now, "still pending a tick after its time");
                }
            }
        }
    }
}
