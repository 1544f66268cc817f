//! Tracks of a peer connection: media streams by ssrc, with their counters over time.
//!
//! Rules: feature extraction 8.3 (finding, video types, vacuuming), 9.2 (what becomes of them).

use std::cell::Cell;

use serde::Serialize;

use super::budget::Budget;
use super::clock::Clock;
use super::js;
use super::keyed::{Key, Keyed};
use super::problems::LineError;
use super::series::Series;
use super::value::Value;

/// Bytes that a track is paid for with: itself, its key, its place.
const TRACK_COST: usize = size_of::<Track>() + 2 * size_of::<Key>() + 16;

/// A track as the result shows it, once per direction.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrackFeatures {
    /// `audio`, `video`, or with the video type: `video/desktop`.
    pub media_type: String,
    /// As the client gave it, a number or a text.
    #[serde(skip_serializing_if = "Value::is_absent")]
    pub ssrc: Value,
    /// Last value of the packet counter.
    #[serde(skip_serializing_if = "Value::is_absent")]
    pub packets: Value,
    /// Last value of the loss counter.
    #[serde(skip_serializing_if = "Value::is_absent")]
    pub packets_lost: Value,
    /// Loss in percent of `packets`.
    #[serde(serialize_with = "js::serialize_number")]
    pub packets_lost_pct: f64,
    /// Variance of the losses between two entries.
    #[serde(serialize_with = "js::serialize_number")]
    pub packets_lost_variance: f64,
    /// Share of concealed samples in percent.
    #[serde(serialize_with = "js::serialize_number")]
    pub concealed_percentage: f64,
    /// First entry that told of the track, in ms.
    #[serde(skip_serializing_if = "Clock::is_absent")]
    pub start_time: Clock,
    /// Last entry that told of it, in ms.
    #[serde(skip_serializing_if = "Clock::is_absent")]
    pub end_time: Clock,
}

/// Which way the packets of a track went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Sent,
    Received,
}

/// Packets and losses of one direction.
#[derive(Debug, Default)]
struct Counters {
    /// Last counter values; `None` before the first.
    last: Option<(Value, Value)>,
    /// Differences of consecutive loss counters.
    losses: Series,
}

/// One track.
#[derive(Debug)]
pub(super) struct Track {
    ssrc: Value,
    media_type: Value,
    video_type: Value,
    start: Clock,
    end: Clock,
    sent: Counters,
    received: Counters,
    /// Last counters of all and of concealed samples.
    samples: Option<(f64, f64)>,
}

/// The tracks of one peer connection.
#[derive(Debug, Default)]
pub(super) struct Tracks {
    by_ssrc: Keyed<Track>,
    /// Tracks whose video type changed; a new one took their ssrc.
    vacuumed: Vec<Track>,
}

/// One reading of the counters of a report.
#[derive(Debug)]
pub(super) struct Packets {
    pub(super) packets: Value,
    pub(super) lost: Value,
}

/// Where a new track may come from: how many there may be, and who pays.
#[derive(Debug)]
pub(super) struct TrackAllowance<'a> {
    pub(super) tracks_max: usize,
    pub(super) budget: &'a mut Budget,
}

impl Tracks {
    /// Finds the track of an ssrc at a time, or makes it. `hint` is where it was the last time.
    ///
    /// # Errors
    ///
    /// When there are too many.
    pub(super) fn find(
        &mut self,
        ssrc: &Value,
        at: Clock,
        hint: &Cell<u32>,
        allowance: &mut TrackAllowance<'_>,
    ) -> Result<&mut Track, LineError> {
        let place = match self.by_ssrc.at(hint.get() as usize) {
            Some((key, _)) if key.is_of(ssrc) => hint.get() as usize,
            Some(_) | None => self.place_of(ssrc, at, allowance)?,
        };
        hint.set(u32::try_from(place).unwrap_or(u32::MAX));
        match self.by_ssrc.at_mut(place) {
            Some(track) => {
                if let Some(ms) = at.truthy() {
                    track.end = track.start.max(ms);
                }
                Ok(track)
            }
            None => Err(too_many(allowance.tracks_max)),
        }
    }

