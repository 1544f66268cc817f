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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::stats::base_of;

    fn all(line: &str, rule: impl Fn(&Base, &Report) -> Option<f64>) -> Vec<f64> {
        let base = base_of(&[line]);
        base.of_interest().filter_map(|(_, report)| rule(&base, report)).collect()
    }

    #[test]
    fn standard_takes_the_selected_pair_or_the_active_old_one() {
        let cases: [(&str, &[f64]); 6] = [
            (
                r#"{"t":{"type":"transport","selectedCandidatePairId":"p"},"p":{"currentRoundTripTime":0.1}}"#,
                &[0.1],
            ),
            (
                r#"{"t":{"type":"transport","selectedCandidatePairId":"p"},"p":{"currentRoundTripTime":0}}"#,
                &[],
            ),
            (
                r#"{"t":{"type":"transport","selectedCandidatePairId":"q"},"p":{"currentRoundTripTime":0.1}}"#,
                &[],
            ),
            (r#"{"g":{"type":"googCandidatePair","googActiveConnection":"true","googRtt":"30"}}"#, &[30.0]),
            (r#"{"g":{"type":"googCandidatePair","googActiveConnection":true,"googRtt":"30"}}"#, &[]),
            (r#"{"g":{"type":"googCandidatePair","googActiveConnection":"true","googRtt":"x"}}"#, &[]),
        ];
        for (line, rtts) in cases {
            assert_eq!(all(line, standard), rtts, "{line}");
        }
    }

    #[test]
    fn firefox_takes_what_the_other_side_reports() {
        let line = r#"{"a":{"type":"remote-inbound-rtp","roundTripTime":0.2},"b":{"type":"inbound-rtp","roundTripTime":0.3}}"#;
        assert_eq!(all(line, |_, report| firefox(report)), [0.2]);
    }
}
