//! Packet and sample counters: which reports count for a track, in which direction.
//!
//! Rules: feature extraction 8.2.3, 8.2.4, defects of the reference included (`remote-outbound-rtp` counts as sent).

use super::stats::{Base, Field, Found, Report, ReportType};
use super::tracks::Packets;
use super::value::Value;

/// A report's media type: the old name of the field wins.
pub(super) fn media_type(report: &Report) -> &Value {
    let old = report.field(Field::MediaType);
    if old.is_truthy() { old } else { report.field(Field::Kind) }
}

/// What a report says was sent, by the standard rules.
pub(super) fn sent_standard(base: &Base, report: &Report) -> Option<Packets> {
    if report.kind() == ReportType::OutboundRtp {
        let lost = match base.find(report.field(Field::RemoteId)) {
            Found::Report(remote, _) => Some(or_zero(remote.field(Field::PacketsLost))),
            Found::Opaque => Some(Value::Number(0.0)),
            Found::Nothing | Found::Null => None,
        };
        if let Some(lost) = lost {
            return Some(Packets { packets: or_zero(report.field(Field::PacketsSent)), lost });
        }
    }
    counted(report, Field::PacketsSent, Field::PacketsReceived)
}

/// What a report says was sent, by Firefox's rules: the other side's account of it.
pub(super) fn sent_firefox(report: &Report) -> Option<Packets> {
    (report.kind() == ReportType::RemoteInboundRtp).then(|| Packets {
        packets: or_zero(report.field(Field::PacketsSent)),
        lost: report.field(Field::PacketsLost).clone(),
    })
}

/// What a report says was received.
pub(super) fn received(report: &Report) -> Option<Packets> {
    counted(report, Field::PacketsReceived, Field::PacketsSent)
}

/// Counts of all and of concealed samples.
pub(super) fn samples(report: &Report) -> Option<(f64, f64)> {
    let (total, concealed) =
        (report.field(Field::TotalSamplesReceived), report.field(Field::ConcealedSamples));
    let counts = total.is_truthy() && concealed.is_truthy() && report.field(Field::Ssrc).is_truthy();
    counts.then(|| (total.number_or_zero(), concealed.number_or_zero()))
}

/// A report of any type that counts packets in one direction only.
fn counted(report: &Report, count: Field, other: Field) -> Option<Packets> {
    let packets = report.field(count);
    let counts =
        packets.is_truthy() && !report.field(other).is_truthy() && report.field(Field::Ssrc).is_truthy();
    counts.then(|| Packets {
        packets: Value::Number(packets.number_or_zero()),
        lost: Value::Number(report.field(Field::PacketsLost).number_or_zero()),
    })
}

fn or_zero(value: &Value) -> Value {
    if value.is_truthy() { value.clone() } else { Value::Number(0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::stats::base_of;

    type Counts = Option<(f64, f64)>;

    /// What the first report says: sent by the standard rules, sent by Firefox's, received.
    fn counts(line: &str) -> (Counts, Counts, Counts) {
        let base = base_of(&[line]);
        let (_, report) = base.of_interest().next().unwrap();
        let pair = |packets: Option<Packets>| packets.map(|p| (p.packets.to_number(), p.lost.to_number()));
        (pair(sent_standard(&base, report)), pair(sent_firefox(report)), pair(received(report)))
    }

    #[test]
    fn directions_follow_from_the_counters() {
        let cases = [
            (
                r#"{"o":{"type":"outbound-rtp","ssrc":1,"packetsSent":0,"remoteId":"r"},"r":{"packetsLost":3}}"#,
                Some((0.0, 3.0)),
                None,
            ),
            (
                r#"{"o":{"type":"outbound-rtp","ssrc":1,"packetsSent":5,"packetsLost":"2","remoteId":"x"}}"#,
                Some((5.0, 2.0)),
                None,
            ),
            (
                r#"{"o":{"type":"outbound-rtp","ssrc":1,"packetsSent":5,"remoteId":"r"},"r":"text"}"#,
                Some((5.0, 0.0)),
                None,
            ),
            (r#"{"o":{"type":"remote-outbound-rtp","ssrc":1,"packetsSent":7}}"#, Some((7.0, 0.0)), None),
            (
                r#"{"i":{"type":"inbound-rtp","ssrc":1,"packetsReceived":"9","packetsLost":null}}"#,
                None,
                Some((9.0, 0.0)),
            ),
            (r#"{"i":{"type":"inbound-rtp","ssrc":1,"packetsReceived":9,"packetsSent":9}}"#, None, None),
            (r#"{"i":{"type":"inbound-rtp","ssrc":0,"packetsReceived":9}}"#, None, None),
            (r#"{"i":{"type":"inbound-rtp","ssrc":1,"packetsReceived":0}}"#, None, None),
        ];
        for (line, sent, received) in cases {
            assert_eq!(counts(line), (sent, None, received), "{line}");
        }
    }

    #[test]
    fn firefox_counts_what_the_other_side_received() {
        let (_, sent, _) = counts(r#"{"r":{"type":"remote-inbound-rtp","ssrc":1,"packetsLost":4}}"#);
        assert_eq!(sent, Some((0.0, 4.0)));
        let (_, sent, _) = counts(r#"{"r":{"type":"remote-inbound-rtp"}}"#);
        assert!(sent.unwrap().1.is_nan());
    }

    #[test]
    fn samples_need_all_three() {
        let of = |line: &str| samples(base_of(&[line]).of_interest().next().unwrap().1);
        assert_eq!(
            of(r#"{"a":{"ssrc":1,"totalSamplesReceived":"50","concealedSamples":5}}"#),
            Some((50.0, 5.0))
        );
        assert_eq!(of(r#"{"a":{"ssrc":1,"totalSamplesReceived":50,"concealedSamples":0}}"#), None);
        assert_eq!(of(r#"{"a":{"ssrc":0,"totalSamplesReceived":50,"concealedSamples":5}}"#), None);
    }

    #[test]
    fn the_old_name_of_the_media_type_wins() {
        let of = |line: &str| media_type(base_of(&[line]).of_interest().next().unwrap().1).clone();
        assert_eq!(of(r#"{"a":{"ssrc":1,"mediaType":"audio","kind":"video"}}"#), Value::text("audio"));
        assert_eq!(of(r#"{"a":{"ssrc":1,"mediaType":"","kind":"video"}}"#), Value::text("video"));
        assert_eq!(of(r#"{"a":{"ssrc":1}}"#), Value::Absent);
    }
}
