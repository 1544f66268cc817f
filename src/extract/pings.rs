//! End-to-end pings: the last round-trip time to each other participant.
//!
//! Rules: feature extraction 6.5.

use serde::Serialize;

use super::budget::{self, Budget};
use super::keyed::{Key, Keyed};
use super::problems::LineError;
use super::value::Value;

/// The last ping to another participant.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ping {
    /// Region of the other one.
    #[serde(skip_serializing_if = "Value::is_absent")]
    pub remote_region: Value,
    /// Round-trip time as the client states it.
    #[serde(skip_serializing_if = "Value::is_absent")]
    pub rtt: Value,
}

/// The pings so far; `None` before the first.
#[derive(Debug, Default)]
pub(super) struct Pings(Option<Keyed<Ping>>);

impl Pings {
    /// Takes an entry's data.
    ///
    /// # Errors
    ///
    /// When there is none, or more participants than are kept.
    pub(super) fn see(&mut self, data: &Value, budget: &mut Budget) -> Result<(), LineError> {
        if data.is_nullish() {
            return Err(LineError::NoData { entry: "e2eRtt" });
        }
        let pings = self.0.get_or_insert_default();
        let key = Key::of(data.member("remoteEndpointId"));
        let ping =
            Ping { remote_region: data.member("remoteRegion").clone(), rtt: data.member("rtt").clone() };
        let place = match pings.place(&key) {
            Some(place) => place,
            None => {
                budget::check_elements("pinged endpoints", pings.len())?;
                budget.take(size_of::<Ping>() + 96 + 2 * key.heap_bytes())?;
                pings.add(key, Ping::default())
            }
        };
        if let Some(known) = pings.at_mut(place) {
            budget.give_back(known.remote_region.heap_bytes() + known.rtt.heap_bytes());
            *known = Ping::default();
            budget.take(ping.remote_region.heap_bytes() + ping.rtt.heap_bytes())?;
            *known = ping;
        }
        Ok(())
    }

    /// All pings by endpoint, in key order; `None` when there was no such entry.
    pub(super) fn finish(self) -> Option<Vec<(Box<str>, Ping)>> {
        Some(self.0?.into_ordered().into_iter().map(|(key, ping)| (key.text(), ping)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ping_of_an_endpoint_wins_at_its_first_place() {
        let mut pings = Pings::default();
        let mut budget = Budget::default();
        let ping = |id: Value, rtt: f64| -> Value {
            let members = [("remoteEndpointId", id), ("rtt", Value::Number(rtt))];
            let members = members.into_iter().filter(|(_, value)| !value.is_absent());
            Value::Object(members.map(|(name, value)| (name.into(), value)).collect())
        };
        for (id, rtt) in
            [(Value::text("a"), 1.0), (Value::text("b"), 2.0), (Value::text("a"), 3.0), (Value::Absent, 4.0)]
        {
            pings.see(&ping(id, rtt), &mut budget).unwrap();
        }
        let all = pings.finish().unwrap();
        let seen: Vec<_> = all.iter().map(|(id, ping)| (&**id, ping.rtt.to_number())).collect();
        assert_eq!(seen, [("a", 3.0), ("b", 2.0), ("undefined", 4.0)]);
    }

    #[test]
    fn nothing_without_an_entry() {
        assert_eq!(Pings::default().finish(), None);
        assert!(Pings::default().see(&Value::Null, &mut Budget::default()).is_err());
    }
}
