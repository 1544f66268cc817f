//! Inbound video: the best and the worst that a stats entry shows, and their means.
//!
//! Rules: feature extraction 8.2.5, 9.3.

use std::cmp::Ordering;

use serde::Serialize;

use super::budget::Budget;
use super::js;
use super::packets;
use super::series::Series;
use super::stats::{Field, Report, ReportType};
use super::value::Value;

/// Mean height and frame rate; what is NaN is left out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VideoMeans {
    /// Pixels.
    #[serde(serialize_with = "js::serialize_number", skip_serializing_if = "is_nan")]
    pub mean_frame_height: f64,
    /// Frames per second.
    #[serde(serialize_with = "js::serialize_number", skip_serializing_if = "is_nan")]
    pub mean_frames_per_second: f64,
}

/// Means over all stats entries with inbound video.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InboundVideo {
    /// Of the best video of each entry.
    pub upper_bound_aggregates: VideoMeans,
    /// Of the worst video of each entry.
    pub lower_bound_aggregates: VideoMeans,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_nan(x: &f64) -> bool {
    x.is_nan()
}

/// Height and frame rate of one report.
#[derive(Debug, Clone)]
struct Summary {
    height: Value,
    fps: Value,
}

/// The best and the worst of the stats entry that is being evaluated.
#[derive(Debug, Default)]
pub(super) struct Bounds(Option<(Summary, Summary)>);

impl Bounds {
    /// Takes a report into account (standard rules; Firefox reports no height).
    pub(super) fn see(&mut self, report: &Report) {
        let Some(summary) = summary(report) else { return };
        let Some((upper, lower)) = &mut self.0 else {
            self.0 = Some((summary.clone(), summary));
            return;
        };
        if compare(&upper.height, &summary.height) == Some(Ordering::Less) {
            *upper = summary.clone();
        }
        if compare(&lower.height, &summary.height) == Some(Ordering::Greater) {
            *lower = summary.clone();
        }
        if upper.height == summary.height && compare(&upper.fps, &summary.fps) == Some(Ordering::Less) {
            *upper = summary.clone();
        }
        if lower.height == summary.height && compare(&lower.fps, &summary.fps) == Some(Ordering::Greater) {
            *lower = summary;
        }
    }
}

/// What a report shows; only with a height above 0.
fn summary(report: &Report) -> Option<Summary> {
    let is_inbound = report.kind() == ReportType::InboundRtp;
    let is_old =
        report.kind() == ReportType::Ssrc && report.field(Field::GoogFrameHeightReceived).is_truthy();
    let (height, fps) = if is_inbound && packets::media_type(report).as_str() == Some("video") {
        (Field::FrameHeight, Field::FramesPerSecond)
    } else if is_old {
        (Field::GoogFrameHeightReceived, Field::GoogFrameRateOutput)
    } else {
        return None;
    };
    let (height, fps) = (report.field(height), report.field(fps));
    let fps = if fps.is_absent() { Value::Number(0.0) } else { fps.clone() };
    (height.to_number() > 0.0).then(|| Summary { height: height.clone(), fps })
}

/// JavaScript's comparison: two texts as text, everything else as numbers.
fn compare(one: &Value, other: &Value) -> Option<Ordering> {
    match (one, other) {
        (Value::Text(one), Value::Text(other)) => Some(one.encode_utf16().cmp(other.encode_utf16())),
        _ => one.to_number().partial_cmp(&other.to_number()),
    }
}

/// The video experience of a peer connection over its stats entries.
#[derive(Debug, Default)]
pub(super) struct Video {
    has_any: bool,
    upper: (Series, Series),
    lower: (Series, Series),
}

impl Video {
    /// Appends the bounds of an entry, if it showed any video.
    pub(super) fn add(&mut self, bounds: Bounds, budget: &mut Budget) {
        let Some((upper, lower)) = bounds.0 else { return };
        self.has_any = true;
        for (series, summary) in [(&mut self.upper, upper), (&mut self.lower, lower)] {
            series.0.push(summary.height.to_number(), budget);
            series.1.push(summary.fps.to_number(), budget);
        }
    }

    /// The means; `None` without any video.
    pub(super) fn means(&self) -> Option<InboundVideo> {
        let means = |(height, fps): &(Series, Series)| VideoMeans {
            mean_frame_height: js::round2(height.mean()),
            mean_frames_per_second: js::round2(fps.mean()),
        };
        self.has_any.then(|| InboundVideo {
            upper_bound_aggregates: means(&self.upper),
            lower_bound_aggregates: means(&self.lower),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::stats::base_of;

    fn means(lines: &[&str]) -> Option<String> {
        let (mut video, mut budget) = (Video::default(), Budget::default());
        for line in lines {
            let base = base_of(&[line]);
            let mut bounds = Bounds::default();
            base.of_interest().for_each(|(_, report)| bounds.see(report));
            video.add(bounds, &mut budget);
        }
        video.means().map(|means| serde_json::to_string(&means).unwrap())
    }

    fn expected(upper: (f64, f64), lower: (f64, f64)) -> Option<String> {
        let part = |(height, fps)| format!("{{\"meanFrameHeight\":{height},\"meanFramesPerSecond\":{fps}}}");
        Some(format!("{{\"upperBoundAggregates\":{},\"lowerBoundAggregates\":{}}}", part(upper), part(lower)))
    }

    #[test]
    fn the_best_and_the_worst_of_each_entry_are_averaged() {
        let first = r#"{"a":{"type":"inbound-rtp","kind":"video","frameHeight":360,"framesPerSecond":20},
            "b":{"type":"inbound-rtp","kind":"video","frameHeight":720,"framesPerSecond":10},
            "c":{"type":"inbound-rtp","kind":"video","frameHeight":720,"framesPerSecond":30},
            "d":{"type":"inbound-rtp","kind":"video","frameHeight":360},
            "e":{"type":"inbound-rtp","kind":"audio","frameHeight":1080},
            "f":{"type":"inbound-rtp","kind":"video","frameHeight":0}}"#;
        assert_eq!(means(&[first]), expected((720.0, 30.0), (360.0, 0.0)));
        let second = r#"{"a":{"type":"inbound-rtp","kind":"video","frameHeight":180,"framesPerSecond":15}}"#;
        assert_eq!(means(&[first, "{}", second]), expected((450.0, 22.5), (270.0, 7.5)));
        assert_eq!(means(&["{}"]), None);
    }

    #[test]
    fn old_heights_compare_as_text_and_what_is_no_number_is_left_out() {
        let line = r#"{"a":{"type":"ssrc","googFrameHeightReceived":"1080","googFrameRateOutput":"30"},
            "b":{"type":"ssrc","googFrameHeightReceived":"720","googFrameRateOutput":"9"}}"#;
        assert_eq!(means(&[line]), expected((720.0, 9.0), (1080.0, 30.0)));
        let odd =
            means(&[r#"{"a":{"type":"ssrc","googFrameHeightReceived":"360","googFrameRateOutput":"x"}}"#])
                .unwrap();
        assert!(odd.starts_with(r#"{"upperBoundAggregates":{"meanFrameHeight":360},"#), "{odd}");
    }
}
