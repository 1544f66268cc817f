//! One row: its members in the order of the columns, its id, and how both are written.

use std::io::Write;

use sha1::{Digest, Sha1};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::extract::{Object, Value};

/// Ids of rows are name-based UUIDs (RFC 9562, version 5) in this namespace, which was drawn once for them.
const NAMESPACE: [u8; 16] = 0x8d0f_3f6e_3d5a_4b0e_9a57_c1f4_6e2b_7a91_u128.to_be_bytes();

/// A SQL time.
const SQL_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");

/// What an id is derived from, piece by piece.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct RowId(Vec<u8>);

impl RowId {
    /// Adds a piece; its length goes along, so that two lists of pieces never run together.
    pub(super) fn with(mut self, piece: &str) -> Self {
        self.0.extend_from_slice(&(piece.len() as u64).to_be_bytes());
        self.0.extend_from_slice(piece.as_bytes());
        self
    }

    /// The id.
    pub(super) fn finish(&self) -> String {
        let hash = Sha1::new().chain_update(NAMESPACE).chain_update(&self.0).finalize();
        let mut bits = hash.iter().take(16).fold(0_u128, |bits, byte| (bits << 8) | u128::from(*byte));
        bits = (bits & !(0xF << 76)) | (5 << 76);
        bits = (bits & !(0b11 << 62)) | (0b10 << 62);
        let hex = format!("{bits:032x}");
        let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default();
        format!("{}-{}-{}-{}-{}", part(0..8), part(8..12), part(12..16), part(16..20), part(20..32))
    }
}

/// A row.
#[derive(Debug, Default)]
pub(super) struct Row {
    id: String,
    members: Object,
}

impl Row {
    /// A row that begins with its id.
    pub(super) fn new(id: String) -> Self {
        let mut row = Self::default();
        row.id(id);
        row
    }

    /// Sets the id, as the next member.
    pub(super) fn id(&mut self, id: String) {
        self.set("id", Value::text(&*id));
        self.id = id;
    }

    /// Sets a member; an absent value is left out.
    pub(super) fn set(&mut self, column: &str, value: Value) {
        self.members.set(column, value);
    }

    /// Sets a number; NaN becomes null.
    pub(super) fn number(&mut self, column: &str, number: f64) {
        self.set(column, Value::Number(number));
    }

    /// Sets a number, unless it is NaN.
    pub(super) fn known_number(&mut self, column: &str, number: f64) {
        if !number.is_nan() {
            self.number(column, number);
        }
    }

    /// Sets a count.
    #[expect(clippy::cast_precision_loss, reason = "counts of lines stay far below 2^53")]
    pub(super) fn count(&mut self, column: &str, count: u64) {
        self.number(column, count as f64);
    }

    /// Writes the row as a line to memory; its id.
    pub(super) fn write(self, lines: &mut impl Write) -> String {
        // Writing to memory cannot fail, and no value refuses to be written.
        let _ = serde_json::to_writer(&mut *lines, &self.members).map(|()| lines.write_all(b"\n"));
        self.id
    }
}

/// A time in ms as a SQL time in UTC, its fraction cut off; null when it is unknown or no time.
pub(super) fn sql_time(ms: f64) -> Value {
    /// Beyond every year that a SQL time can show, in ms.
    const MS_MAX: f64 = 4e14;
    if ms == 0.0 || ms.is_nan() || ms.abs() > MS_MAX {
        return Value::Null;
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked above")]
    let seconds = (ms / 1000.0).floor() as i64;
    let text = OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|time| time.format(SQL_TIME).ok());
    text.map_or(Value::Null, Value::text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_cut_to_seconds_and_unknown_ones_are_null() {
        let cases = [
            (1_700_000_000_999.9, Value::text("2023-11-14 22:13:20")),
            (1.0, Value::text("1970-01-01 00:00:00")),
            (-1.0, Value::text("1969-12-31 23:59:59")),
            (253_402_300_799_000.0, Value::text("9999-12-31 23:59:59")),
            (0.0, Value::Null),
            (f64::NAN, Value::Null),
            (f64::INFINITY, Value::Null),
            (3e14, Value::Null),
        ];
        for (ms, time) in cases {
            assert_eq!(sql_time(ms), time, "{ms}");
        }
    }

    #[test]
    fn ids_are_uuids_of_version_5_and_keep_pieces_apart() {
        // The expected id was computed with another implementation of RFC 9562.
        let id = RowId::default().with("s.gz").with("rtcstats").finish();
        assert_eq!(id, "98dd24a3-565f-5a7c-a8c3-a3896783180e");
        assert_ne!(
            RowId::default().with("ab").with("c").finish(),
            RowId::default().with("a").with("bc").finish()
        );
    }
}
