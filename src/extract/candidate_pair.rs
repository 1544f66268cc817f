//! The selected candidate pair of a peer connection.
//!
//! Rules: feature extraction 8.2.2, the trap with `id` included.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::problems::LineError;
use super::stats::{Base, Field, Found, Report, ReportType};
use super::value::Value;

/// One end of a pair.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Candidate {
    /// `host`, `srflx`, `prflx` or `relay`.
    pub candidate_type: Value,
    /// Its address, often masked by the client.
    pub address: Value,
    /// Its port.
    pub port: Value,
    /// Its protocol; of a relay, that to the relay.
    pub protocol: Value,
}

/// A pair, absent values already replaced by empty texts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CandidatePair {
    /// The id of the pair's report; empty where the reference does not know it yet.
    pub id: Value,
    /// Whether either end is a relay.
    pub is_using_relay: bool,
    /// This end.
    pub local: Candidate,
    /// The other end.
    pub remote: Candidate,
}

impl Serialize for CandidatePair {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_map(Some(10))?;
        out.serialize_entry("id", &self.id)?;
        out.serialize_entry("isUsingRelay", &self.is_using_relay)?;
        out.serialize_entry("localCandidateType", &self.local.candidate_type)?;
        out.serialize_entry("localAddress", &self.local.address)?;
        out.serialize_entry("localPort", &self.local.port)?;
        out.serialize_entry("localProtocol", &self.local.protocol)?;
        out.serialize_entry("remoteCandidateType", &self.remote.candidate_type)?;
        out.serialize_entry("remoteAddress", &self.remote.address)?;
        out.serialize_entry("remotePort", &self.remote.port)?;
        out.serialize_entry("remoteProtocol", &self.remote.protocol)?;
        out.end()
    }
}

/// The pair that the report at `place` selects, by the standard rules; `None` when it selects none.
///
/// # Errors
///
/// When the pair's report or one of its candidates is `null`.
pub(super) fn standard(
    base: &Base,
    report: &Report,
    place: usize,
) -> Result<Option<CandidatePair>, LineError> {
    let selected = report.field(Field::SelectedCandidatePairId);
    if report.kind() != ReportType::Transport || !selected.is_truthy() {
        return Ok(None);
    }
    let pair = match base.find(selected) {
        Found::Null => return Err(null_report()),
        Found::Report(pair, pair_place) => Some((pair, base.id_of(pair_place, place))),
        Found::Nothing | Found::Opaque => None,
    };
    pair_of(base, pair).map(Some)
}

/// The pair that the report at `place` is, by Firefox's rules; `None` when it is not the selected one.
///
/// # Errors
///
/// When one of its candidates is `null`.
pub(super) fn firefox(
    base: &Base,
    report: &Report,
    place: usize,
) -> Result<Option<CandidatePair>, LineError> {
    if report.kind() != ReportType::CandidatePair || !report.field(Field::Selected).is_truthy() {
        return Ok(None);
    }
    pair_of(base, Some((report, base.id_of(place, place)))).map(Some)
}

fn pair_of(base: &Base, pair: Option<(&Report, Value)>) -> Result<CandidatePair, LineError> {
    let (report, id) = pair.map_or((None, Value::Absent), |(report, id)| (Some(report), id));
    let end = |field: Field| candidate(base, report.map_or(&Value::Absent, |report| report.field(field)));
    let (local, local_relay) = end(Field::LocalCandidateId)?;
    let (remote, remote_relay) = end(Field::RemoteCandidateId)?;
    Ok(CandidatePair { id: or_empty(&id), is_using_relay: local_relay || remote_relay, local, remote })
}

/// The candidate under an id, and whether it is a relay.
fn candidate(base: &Base, id: &Value) -> Result<(Candidate, bool), LineError> {
    let report = match base.find(id) {
        Found::Null => return Err(null_report()),
        Found::Report(report, _) => Some(report),
        Found::Nothing | Found::Opaque => None,
    };
    let field = |field: Field| report.map_or(&Value::Absent, |report| report.field(field));
    let candidate_type = field(Field::CandidateType);
    let is_relay = candidate_type.as_str() == Some("relay");
    let protocol = field(if is_relay { Field::RelayProtocol } else { Field::Protocol });
    let candidate = Candidate {
        candidate_type: or_empty(candidate_type),
        address: or_empty(field(Field::Address)),
        port: or_empty(field(Field::Port)),
        protocol: if protocol.is_nullish() { Value::text("") } else { protocol.clone() },
    };
    Ok((candidate, is_relay))
}

fn or_empty(value: &Value) -> Value {
    if value.is_absent() { Value::text("") } else { value.clone() }
}

fn null_report() -> LineError {
    LineError::BadData { entry: "getstats", fault: "a report of the selected candidate pair is null" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::stats::base_of;

    /// The last pair that any report selects, as JSON.
    fn selected(
        lines: &[&str],
        rule: impl Fn(&Base, &Report, usize) -> Result<Option<CandidatePair>, LineError>,
    ) -> Result<String, LineError> {
        let base = base_of(lines);
        let mut last = None;
        for (place, report) in base.of_interest() {
            last = rule(&base, report, place)?.or(last);
        }
        Ok(last.map_or_else(String::new, |pair| serde_json::to_string(&pair).unwrap()))
    }

    const TRANSPORT: &str = r#""t":{"type":"transport","selectedCandidatePairId":"p"}"#;

    #[test]
    fn the_pair_and_its_ends_are_looked_up() {
        let line = format!(
            "{{{TRANSPORT},\"p\":{{\"localCandidateId\":\"l\",\"remoteCandidateId\":\"r\"}},\
             \"l\":{{\"candidateType\":\"relay\",\"address\":null,\"port\":0,\"protocol\":\"udp\",\"relayProtocol\":\"tls\"}},\
             \"r\":{{\"candidateType\":\"host\",\"protocol\":null}}}}"
        );
        let pair = concat!(
            r#"{"id":"","isUsingRelay":true,"localCandidateType":"relay","localAddress":null,"localPort":0,"localProtocol":"tls","#,
            r#""remoteCandidateType":"host","remoteAddress":"","remotePort":"","remoteProtocol":""}"#
        );
        assert_eq!(selected(&[&line], standard).unwrap(), pair);
        // In the next entry the pair has its id.
        assert!(selected(&[&line, &line], standard).unwrap().starts_with(r#"{"id":"p","#));
    }

    #[test]
    fn a_missing_pair_is_empty_and_a_null_one_an_error() {
        let missing = selected(&[&format!("{{{TRANSPORT}}}")], standard).unwrap();
        assert!(missing.starts_with(r#"{"id":"","isUsingRelay":false,"localCandidateType":"""#), "{missing}");
        assert_eq!(selected(&[&format!("{{{TRANSPORT},\"p\":null}}")], standard), Err(null_report()));
        let end = format!("{{{TRANSPORT},\"p\":{{\"localCandidateId\":\"l\"}},\"l\":null}}");
        assert_eq!(selected(&[&end], standard), Err(null_report()));
    }

    #[test]
    fn firefox_marks_the_pair_itself() {
        let line = r#"{"a":{"type":"candidate-pair","selected":true},"b":{"type":"candidate-pair","selected":false}}"#;
        assert!(selected(&[line], firefox).unwrap().starts_with(r#"{"id":"a","#));
        assert_eq!(selected(&[line], standard).unwrap(), "");
    }
}
