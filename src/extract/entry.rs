//! One line of an RTCSTATS dump: `[type, pc, data, timestamp, ...]`.
//!
//! Reads a line to its end before anything is done with it, and builds only what the entry's type needs.
//! Rules: feature extraction 4; sequence numbers: our contract 7.

use super::clock::Clock;
use super::json::{Kind, Scanner};
use super::problems::LineError;
use super::sequence;
use super::value::Value;

/// Declares the entry types that a rule names.
macro_rules! entry_types {
    ($($(#[$meta:meta])* $kind:ident => [$($name:literal),+],)+) => {
        /// What an entry's type means.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum EntryType {
            $($(#[$meta])* $kind,)+
            /// Any other: counted, nothing taken.
            Other,
        }

        impl EntryType {
            fn of(name: &str) -> Self {
                match name {
                    $($($name)|+ => Self::$kind,)+
                    _ => Self::Other,
                }
            }
        }
    };
}

entry_types! {
    ConnectionInfo => ["connectionInfo"],
    Identity => ["identity"],
    ConferenceStart => ["conferenceStartTimestamp"],
    Create => ["create"],
    Constraints => ["constraints"],
    ConnectionState => ["onconnectionstatechange"],
    IceState => ["oniceconnectionstatechange"],
    SdpCreateFailure => ["createAnswerOnFailure", "createOfferOnFailure"],
    SdpSetFailure => ["setLocalDescriptionOnFailure", "setRemoteDescriptionOnFailure"],
    DtlsError => ["ondtlserror"],
    DtlsState => ["ondtlsstatechange"],
    Sdp => ["createAnswerOnSuccess", "createOfferOnSuccess", "setLocalDescription", "setRemoteDescription"],
    DominantSpeaker => ["dominantSpeaker"],
    FaceLandmarks => ["faceLandmarks"],
    EndToEndRtt => ["e2eRtt"],
    SetVideoType => ["setVideoType"],
    GetStats => ["getstats"],
}

impl EntryType {
    /// Whether a rule reads the entry's data (those of `getstats` are read elsewhere).
    fn needs_data(self) -> bool {
        match self {
            Self::ConnectionInfo
            | Self::Identity
            | Self::ConferenceStart
            | Self::Create
            | Self::Constraints
            | Self::ConnectionState
            | Self::IceState
            | Self::DtlsState
            | Self::DominantSpeaker
            | Self::FaceLandmarks
            | Self::EndToEndRtt
            | Self::SetVideoType => true,
            Self::SdpCreateFailure
            | Self::SdpSetFailure
            | Self::DtlsError
            | Self::Sdp
            | Self::GetStats
            | Self::Other => false,
        }
    }
}

/// An entry.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) kind: EntryType,
    /// Name of the peer connection.
    pub(super) pc: Value,
    /// Absent where no rule reads it.
    pub(super) data: Value,
    pub(super) clock: Clock,
    /// Its sequence number.
    pub(super) number: Option<u64>,
}

impl Entry {
    /// Reads a line. `read_stats` is given the data of a `getstats` entry, and the name of its connection.
    ///
    /// # Errors
    ///
    /// When the line is not JSON or no entry, and those of `read_stats`.
    pub(super) fn read(
        line: &str,
        nesting_max: usize,
        read_stats: impl FnOnce(&Value, &mut Scanner<'_>) -> Result<(), LineError>,
    ) -> Result<Self, LineError> {
        let mut scanner = Scanner::new(line, nesting_max);
        let entry = match scanner.kind()? {
            Kind::Array => Self::read_array(&mut scanner, read_stats)?,
            Kind::String => Self::of_text(&scanner.string()?.decoded()),
            Kind::Object | Kind::Number | Kind::True | Kind::False | Kind::Null => {
                scanner.skip_value()?;
                scanner.end()?;
                return Err(LineError::NoEntry);
            }
        };
        scanner.end()?;
        Ok(entry)
    }

    fn read_array(
        scanner: &mut Scanner<'_>,
        read_stats: impl FnOnce(&Value, &mut Scanner<'_>) -> Result<(), LineError>,
    ) -> Result<Self, LineError> {
        let mut entry = Self::nothing();
        let mut read_stats = Some(read_stats);
        let mut last_two = (None, None);
        let mut first = true;
        scanner.begin_array()?;
        for at in 0_usize.. {
            if !scanner.next_element(&mut first)? {
                break;
            }
            last_two.0 = last_two.1.take();
            match at {
                0 => entry.kind = read_type(scanner)?,
                1 => {
                    entry.pc = Value::read(scanner)?;
                    last_two.1 = entry.pc.as_number();
                }
                2 if entry.kind == EntryType::GetStats => match read_stats.take() {
                    Some(read_stats) => read_stats(&entry.pc, scanner)?,
                    None => scanner.skip_value()?,
                },
                2 if entry.kind.needs_data() => {
                    entry.data = Value::read(scanner)?;
                    last_two.1 = entry.data.as_number();
                }
                _ if scanner.kind()? == Kind::Number => {
                    let number = scanner.number()?;
                    last_two.1 = Some(number);
                    if at == 3 {
                        entry.clock = Clock::At(number);
                    }
                }
                3 => entry.clock = Clock::of(&Value::read_scalar(scanner)?),
                _ => scanner.skip_value()?,
            }
        }
        entry.number = sequence::number_of(last_two.0, last_two.1);
        Ok(entry)
    }

    /// A string can be taken apart, too: its characters are the elements. No client sends one.
    fn of_text(text: &str) -> Self {
        let mut chars = text.chars().map(|c| Value::text(c.to_string()));
        chars.next();
        Self { pc: chars.next().unwrap_or_default(), ..Self::nothing() }
    }

    fn nothing() -> Self {
        Self {
            kind: EntryType::Other,
            pc: Value::Absent,
            data: Value::Absent,
            clock: Clock::Absent,
            number: None,
        }
    }
}

fn read_type(scanner: &mut Scanner<'_>) -> Result<EntryType, LineError> {
    if scanner.kind()? == Kind::String {
        return Ok(EntryType::of(&scanner.string()?.decoded()));
    }
    scanner.skip_value()?;
    Ok(EntryType::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Entry, LineError> {
        Entry::read(line, 16, |_, scanner| Ok(scanner.skip_value()?))
    }

    #[test]
    fn elements_may_be_missing() {
        let cases = [
            ("[]", EntryType::Other, Value::Absent, Clock::Absent, None),
            (r#"["getstats"]"#, EntryType::GetStats, Value::Absent, Clock::Absent, None),
            (r#"["x","PC_0",{"a":[]},5]"#, EntryType::Other, Value::text("PC_0"), Clock::At(5.0), None),
            (
                r#"["x",null,null,1700000000000,17]"#,
                EntryType::Other,
                Value::Null,
                Clock::At(1.7e12),
                Some(17),
            ),
            (
                r#"["x","PC_0",1700000000000,17]"#,
                EntryType::Other,
                Value::text("PC_0"),
                Clock::At(17.0),
                Some(17),
            ),
            (r#"["x",1700000000000,17]"#, EntryType::Other, Value::Number(1.7e12), Clock::Absent, Some(17)),
            (
                r#"["x",0,1,null,{},1700000000000,3]"#,
                EntryType::Other,
                Value::Number(0.0),
                Clock::Null,
                Some(3),
            ),
            (r#"[["getstats"],"PC_0"]"#, EntryType::Other, Value::text("PC_0"), Clock::Absent, None),
            (r#""xyz""#, EntryType::Other, Value::text("y"), Clock::Absent, None),
        ];
        for (line, kind, pc, clock, number) in cases {
            let entry = read(line).unwrap();
            assert_eq!(
                (entry.kind, entry.pc, entry.clock, entry.number),
                (kind, pc, clock, number),
                "{line}"
            );
        }
    }

    #[test]
    fn lines_that_are_no_entries_are_told_from_lines_that_are_no_json() {
        for line in ["null", "5", "true", "{}"] {
            assert_eq!(read(line).err(), Some(LineError::NoEntry), "{line}");
        }
        for line in ["", "{", "[1", "[1]]", "5 5", "{}x"] {
            assert!(matches!(read(line).err(), Some(LineError::NotJson(_))), "{line}");
        }
    }
}
