//! How long the loop lets readiness gather before it looks again. Pure; told the time.
//!
//! When many peers send a little each, a wake-up for every message is most of what it costs. A pause makes one wake-up
//! of many. It is never longer than `reactor.coalesce_ms`, never longer than it takes a good handful of messages to
//! come, and there is none at all when
//!
//! - little comes: a pause would gather nothing, and the single message is handled at once;
//! - the loop is saturated: what is to be gathered is there already.
//!
//! Somebody waits for what a new connection is answered, so a knock ends a pause, and behind a turn that let somebody in
//! there is none. Where many come they come in together: then pauses last 10 ms at most, and no knock ends them.

use std::time::Duration;

use crate::moment::Moment;

/// How long somebody who connects is kept waiting for others at most. A page does not notice, a thousand that come in a second
/// after a restart share a wake-up among ten.
const WAITED_MAX: Duration = Duration::from_millis(10);
/// Connections that must be expected to come in that time, or a knock ends every pause.
const KNOCKS_MIN: f64 = 1.0;
/// Over which time load is averaged: long against a pause, short against anything that a person notices.
const MEMORY: Duration = Duration::from_millis(250);
/// Events that a pause must be expected to gather, or it is not made.
const EVENTS_MIN: f64 = 4.0;
/// Events that are enough: of a wake-up, a 64th falls to each, and a turn that handles them is far below a millisecond.
const EVENTS_ENOUGH: f64 = 64.0;
/// Above this share of time spent working there is no pause.
const BUSY_SHARE_MAX: f64 = 0.5;

/// What one turn of the loop was like.
#[derive(Debug, Clone, Copy)]
pub struct TurnLoad {
    /// Readiness events.
    pub events: usize,
    /// Connections that were accepted.
    pub knocks: usize,
    /// When the loop woke up.
    pub began: Moment,
    /// When its work was done.
    pub ended: Moment,
}

/// A pause of the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// How long it lasts.
    pub time: Duration,
    /// Whether a knock ends it.
    pub hears_knocks: bool,
}

/// Watches the load and says how long to pause.
#[derive(Debug)]
pub struct Pacer {
    pause_max: Duration,
    /// Events per second, averaged.
    events_per_s: f64,
    /// Connections per second, averaged.
    knocks_per_s: f64,
    /// Share of time spent working, averaged.
    busy_share: f64,
    /// When the last turn ended.
    last: Moment,
    /// Whether it let somebody in.
    has_let_in: bool,
}

impl Pacer {
    /// A pacer that has seen nothing yet. `pause_max`: `reactor.coalesce_ms`.
    #[must_use]
    pub fn new(pause_max: Duration, now: Moment) -> Self {
        Self {
            pause_max,
            events_per_s: 0.0,
            knocks_per_s: 0.0,
            busy_share: 0.0,
            last: now,
            has_let_in: false,
        }
    }

    /// Changes the longest pause.
    pub fn reconfigure(&mut self, pause_max: Duration) {
        self.pause_max = pause_max;
    }

    /// Notes a turn.
    pub fn note(&mut self, turn: TurnLoad) {
        let memory = MEMORY.as_secs_f64();
        let elapsed = turn.ended.saturating_duration_since(self.last).as_secs_f64();
        let busy = turn.ended.saturating_duration_since(turn.began).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a turn has at most some thousand events")]
        let [events, knocks] = [turn.events, turn.knocks].map(|count| count as f64);
        let average = |before: f64, now: f64| (before * memory + now) / (memory + elapsed);
        self.events_per_s = average(self.events_per_s, events);
        self.knocks_per_s = average(self.knocks_per_s, knocks);
        self.busy_share = average(self.busy_share, busy);
        self.last = turn.ended;
        self.has_let_in = turn.knocks > 0;
    }

    /// How to pause now; `None` for not at all.
    #[must_use]
    pub fn pause(&self) -> Option<Pause> {
        if self.knocks_per_s * WAITED_MAX.as_secs_f64() >= KNOCKS_MIN
            && let Some(time) = self.worthwhile(self.pause_max.min(WAITED_MAX))
        {
            return Some(Pause { time, hears_knocks: false });
        }
        if self.has_let_in {
            return None;
        }
        Some(Pause { time: self.worthwhile(self.pause_max)?, hears_knocks: true })
    }

