//! Round-trip times: what a stats entry says of them.
//!
//! Rules: feature extraction 8.2.1.

use super::stats::{Base, Field, Found, Report, ReportType};
use super::value::Value;

/// The round-trip time that a report gives, by the standard rules: that of the selected candidate pair in seconds,
/// or of old Chrome's active one in milliseconds (a defect of the reference, kept).
pub(super) fn standard(base: &Base, report: &Report) -> Option<f64> {
    let selected = report.field(Field::SelectedCandidatePairId);
    if report.kind() == ReportType::Transport
        && selected.is_truthy()
        && let Found::Report(pair, _) = base.find(selected)
    {
        return truthy_number(pair.field(Field::CurrentRoundTripTime));
    }
    let is_active = report.field(Field::GoogActiveConnection).as_str() == Some("true");
    if report.kind() == ReportType::GoogCandidatePair && is_active {
        return truthy_number(&Value::Number(report.field(Field::GoogRtt).to_number()));
    }
    None
}

/// The round-trip time that a report gives, by Firefox's rules.
pub(super) fn firefox(report: &Report) -> Option<f64> {
    if report.kind() == ReportType::RemoteInboundRtp {
        truthy_number(report.field(Field::RoundTripTime))
    } else {
        None
    }
}

/// The number that a value which counts as true enters the mean with.
fn truthy_number(value: &Value) -> Option<f64> {
    value.is_truthy().then(|| value.to_number())
}
