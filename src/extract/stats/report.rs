//! One report of the base, reduced to what rules read.

use std::cell::Cell;

use super::field::Field;
use crate::extract::value::Value;

/// What a value under a report id is, as far as decompression tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::extract) enum Shape {
    /// An object: a report.
    Object,
    /// Another value that counts as true: no rule reads it, but it is there.
    Opaque,
    /// `false`, `0` or an empty string.
    Falsy,
    /// `null`.
    Null,
}

/// The report types that rules name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::extract) enum ReportType {
    Transport,
    CandidatePair,
    GoogCandidatePair,
    InboundRtp,
    OutboundRtp,
    RemoteInboundRtp,
    Ssrc,
    /// Any other, or none.
    Other,
}

impl ReportType {
    /// The type of that name.
    pub(super) fn of(name: &str) -> Self {
        match name {
            "transport" => Self::Transport,
            "candidate-pair" => Self::CandidatePair,
            "googCandidatePair" => Self::GoogCandidatePair,
            "inbound-rtp" => Self::InboundRtp,
            "outbound-rtp" => Self::OutboundRtp,
            "remote-inbound-rtp" => Self::RemoteInboundRtp,
            "ssrc" => Self::Ssrc,
            _ => Self::Other,
        }
    }
}

/// A report.
#[derive(Debug)]
pub(in crate::extract) struct Report {
    key: Box<str>,
    /// Whether the key stands in a line as it is, between quotes, and means this report there.
    pub(super) is_plain: bool,
    pub(super) shape: Shape,
    /// Which fields it has; their values lie in `values` in the order of the bits.
    present: u32,
    values: Vec<Value>,
    kind: ReportType,
    /// Line (of this peer connection) that last mentioned the report, and the place of the mention in it.
    pub(super) mentioned: u32,
    pub(super) mention: u32,
    /// Line that made the report.
    pub(super) born: u32,
    /// Line that last gave the report a field `id`.
    id_given: u32,
    /// Place of the report that followed in the last line: the guess for the next one.
    pub(super) next: u32,
    /// Where the report's track was the last time.
    pub(in crate::extract) track_hint: Cell<u32>,
}

static ABSENT: Value = Value::Absent;

impl Report {
    /// A report without fields.
    pub(super) fn new(key: Box<str>, shape: Shape, line: u32) -> Self {
        // A member `timestamp` is no report in any line but the first.
        let is_plain = &*key != "timestamp" && !key.bytes().any(|b| matches!(b, b'"' | b'\\' | 0..=0x1f));
        Self {
            key,
            is_plain,
            shape,
            present: 0,
            values: Vec::new(),
            kind: ReportType::Other,
            mentioned: line,
            mention: 0,
            born: line,
            id_given: 0,
            next: 0,
            track_hint: Cell::new(u32::MAX),
        }
    }

    /// The id under which it stands.
    #[inline]
    pub(in crate::extract) fn key(&self) -> &str {
        &self.key
    }

    #[inline]
    pub(in crate::extract) fn kind(&self) -> ReportType {
        self.kind
    }

    /// Whether any rule can take something from it.
    #[inline]
    pub(in crate::extract) fn is_of_interest(&self) -> bool {
        self.shape == Shape::Object
            && (self.kind != ReportType::Other || self.present & Field::Ssrc.bit() != 0)
    }

    /// A field's value.
    #[inline]
    pub(in crate::extract) fn field(&self, field: Field) -> &Value {
        let bit = field.bit();
        if self.present & bit == 0 {
            return &ABSENT;
        }
        self.values.get((self.present & (bit - 1)).count_ones() as usize).unwrap_or(&ABSENT)
    }

    /// Sets the type.
    pub(super) fn set_kind(&mut self, kind: ReportType) {
        self.kind = kind;
    }

    /// Sets a field; how many bytes that costs more and less than before.
    pub(super) fn set(&mut self, field: Field, value: Value, line: u32) -> (usize, usize) {
        if field == Field::Id {
            self.id_given = line;
        }
        let bit = field.bit();
        let at = (self.present & (bit - 1)).count_ones() as usize;
        let cost = value.heap_bytes();
        if self.present & bit == 0 {
            self.present |= bit;
            self.values.insert(at, value);
            return (size_of::<Value>() + cost, 0);
        }
        match self.values.get_mut(at) {
            Some(old) => {
                let before = old.heap_bytes();
                *old = value;
                (cost, before)
            }
            None => (0, 0),
        }
    }

    /// Turns it into another value, without fields; returns the bytes that the fields had cost.
    pub(super) fn replace(&mut self, shape: Shape, line: u32) -> usize {
        let cost = self.values_bytes();
        self.shape = shape;
        self.present = 0;
        self.values.clear();
        self.kind = ReportType::Other;
        self.born = line;
        self.id_given = 0;
        cost
    }

    /// The field `id`, which each evaluation sets to the key: what it holds before that of `line` gets here.
    pub(super) fn id_before(&self, line: u32) -> Value {
        if self.id_given == line {
            self.field(Field::Id).clone()
        } else if self.born < line {
            Value::Text(self.key.clone())
        } else {
            Value::Absent
        }
    }

    /// Bytes that it is paid for with.
    pub(super) fn cost(&self) -> usize {
        size_of::<Self>() + size_of::<u32>() + self.key.len() + self.values_bytes()
    }

    fn values_bytes(&self) -> usize {
        self.values.iter().map(|value| size_of::<Value>() + value.heap_bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_the_order_they_came_in() {
        let mut report = Report::new("r".into(), Shape::Object, 1);
        for (field, x) in
            [(Field::Ssrc, 5.0), (Field::Id, 1.0), (Field::GoogFrameRateOutput, 9.0), (Field::Kind, 3.0)]
        {
            report.set(field, Value::Number(x), 1);
        }
        assert_eq!(report.set(Field::Kind, Value::text("video"), 2), (5, 0));
        assert_eq!(report.field(Field::Ssrc), &Value::Number(5.0));
        assert_eq!(report.field(Field::Id), &Value::Number(1.0));
        assert_eq!(report.field(Field::GoogFrameRateOutput), &Value::Number(9.0));
        assert_eq!(report.field(Field::Kind), &Value::text("video"));
        assert_eq!(report.field(Field::Port), &Value::Absent);
        assert!(report.is_of_interest());
    }

    #[test]
    fn the_id_is_the_key_from_the_second_line_on() {
        let mut report = Report::new("r".into(), Shape::Object, 4);
        assert_eq!(report.id_before(4), Value::Absent);
        assert_eq!(report.id_before(5), Value::text("r"));
        report.set(Field::Id, Value::text("own"), 6);
        assert_eq!(report.id_before(6), Value::text("own"));
        assert_eq!(report.id_before(7), Value::text("r"));
    }
}
