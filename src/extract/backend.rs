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
    /// `None` in strict mode: the reference knows no numbers.
    pub(super) sequence: Option<Sequence>,
    budget: Budget,
}

impl Backend {
    pub(super) fn new(is_numbered: bool) -> Self {
        Self { sequence: is_numbered.then(Sequence::default), ..Self::default() }
    }

    /// Takes a line.
    ///
    /// # Errors
    ///
    /// What is wrong with the line.
    pub(super) fn line(&mut self, line: &str, number: u64, nesting_max: usize) -> Result<(), LineError> {
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
        let numbered = match &mut self.sequence {
            Some(sequence) => {
                number_in(&mut scanner.again(data), nesting_max).map_or(Ok(()), |n| sequence.see(n))
            }
            None => Ok(()),
        };
        if members.is_identity {
            let data = Value::read(&mut scanner.again(data))?;
            self.identity.merge(&data, number, &mut self.budget)?;
        }
        numbered
    }
}

/// The number of the entry in `data`, an array or the JSON of one.
fn number_in(data: &mut Scanner<'_>, nesting_max: usize) -> Option<u64> {
    let read = |text: &str| Entry::read(text, nesting_max, |_, scanner| Ok(scanner.skip_value()?)).ok();
    let entry = match data.kind().ok()? {
        Kind::Array => read(data.rest_of_value()?)?,
        Kind::String => {
            let text = data.string().ok()?;
            // Most back ends send objects, which carry no number.
            if !text.raw().0.starts_with('[') {
                return None;
            }
            read(&text.decoded())?
        }
        Kind::Object | Kind::Number | Kind::True | Kind::False | Kind::Null => return None,
    };
    entry.number
}

/// The members of a line that count; the last of repeated ones wins.
#[derive(Debug, Default)]
struct Members {
    is_identity: bool,
    clock: Clock,
    /// Where the value of `data` starts.
    data: Option<usize>,
}
