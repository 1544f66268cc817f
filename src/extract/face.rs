//! Face landmarks: expressions as they were seen, and the time of each sentiment.
//!
//! Rules: feature extraction 6.4.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::budget::{self, Budget};
use super::problems::LineError;
use super::value::Value;

/// The sentiments that are summed, in the order of the result.
pub const SENTIMENTS: [&str; 7] = ["angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised"];

/// One expression as it was reported.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaceLandmarks {
    /// When, as the client states it.
    #[serde(skip_serializing_if = "Value::is_absent")]
    pub timestamp: Value,
    /// Which, as the client states it.
    #[serde(skip_serializing_if = "Value::is_absent")]
    pub face_landmarks: Value,
}

/// Sum of the durations of each sentiment, in the client's unit; NaN once a duration was missing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sentiment(pub [f64; SENTIMENTS.len()]);

impl Serialize for Sentiment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_map(Some(SENTIMENTS.len()))?;
        for (name, sum) in SENTIMENTS.iter().zip(self.0) {
            out.serialize_entry(name, &Value::Number(sum))?;
        }
        out.end()
    }
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Face {
    pub(super) landmarks: Vec<FaceLandmarks>,
    pub(super) sentiment: Sentiment,
}

impl Face {
    /// Takes an entry's data.
    ///
    /// # Errors
    ///
    /// When there is none, or more expressions than are kept; those are summed all the same.
    pub(super) fn see(&mut self, data: &Value, budget: &mut Budget) -> Result<(), LineError> {
        if data.is_nullish() {
            return Err(LineError::NoData { entry: "faceLandmarks" });
        }
        let expression = data.member("faceLandmarks");
        let sum = expression.as_str().and_then(|name| SENTIMENTS.iter().position(|known| *known == name));
        if let Some(sum) = sum.and_then(|at| self.sentiment.0.get_mut(at)) {
            let duration = data.member("duration");
            *sum += if *duration == Value::Null { 0.0 } else { duration.as_number().unwrap_or(f64::NAN) };
        }
        budget::check_elements("face landmarks", self.landmarks.len())?;
        let landmarks =
            FaceLandmarks { timestamp: data.member("timestamp").clone(), face_landmarks: expression.clone() };
        budget
            .take(size_of::<FaceLandmarks>() + landmarks.timestamp.heap_bytes() + expression.heap_bytes())?;
        self.landmarks.push(landmarks);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn see(face: &mut Face, members: &[(&str, Value)]) {
        let data = members.iter().map(|(name, value)| (Box::from(*name), value.clone())).collect();
        face.see(&Value::Object(data), &mut Budget::default()).unwrap();
    }

    #[test]
    fn known_expressions_are_summed_and_all_are_recorded() {
        let mut face = Face::default();
        see(&mut face, &[("faceLandmarks", Value::text("happy")), ("duration", Value::Number(2.0))]);
        see(&mut face, &[("faceLandmarks", Value::text("happy")), ("duration", Value::Null)]);
        see(&mut face, &[("faceLandmarks", Value::text("bored")), ("duration", Value::Number(5.0))]);
        see(&mut face, &[("faceLandmarks", Value::text("sad")), ("timestamp", Value::Number(7.0))]);
        assert_eq!(face.sentiment.0[3], 2.0);
        assert!(face.sentiment.0[5].is_nan());
        assert_eq!(
            serde_json::to_string(&face.landmarks).unwrap(),
            r#"[{"faceLandmarks":"happy"},{"faceLandmarks":"happy"},{"faceLandmarks":"bored"},{"timestamp":7,"faceLandmarks":"sad"}]"#
        );
        assert!(serde_json::to_string(&face.sentiment).unwrap().ends_with(r#""sad":null,"surprised":0}"#));
    }

    #[test]
    fn the_list_is_bounded_but_the_sums_go_on() {
        let mut face = Face::default();
        let data: Value = Value::Object(
            [("faceLandmarks".into(), Value::text("sad")), ("duration".into(), Value::Number(1.0))]
                .into_iter()
                .collect(),
        );
        let mut budget = Budget::default();
        for _ in 0..budget::ELEMENTS_MAX {
            face.see(&data, &mut budget).unwrap();
        }
        assert!(matches!(face.see(&data, &mut budget), Err(LineError::TooMany { .. })));
        assert_eq!(face.sentiment.0[5], 100_001.0);
    }
}