    /// Learns the video type of an ssrc; a track that had another one is closed and a new one begins.
    ///
    /// # Errors
    ///
    /// When there are too many tracks.
    pub(super) fn set_video_type(
        &mut self,
        ssrc: &Value,
        video_type: &Value,
        at: Clock,
        allowance: &mut TrackAllowance<'_>,
    ) -> Result<(), LineError> {
        let key = Key::of(ssrc);
        let count = self.by_ssrc.len() + self.vacuumed.len();
        let place = self.by_ssrc.place(&key);
        match place.and_then(|place| self.by_ssrc.at_mut(place)) {
            Some(track) if track.video_type == *video_type => Ok(()),
            Some(track) => {
                pay(allowance, count, &key, video_type)?;
                let mut old = std::mem::replace(track, Track::new(ssrc, at));
                track.video_type = video_type.clone();
                old.end = at;
                self.vacuumed.push(old);
                Ok(())
            }
            None => {
                let place = self.place_of(ssrc, at, allowance)?;
                if let Some(track) = self.by_ssrc.at_mut(place) {
                    track.video_type = video_type.clone();
                }
                Ok(())
            }
        }
    }

    /// The tracks that have a media type, in the order of the result.
    pub(super) fn into_ordered(self) -> impl Iterator<Item = Track> {
        let by_ssrc = self.by_ssrc.into_ordered().into_iter().map(|(_, track)| track);
        by_ssrc.chain(self.vacuumed).filter(|track| track.media_type.is_truthy())
    }

    fn place_of(
        &mut self,
        ssrc: &Value,
        at: Clock,
        allowance: &mut TrackAllowance<'_>,
    ) -> Result<usize, LineError> {
        let key = Key::of(ssrc);
        if let Some(place) = self.by_ssrc.place(&key) {
            return Ok(place);
        }
        pay(allowance, self.by_ssrc.len() + self.vacuumed.len(), &key, ssrc)?;
        Ok(self.by_ssrc.add(key, Track::new(ssrc, at)))
    }
}

fn pay(allowance: &mut TrackAllowance<'_>, count: usize, key: &Key, text: &Value) -> Result<(), LineError> {
    if count >= allowance.tracks_max {
        return Err(too_many(allowance.tracks_max));
    }
    allowance.budget.take(TRACK_COST + 2 * key.heap_bytes() + 2 * text.heap_bytes())
}

fn too_many(count_max: usize) -> LineError {
    LineError::TooMany { what: "tracks of a peer connection", count_max }
}

impl Track {
    fn new(ssrc: &Value, at: Clock) -> Self {
        Self {
            ssrc: ssrc.clone(),
            media_type: Value::Absent,
            video_type: Value::Absent,
            start: at,
            end: at,
            sent: Counters::default(),
            received: Counters::default(),
            samples: None,
        }
    }

    /// Appends a reading of the packet counters; the media type is taken over as it is, also an absent one.
    pub(super) fn add_packets(
        &mut self,
        direction: Direction,
        reading: Packets,
        media_type: &Value,
        budget: &mut Budget,
    ) {
        if self.media_type != *media_type {
            self.media_type = media_type.clone();
        }
        let counters = match direction {
            Direction::Sent => &mut self.sent,
            Direction::Received => &mut self.received,
        };
        if let Some((_, lost)) = &counters.last {
            counters.losses.push(reading.lost.to_number() - lost.to_number(), budget);
        }
        counters.last = Some((reading.packets, reading.lost));
    }

    /// Appends a reading of the sample counters.
    pub(super) fn add_samples(&mut self, total: f64, concealed: f64) {
        self.samples = Some((total, concealed));
    }

    /// The last counter values (packets, lost) of a direction.
    pub(super) fn last(&self, direction: Direction) -> Option<(f64, f64)> {
        let (packets, lost) = self.counters(direction).last.as_ref()?;
        Some((packets.to_number(), lost.to_number()))
    }

    /// The result for a direction; `None` when nothing was counted there.
    pub(super) fn features(&self, direction: Direction) -> Option<TrackFeatures> {
        let counters = self.counters(direction);
        let (packets, lost) = counters.last.as_ref()?;
        let mut media_type = String::from(self.media_type.key_text());
        if self.video_type.is_truthy() {
            media_type.push('/');
            media_type.push_str(&self.video_type.key_text());
        }
        Some(TrackFeatures {
            media_type,
            ssrc: self.ssrc.clone(),
            packets: packets.clone(),
            packets_lost: lost.clone(),
            packets_lost_pct: lost_percent(lost.to_number(), packets.to_number()),
            packets_lost_variance: counters.losses.variance(),
            concealed_percentage: self.concealed_percent(),
            start_time: self.start,
            end_time: self.end,
        })
    }

    fn counters(&self, direction: Direction) -> &Counters {
        match direction {
            Direction::Sent => &self.sent,
            Direction::Received => &self.received,
        }
    }

