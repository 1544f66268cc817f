//! Dominant speaker: how often and for how long this participant was it, and when.
//!
//! Rules: feature extraction 6.3, defects of the reference included (a last event without a speaker loses all).

use serde::Serialize;

use super::budget::{self, Budget, ELEMENTS_MAX};
use super::clock::Clock;
use super::js;
use super::keyed::{Key, Keyed};
use super::problems::LineError;
use super::value::Value;

/// This participant began or ceased to be the dominant speaker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpeakerEvent {
    /// `DOMINANT_SPEAKER_STARTED` or `DOMINANT_SPEAKER_STOPPED`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// When, in ms.
    #[serde(serialize_with = "js::serialize_number")]
    pub timestamp: f64,
}

/// Changes to this participant, and the time that they had, in ms.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct SpeakerTotals {
    pub(super) changes: f64,
    pub(super) time_ms: f64,
}

/// What is known of the speakers so far.
#[derive(Debug, Default)]
pub(super) struct Speaker {
    /// The id of this participant; the first truthy one of its identities stays.
    own_id: Value,
    current: Value,
    since_ms: f64,
    totals: Keyed<SpeakerTotals>,
    events: Vec<SpeakerEvent>,
}

impl Speaker {
    /// Learns this participant's id from an identity.
    pub(super) fn identify(&mut self, endpoint_id: &Value) {
        if !self.own_id.is_truthy() {
            self.own_id = endpoint_id.clone();
        }
    }

    /// Takes a change of the speaker. The clock has been checked: an event without one is an error before.
    ///
    /// # Errors
    ///
    /// When there is no data, or more speakers or events than are kept.
    pub(super) fn change(&mut self, data: &Value, now_ms: f64, budget: &mut Budget) -> Result<(), LineError> {
        if data.is_nullish() {
            return Err(LineError::NoData { entry: "dominantSpeaker" });
        }
        let next = data.member("dominantSpeakerEndpoint");
        let kind = if identical(next, &self.own_id) {
            Some("DOMINANT_SPEAKER_STARTED")
        } else if identical(&self.current, &self.own_id) {
            Some("DOMINANT_SPEAKER_STOPPED")
        } else {
            None
        };
        let full = match kind {
            Some(kind) if self.events.len() < ELEMENTS_MAX => {
                self.events.push(SpeakerEvent { kind, timestamp: now_ms });
                Ok(())
            }
            Some(_) => budget::check_elements("dominant speaker events", self.events.len()),
            None => Ok(()),
        };
        if let Some(totals) = self.totals_of(next, budget)? {
            totals.changes += 1.0;
        }
        if self.current.is_truthy() {
            let current = std::mem::take(&mut self.current);
            self.add_time(&current, now_ms);
        }
        self.current = next.clone();
        self.since_ms = now_ms;
        full
    }

    /// The events, and the totals of this participant.
    pub(super) fn finish(mut self, session_end: f64) -> (Vec<SpeakerEvent>, SpeakerTotals) {
        let mut own = SpeakerTotals::default();
        if self.current.is_truthy() {
            let current = std::mem::take(&mut self.current);
            self.add_time(&current, session_end);
            own = self.totals.get(&Key::of(&self.own_id)).copied().unwrap_or_default();
        }
        (self.events, own)
    }

    fn add_time(&mut self, speaker: &Value, until_ms: f64) {
        let spoken = until_ms - self.since_ms;
        let place = self.totals.place(&Key::of(speaker));
        if let Some(totals) = place.and_then(|place| self.totals.at_mut(place)) {
            totals.time_ms += spoken;
        }
    }

    fn totals_of(
        &mut self,
        speaker: &Value,
        budget: &mut Budget,
    ) -> Result<Option<&mut SpeakerTotals>, LineError> {
        let key = Key::of(speaker);
        let place = match self.totals.place(&key) {
            Some(place) => place,
            None => {
                budget::check_elements("speakers", self.totals.len())?;
                budget.take(128 + 2 * key.heap_bytes() + speaker.heap_bytes())?;
                self.totals.add(key, SpeakerTotals::default())
            }
        };
        Ok(self.totals.at_mut(place))
    }
}

/// The time of an event.
///
/// # Errors
///
/// When there is none.
pub(super) fn event_time(clock: Clock) -> Result<f64, LineError> {
    clock.truthy().ok_or(LineError::BadData { entry: "dominantSpeaker", fault: "timestamp is missing" })
}

/// JavaScript's `===`: two arrays or objects read from a dump are never the same one.
fn identical(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(_) | Value::Object(_), _) => false,
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::value::Object;

    fn says(endpoint: Value) -> Value {
        let mut data = Object::default();
        data.set("dominantSpeakerEndpoint", endpoint);
        Value::Object(data)
    }

    fn run(own: Value, changes: &[(Value, f64)], end: f64) -> (Vec<&'static str>, SpeakerTotals) {
        let mut speaker = Speaker::default();
        speaker.identify(&own);
        speaker.identify(&Value::text("later"));
        for (endpoint, at) in changes {
            speaker.change(&says(endpoint.clone()), *at, &mut Budget::default()).unwrap();
        }
        let (events, totals) = speaker.finish(end);
        (events.into_iter().map(|event| event.kind).collect(), totals)
    }

    #[test]
    fn time_runs_from_a_change_to_the_next_one_or_the_end() {
        let (me, you) = (Value::text("me"), Value::text("you"));
        let changes = [(me.clone(), 10.0), (you.clone(), 15.0), (me.clone(), 20.0)];
        let (events, totals) = run(me.clone(), &changes, 32.0);
        assert_eq!(
            events,
            ["DOMINANT_SPEAKER_STARTED", "DOMINANT_SPEAKER_STOPPED", "DOMINANT_SPEAKER_STARTED"]
        );
        assert_eq!(totals, SpeakerTotals { changes: 2.0, time_ms: 17.0 });
        let (_, totals) = run(me.clone(), &[(me.clone(), 10.0), (me, 11.0), (you, 12.0)], 15.0);
        assert_eq!(totals, SpeakerTotals { changes: 2.0, time_ms: 2.0 });
    }

    #[test]
    fn a_last_event_without_speaker_loses_the_totals() {
        let me = Value::text("me");
        let (events, totals) = run(me.clone(), &[(me, 10.0), (Value::Null, 15.0)], 20.0);
        assert_eq!(events, ["DOMINANT_SPEAKER_STARTED", "DOMINANT_SPEAKER_STOPPED"]);
        assert_eq!(totals, SpeakerTotals::default());
    }

    #[test]
    fn absent_is_identical_to_absent() {
        let mut speaker = Speaker::default();
        let mut budget = Budget::default();
        speaker.change(&says(Value::text("you")), 1.0, &mut budget).unwrap();
        speaker.change(&says(Value::Absent), 2.0, &mut budget).unwrap();
        speaker.change(&says(Value::Null), 3.0, &mut budget).unwrap();
        let kinds: Vec<_> = speaker.finish(4.0).0.into_iter().map(|event| event.kind).collect();
        assert_eq!(
            kinds,
            ["DOMINANT_SPEAKER_STOPPED", "DOMINANT_SPEAKER_STARTED", "DOMINANT_SPEAKER_STOPPED"]
        );
    }

    #[test]
    fn data_and_clock_are_needed() {
        let change = Speaker::default().change(&Value::Null, 1.0, &mut Budget::default());
        assert_eq!(change, Err(LineError::NoData { entry: "dominantSpeaker" }));
        assert!(event_time(Clock::At(0.0)).is_err());
        assert_eq!(event_time(Clock::At(-3.0)), Ok(-3.0));
    }
}
