//! A back end's dump: lines are `{statsSessionId, type, data, timestamp}`; only identities and times count.
//!
//! The same entries as an RTCSTATS client sends may be in `data` (`3.1_LEGACY` is that client under another name);
//! their sequence numbers are read, nothing else. Rules: feature extraction 11, our contract 7.

use super::budget::Budget;
use super::clock::{Clock, SessionTimes};
use super::entry::Entry;
use super::identity::Identity;
use super::json::{Kind, Scanner};
use super::problems::LineError;
use super::sequence::Sequence;
use super::value::Value;

/// What a back end's dump has told so far.
#[derive(Debug, Default)]
pub(super) struct Backend {
    pub(super) times: SessionTimes,
    pub(super) identity: Identity,
    pub(super) sequence: Sequence,
    budget: Budget,
}

impl Backend {
    /// Takes a line. Sequence numbers are looked for only if `is_numbered`: the reference knows none.
    ///
    /// # Errors
    ///
    /// What is wrong with the line.
    pub(super) fn line(
        &mut self,
        line: &str,
        number: u64,
        nesting_max: usize,
        is_numbered: bool,
    ) -> Result<(), LineError> {
        let mut scanner = Scanner::new(line, nesting_max);
        let kind = scanner.kind()?;
        if kind != Kind::Object {
            scanner.skip_value()?;
            scanner.end()?;
            return if kind == Kind::Null { Err(LineError::NullEntry) } else { Ok(()) };
        }
        let mut members = Members::default();
        let mut first = true;
        scanner.begin_object()?;
        while let Some(name) = scanner.next_key(&mut first)? {
            match &*name.decoded() {
                "type" => {
                    members.is_identity = Value::read_scalar(&mut scanner)?.as_str() == Some("identity")
                }
                "timestamp" => members.clock = Clock::of(&Value::read_scalar(&mut scanner)?),
                "data" => {
                    members.data = Some(scanner.offset());
                    scanner.skip_value()?;
                }
                _ => scanner.skip_value()?,
            }
        }
        scanner.end()?;
        self.times.see(members.clock);
        let Some(data) = members.data else { return Ok(()) };
        if is_numbered {
            self.number(&mut scanner.again(data), nesting_max);
        }
        if members.is_identity {
            let data = Value::read(&mut scanner.again(data))?;
            self.identity.merge(&data, number, &mut self.budget)?;
        }
        Ok(())
    }

    /// Sees the number of the entry in `data`, an array or the JSON of one.
    fn number(&mut self, data: &mut Scanner<'_>, nesting_max: usize) {
        let read = |text: &str| Entry::read(text, nesting_max, |_, scanner| Ok(scanner.skip_value()?)).ok();
        let entry = match data.kind() {
            Ok(Kind::Array) => data.rest_of_value().and_then(read),
            Ok(Kind::String) => match data.string() {
                Ok(text) if text.raw().0.starts_with('[') => read(&text.decoded()),
                Ok(_) | Err(_) => None,
            },
            Ok(_) | Err(_) => None,
        };
        if let Some(number) = entry.and_then(|entry| entry.number) {
            self.sequence.see(number);
        }
    }
}

/// The members of a line that count; the last of repeated ones wins.
#[derive(Debug, Default)]
struct Members {
    is_identity: bool,
    clock: Clock,
    /// Where the value of `data` starts.
    data: Option<usize>,
}