    fn concealed_percent(&self) -> f64 {
        let percent = self.samples.and_then(|(total, concealed)| js::percent(concealed, total));
        percent.filter(|x| !x.is_nan()).unwrap_or(0.0)
    }
}

/// Loss in percent: only if some, but not all, of the packets were lost.
pub(super) fn lost_percent(lost: f64, packets: f64) -> f64 {
    if 0.0 < lost && lost < packets {
        js::percent(lost, packets).filter(|x| !x.is_nan()).unwrap_or(0.0)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video() -> Value {
        Value::text("video")
    }

    fn reading(packets: f64, lost: f64) -> Packets {
        Packets { packets: Value::Number(packets), lost: Value::Number(lost) }
    }

    /// Runs `build` with an allowance of three tracks, and gives the received tracks of the result.
    fn received(build: impl FnOnce(&mut Tracks, &mut TrackAllowance<'_>)) -> Vec<TrackFeatures> {
        let (mut tracks, mut budget) = (Tracks::default(), Budget::default());
        build(&mut tracks, &mut TrackAllowance { tracks_max: 3, budget: &mut budget });
        tracks.into_ordered().filter_map(|track| track.features(Direction::Received)).collect()
    }

    fn read(
        tracks: &mut Tracks,
        allowance: &mut TrackAllowance<'_>,
        ssrc: &Value,
        at: f64,
        packets: f64,
        lost: f64,
    ) {
        let mut budget = Budget::default();
        let track = tracks.find(ssrc, Clock::At(at), &Cell::new(0), allowance).unwrap();
        track.add_packets(Direction::Received, reading(packets, lost), &video(), &mut budget);
    }

    #[test]
    fn last_counters_count_and_the_variance_is_of_differences() {
        let features = received(|tracks, allowance| {
            for (at, packets, lost) in [(1.0, 10.0, 0.0), (2.0, 20.0, 1.0), (3.0, 30.0, 4.0)] {
                read(tracks, allowance, &Value::Number(5.0), at, packets, lost);
            }
        });
        assert_eq!(features.len(), 1);
        assert_eq!(
            (&features[0].packets, &features[0].packets_lost),
            (&Value::Number(30.0), &Value::Number(4.0))
        );
        assert_eq!((features[0].packets_lost_pct, features[0].packets_lost_variance), (13.33, 1.0));
        assert_eq!((features[0].start_time, features[0].end_time), (Clock::At(1.0), Clock::At(3.0)));
    }

    #[test]
    fn another_video_type_vacuums_the_track() {
        let ssrc = Value::Number(5.0);
        let features = received(|tracks, allowance| {
            read(tracks, allowance, &ssrc, 1.0, 10.0, 0.0);
            tracks.set_video_type(&ssrc, &Value::text("desktop"), Clock::At(2.0), allowance).unwrap();
            tracks
                .set_video_type(&Value::text("5"), &Value::text("desktop"), Clock::At(9.0), allowance)
                .unwrap();
            read(tracks, allowance, &ssrc, 3.0, 12.0, 0.0);
        });
        let seen: Vec<_> =
            features.iter().map(|f| (&*f.media_type, f.packets.to_number(), f.end_time)).collect();
        assert_eq!(seen, [("video/desktop", 12.0, Clock::At(3.0)), ("video", 10.0, Clock::At(2.0))]);
    }

    #[test]
    fn tracks_without_media_type_are_left_out_and_all_are_counted() {
        let features = received(|tracks, allowance| {
            for ssrc in [1.0, 2.0, 3.0] {
                tracks
                    .find(&Value::Number(ssrc), Clock::Absent, &Cell::new(0), allowance)
                    .unwrap()
                    .add_samples(1.0, 1.0);
            }
            let fourth = tracks.find(&Value::Number(4.0), Clock::Absent, &Cell::new(0), allowance);
            assert_eq!(fourth.err(), Some(too_many(3)));
        });
        assert_eq!(features, []);
    }

    #[test]
    fn loss_is_zero_unless_between_none_and_all() {
        let cases =
            [(0.0, 10.0, 0.0), (1.0, 3.0, 33.33), (10.0, 10.0, 0.0), (-1.0, 10.0, 0.0), (f64::NAN, 1.0, 0.0)];
        for (lost, packets, percent) in cases {
            assert_eq!(lost_percent(lost, packets), percent);
        }
        assert_eq!(lost_percent(1.0, f64::INFINITY), 0.0);
        assert_eq!(lost_percent(f64::NAN, f64::NAN), 0.0);
    }
}
