//! One `getstats` line, read to its end before anything is changed: which reports it mentions and what it says
//! of those fields that a rule reads.

use super::base::Base;
use super::field::Field;
use super::report::{ReportType, Shape};
use crate::extract::json::{JsonError, Kind, Scanner, Text};
use crate::extract::problems::LineError;
use crate::extract::value::Value;

/// Fields that one line may tell; the largest real ones stay below a tenth of it.
const FIELDS_MAX: usize = 200_000;
/// What a report of a later line is mostly: unchanged.
const UNCHANGED: &[u8] = b"{\"timestamp\":0}";

/// A report that the line mentions.
#[derive(Debug)]
pub(super) struct Mention {
    pub(super) target: Target,
    pub(super) shape: Shape,
    /// Its type, if the line tells it.
    pub(super) kind: Option<ReportType>,
    /// Its part of [`Delta::fields`].
    pub(super) fields: std::ops::Range<u32>,
}

/// Which report that is.
#[derive(Debug)]
pub(super) enum Target {
    /// A report of the base, by place.
    Known(u32),
    /// One that the base does not have.
    New(Box<str>),
    /// Overruled by a later one under the same key.
    Void,
}

/// What the third element of a `getstats` entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::extract) enum Reported {
    /// `null`, or there is none.
    #[default]
    Nothing,
    /// `false`, 0 or an empty string.
    Falsy,
    /// An object, an array, or something else without reports.
    Reports,
}

/// The contents of a line; kept from line to line for its memory.
#[derive(Debug, Default)]
pub(in crate::extract) struct Delta {
    pub(super) reported: Reported,
    pub(super) mentions: Vec<Mention>,
    pub(super) fields: Vec<(Field, Value)>,
    /// Whether each report came where the last line let expect it.
    pub(super) is_expected: bool,
}

impl Delta {
    /// Forgets the line before.
    pub(in crate::extract) fn clear(&mut self) {
        self.reported = Reported::Nothing;
        self.mentions.clear();
        self.fields.clear();
        self.is_expected = true;
    }

    /// Whether the line has reports to tell of, or at least a value in their place.
    pub(in crate::extract) fn reported(&self) -> Reported {
        self.reported
    }

    /// Whether a report is `null`, for a dump whose reports are not evaluated. Overruled ones must be void.
    pub(in crate::extract) fn has_null_report(&mut self) -> bool {
        self.void_repeated();
        self.mentions
            .iter()
            .any(|mention| mention.shape == Shape::Null && !matches!(mention.target, Target::Void))
    }

    /// Reads the element that comes next. `base` is what it will be applied to, if there is one.
    ///
    /// # Errors
    ///
    /// When it is not JSON, or mentions more than `reports_max` reports.
    pub(in crate::extract) fn read(
        &mut self,
        scanner: &mut Scanner<'_>,
        mut base: Option<&mut Base>,
        reports_max: usize,
    ) -> Result<(), LineError> {
        let line = base.as_mut().map_or(0, |base| base.begin_line());
        match scanner.kind()? {
            Kind::Object => {
                self.reported = Reported::Reports;
                match base {
                    Some(base) => self.read_known(scanner, base, line, reports_max),
                    None => self.read_first(scanner, reports_max),
                }
            }
            Kind::Array => {
                self.reported = Reported::Reports;
                self.read_array(scanner, base, line, reports_max)
            }
            Kind::Null => {
                self.reported = Reported::Nothing;
                Ok(scanner.skip_word()?)
            }
            Kind::String | Kind::Number | Kind::True | Kind::False => {
                let value = Value::read_scalar(scanner)?;
                self.reported = if value.is_truthy() { Reported::Reports } else { Reported::Falsy };
                Ok(())
            }
        }
    }

    /// Reads an object of reports when there are others to compare it with.
    fn read_known(
        &mut self,
        scanner: &mut Scanner<'_>,
        base: &mut Base,
        line: u32,
        reports_max: usize,
    ) -> Result<(), LineError> {
        let mut guess = base.first_guess();
        let mut first = true;
        scanner.begin_object()?;
        while scanner.has_key(&mut first)? {
            let is_guessed = base.plain_key_at(guess).is_some_and(|key| scanner.take_known_key(key));
            let target = if is_guessed {
                Target::Known(guess)
            } else {
                let key = scanner.next_key_after()?.decoded();
                if key == "timestamp" {
                    scanner.skip_value()?;
                    continue;
                }
                self.is_expected = false;
                base.place(&key).map_or_else(|| Target::New(key.into()), Target::Known)
            };
            if let Target::Known(place) = target {
                guess = base.guess_after(place);
            }
            self.read_target(scanner, target, Some(&mut *base), line, reports_max)?;
        }
        Ok(())
    }

    /// Reads an object of reports when there are none yet.
    fn read_first(&mut self, scanner: &mut Scanner<'_>, reports_max: usize) -> Result<(), LineError> {
        self.is_expected = false;
        let mut first = true;
        scanner.begin_object()?;
        while let Some(key) = scanner.next_key(&mut first)? {
            self.read_mention(scanner, Target::New(key.decoded().into()), reports_max)?;
        }
        Ok(())
    }

    /// An array is an object whose keys are the indices. No client sends one.
    fn read_array(
        &mut self,
        scanner: &mut Scanner<'_>,
        mut base: Option<&mut Base>,
        line: u32,
        reports_max: usize,
    ) -> Result<(), LineError> {
        self.is_expected = false;
        let mut first = true;
        scanner.begin_array()?;
        for index in 0_usize.. {
            if !scanner.next_element(&mut first)? {
                break;
            }
            let key = index.to_string();
            let place = base.as_ref().and_then(|base| base.place(&key));
            let target = place.map_or_else(|| Target::New(key.into()), Target::Known);
            self.read_target(scanner, target, base.as_deref_mut(), line, reports_max)?;
        }
        Ok(())
    }