    /// As much of a pause of at most `longest` as is needed to gather enough; `None` if it would gather next to nothing.
    fn worthwhile(&self, longest: Duration) -> Option<Duration> {
        let expected = self.events_per_s * longest.as_secs_f64();
        if expected < EVENTS_MIN || self.busy_share > BUSY_SHARE_MAX {
            return None;
        }
        Some(longest.mul_f64((EVENTS_ENOUGH / expected).min(1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_millis(20);

    /// Plays a second of messages at even distances, as the loop would: each turn takes `fixed` and `each` per message,
    /// then it pauses, or waits for the next message. Returns the pacer and the turns of the last half second.
    fn play(rate: u32, fixed: Duration, each: Duration) -> (Pacer, u32) {
        let start = Moment::at(1 << 40);
        let at = |n: u32| start + Duration::from_secs(1) * n / rate;
        let (mut pacer, mut now, mut taken, mut turns) = (Pacer::new(LONGEST, start), start, 0, 0);
        while taken < rate {
            if let Some(pause) = pacer.pause() {
                assert!(pause.time <= LONGEST && pause.hears_knocks);
                now += pause.time;
            }
            now = now.max(at(taken));
            let (began, mut events) = (now, 0);
            while taken < rate && at(taken) <= now {
                (taken, events) = (taken + 1, events + 1);
            }
            now += fixed + each * events;
            pacer.note(TurnLoad { events: events as usize, knocks: 0, began, ended: now });
            turns += u32::from(taken > rate / 2);
        }
        (pacer, turns)
    }

    #[test]
    fn a_pause_is_made_only_where_it_gathers_something() {
        let us = Duration::from_micros;
        // Messages per second, microseconds per turn and per message -> turns for the last half of them, at least and at most.
        let cases = [
            (10, 10, 10, 5, 5),
            (100, 10, 10, 50, 50),
            (190, 10, 10, 90, 95),
            (2_000, 10, 10, 20, 30),
            (20_000, 10, 10, 100, 200),
            // Saturated: the pause would not gather more than the work does.
            (20_000, 10, 40, 200, 10_000),
        ];
        for (rate, fixed, each, least, most) in cases {
            let (_, turns) = play(rate, us(fixed), us(each));
            assert!((least..=most).contains(&turns), "{rate} messages/s, {each} us each: {turns} turns");
        }
    }

    #[test]
    fn a_saturated_loop_does_not_pause() {
        let (pacer, _) = play(20_000, Duration::from_micros(10), Duration::from_micros(45));
        assert_eq!(pacer.pause(), None);
    }

    #[test]
    fn somebody_who_waits_is_not_kept_waiting_and_zero_means_never() {
        let (mut pacer, _) = play(2_000, Duration::ZERO, Duration::ZERO);
        let pause = pacer.pause().expect("there is load");
        assert!(pause.time > LONGEST / 2 && pause.hears_knocks, "{pause:?}");
        let now = pacer.last + Duration::from_millis(1);
        pacer.note(TurnLoad { events: 2, knocks: 1, began: now, ended: now });
        assert_eq!(pacer.pause(), None);
        pacer.note(TurnLoad { events: 2, knocks: 0, began: now, ended: now });
        assert!(pacer.pause().is_some());
        pacer.reconfigure(Duration::ZERO);
        assert_eq!(pacer.pause(), None);
    }

    #[test]
    fn many_who_come_are_let_in_together() {
        // Connections per second, each with three events -> how long a turn that let somebody in is waited behind.
        for (rate, expected) in [(100, None), (1_000, Some(WAITED_MAX)), (10_000, Some(WAITED_MAX / 2))] {
            let (turns, mut now) = (200, Moment::at(1 << 40));
            let mut pacer = Pacer::new(LONGEST, now);
            for _ in 0..turns {
                now += Duration::from_millis(10);
                pacer.note(TurnLoad { events: rate * 3 / 100, knocks: rate / 100, began: now, ended: now });
            }
            let pause = pacer.pause();
            assert_eq!(pause.is_some(), expected.is_some(), "{rate}/s: {pause:?}");
            if let (Some(pause), Some(expected)) = (pause, expected) {
                let within = pause.time <= expected && pause.time > expected / 3;
                assert!(!pause.hears_knocks && within, "{rate}/s: {pause:?}");
            }
            pacer.reconfigure(Duration::ZERO);
            assert_eq!(pacer.pause(), None, "zero means never");
        }
    }

    #[test]
    fn after_a_silence_the_next_message_is_handled_at_once() {
        let (mut pacer, _) = play(2_000, Duration::ZERO, Duration::ZERO);
        let now = pacer.last + Duration::from_secs(5);
        pacer.note(TurnLoad { events: 1, knocks: 0, began: now, ended: now });
        assert_eq!(pacer.pause(), None);
    }
}
