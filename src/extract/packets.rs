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