    /// Reads a mention. If the line has mentioned the report before, what it says now counts, at that place.
    #[inline]
    fn read_target(
        &mut self,
        scanner: &mut Scanner<'_>,
        target: Target,
        base: Option<&mut Base>,
        line: u32,
        reports_max: usize,
    ) -> Result<(), LineError> {
        let earlier = match (&target, base) {
            (Target::Known(place), Some(base)) => base.mention(*place, line, self.mentions.len()),
            (Target::Known(_) | Target::New(_) | Target::Void, _) => None,
        };
        self.read_mention(scanner, target, reports_max)?;
        if let Some(earlier) = earlier {
            self.overrule(earlier, self.mentions.len() - 1);
        }
        Ok(())
    }

    #[inline]
    fn read_mention(
        &mut self,
        scanner: &mut Scanner<'_>,
        target: Target,
        reports_max: usize,
    ) -> Result<(), LineError> {
        if self.mentions.len() >= reports_max {
            return Err(LineError::TooMany { what: "reports of a stats entry", count_max: reports_max });
        }
        let start = self.fields_end();
        let mut kind = None;
        let shape = if scanner.take_literal(UNCHANGED) {
            Shape::Object
        } else {
            match scanner.kind()? {
                Kind::Object => {
                    kind = self.read_fields(scanner)?;
                    Shape::Object
                }
                Kind::Array => {
                    scanner.skip_value()?;
                    Shape::Opaque
                }
                Kind::Null => {
                    scanner.skip_word()?;
                    Shape::Null
                }
                Kind::String | Kind::Number | Kind::True | Kind::False => {
                    if Value::read_scalar(scanner)?.is_truthy() { Shape::Opaque } else { Shape::Falsy }
                }
            }
        };
        self.mentions.push(Mention { target, shape, kind, fields: start..self.fields_end() });
        Ok(())
    }

    /// Reads the fields of a report; its type, if that is among them.
    fn read_fields(&mut self, scanner: &mut Scanner<'_>) -> Result<Option<ReportType>, LineError> {
        let mut kind = None;
        let start = self.fields.len();
        let mut first = true;
        scanner.begin_object()?;
        while let Some(name) = scanner.next_key(&mut first)? {
            match field_of(name) {
                None if is_type(name) => kind = Some(read_kind(scanner)?),
                None => scanner.skip_value()?,
                Some(field) => {
                    let value = Value::read_scalar(scanner)?;
                    let is_full = self.fields.len() >= FIELDS_MAX;
                    let own = self.fields.get_mut(start..).unwrap_or_default();
                    // The last of repeated fields wins.
                    match own.iter_mut().find(|(known, _)| *known == field) {
                        Some((_, known)) => *known = value,
                        None if !is_full => self.fields.push((field, value)),
                        None => {
                            return Err(LineError::TooMany {
                                what: "fields of a stats entry",
                                count_max: FIELDS_MAX,
                            });
                        }
                    }
                }
            }
        }
        Ok(kind)
    }

    fn fields_end(&self) -> u32 {
        // At most 28 fields of each of `reports_max` reports.
        u32::try_from(self.fields.len()).unwrap_or(u32::MAX)
    }

    /// Lets a mention say what a later one of the same report does, which is void then.
    fn overrule(&mut self, earlier: usize, later: usize) {
        let Some(mention) = self.mentions.get_mut(later) else { return };
        mention.target = Target::Void;
        let says = (mention.shape, mention.kind, mention.fields.clone());
        if let Some(mention) = self.mentions.get_mut(earlier) {
            (mention.shape, mention.kind, mention.fields) = says;
        }
    }

    /// Overrules new reports by later ones under the same key.
    pub(super) fn void_repeated(&mut self) {
        let is_new = |mention: &&Mention| matches!(mention.target, Target::New(_));
        if self.mentions.iter().filter(is_new).count() < 2 {
            return;
        }
        let mut new: Vec<(&str, usize)> = Vec::new();
        for (at, mention) in self.mentions.iter().enumerate() {
            if let Target::New(key) = &mention.target {
                new.push((key, at));
            }
        }
        new.sort_unstable();
        let same = new.windows(2).filter_map(|pair| match pair {
            [(key, earlier), (next, later)] if key == next => Some((*earlier, *later)),
            _ => None,
        });
        // From behind, so that the last one's say reaches the first.
        let pairs: Vec<(usize, usize)> = same.collect();
        for (earlier, later) in pairs.into_iter().rev() {
            self.overrule(earlier, later);
        }
    }
}

/// Whether a field's name is `type`, which is kept apart from the others, as a number.
#[inline]
fn is_type(name: Text<'_>) -> bool {
    match name.raw() {
        (raw, false) => raw == "type",
        (_, true) => name.decoded() == "type",
    }
}

fn read_kind(scanner: &mut Scanner<'_>) -> Result<ReportType, JsonError> {
    if scanner.kind()? == Kind::String {
        return Ok(ReportType::of(&scanner.string()?.decoded()));
    }
    scanner.skip_value()?;
    Ok(ReportType::Other)
}

#[inline]
fn field_of(name: Text<'_>) -> Option<Field> {
    match name.raw() {
        (raw, false) => Field::of(raw.as_bytes()),
        (_, true) => Field::of(name.decoded().as_bytes()),
    }
}
