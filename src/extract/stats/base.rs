//! The reports of a peer connection after the last entry.

use super::delta::{Delta, Mention, Reported, Target};
use super::report::{Report, ReportType, Shape};
use crate::extract::budget::Budget;
use crate::extract::js;
use crate::extract::problems::LineError;
use crate::extract::value::Value;

/// What stands under a report id.
#[derive(Debug, Clone, Copy)]
pub(in crate::extract) enum Found<'a> {
    /// Nothing, or a value that counts as false.
    Nothing,
    /// `null`.
    Null,
    /// A value that is no report.
    Opaque,
    /// A report, and its place.
    Report(&'a Report, usize),
}

/// The base.
#[derive(Debug, Default)]
pub(in crate::extract) struct Base {
    /// In key order.
    reports: Vec<Report>,
    /// Places of the reports, by key; empty when it has to be made again.
    by_key: Vec<u32>,
    /// Places of the reports that rules can take something from, in key order.
    of_interest: Vec<u32>,
    /// Number of the line that is being read, from 1.
    line: u32,
    /// Place of the report that the last line mentioned first.
    first: u32,
}

impl Base {
    /// The reports that rules can take something from, with their places, in key order.
    pub(in crate::extract) fn of_interest(&self) -> impl Iterator<Item = (usize, &Report)> {
        self.of_interest
            .iter()
            .filter_map(|place| Some((*place as usize, self.reports.get(*place as usize)?)))
    }

    /// What stands under the id that a field names.
    pub(in crate::extract) fn find(&self, id: &Value) -> Found<'_> {
        let place = match id.as_str() {
            Some(key) => self.find_place(key),
            None => self.find_place(&id.key_text()),
        };
        let Some((place, report)) = place.and_then(|place| Some((place, self.reports.get(place)?))) else {
            return Found::Nothing;
        };
        match report.shape {
            Shape::Object => Found::Report(report, place),
            Shape::Opaque => Found::Opaque,
            Shape::Null => Found::Null,
            Shape::Falsy => Found::Nothing,
        }
    }

    /// The field `id` of the report at `place`, while the evaluation of the last line is at `evaluated`.
    pub(in crate::extract) fn id_of(&self, place: usize, evaluated: usize) -> Value {
        match self.reports.get(place) {
            Some(report) if place <= evaluated => Value::text(report.key()),
            Some(report) => report.id_before(self.line),
            None => Value::Absent,
        }
    }

    /// Applies a line. All of it that can be is applied, whatever is wrong with the rest.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong: no reports, a report that is `null`, more state than a dump may have.
    pub(in crate::extract) fn apply(
        &mut self,
        delta: &mut Delta,
        budget: &mut Budget,
    ) -> Result<(), LineError> {
        let mut outcome = match delta.reported {
            Reported::Nothing => return Err(LineError::NoData { entry: "getstats" }),
            Reported::Falsy | Reported::Reports => Ok(()),
        };
        let is_first = self.line == 0;
        if is_first {
            self.line = 1;
        }
        let mut is_same_set = true;
        let mut is_same_interest = true;
        let mut kept = 0_usize;
        for mention in &mut delta.mentions {
            if let Target::Known(place) = mention.target
                && let Some(report) = self.reports.get_mut(place as usize)
            {
                match mention.shape {
                    Shape::Object | Shape::Opaque => {
                        kept += 1;
                        let was_of_interest = report.is_of_interest();
                        let merged = merge(report, mention, &mut delta.fields, self.line, budget);
                        keep_first(&mut outcome, merged);
                        is_same_interest &= report.is_of_interest() == was_of_interest;
                    }
                    Shape::Falsy => {
                        // It goes, and comes back as it is, behind the others.
                        report.mentioned = 0;
                        mention.target = Target::New(report.key().into());
                    }
                    Shape::Null => {
                        report.mentioned = 0;
                        keep_first(&mut outcome, Err(null_report()));
                    }
                }
                is_same_set &= !matches!(mention.shape, Shape::Falsy);
            } else {
                is_same_set &= matches!(mention.target, Target::Void);
            }
        }
        if kept < self.reports.len() || !is_same_set {
            self.remove_unmentioned(budget);
            keep_first(&mut outcome, self.add_new(delta, is_first, budget));
            self.by_key.clear();
            is_same_interest = false;
        }
        if !is_same_interest {
            let places = 0_u32..;
            let reports = places.zip(&self.reports).filter(|(_, report)| report.is_of_interest());
            self.of_interest.clear();
            self.of_interest.extend(reports.map(|(place, _)| place));
        }
        if !delta.is_expected || self.by_key.len() != self.reports.len() {
            self.link(delta.mentions.len());
            self.sort_keys();
        }
        outcome
    }

    /// A line begins; its number.
    pub(super) fn begin_line(&mut self) -> u32 {
        self.line += 1;
        self.line
    }

    /// The key of the report that is expected, if it can be compared with the line as it is.
    #[inline]
    pub(super) fn plain_key_at(&self, place: u32) -> Option<&str> {
        self.reports.get(place as usize).filter(|report| report.is_plain).map(Report::key)
    }

    #[inline]
    pub(super) fn first_guess(&self) -> u32 {
        self.first
    }

    #[inline]
    pub(super) fn guess_after(&self, place: u32) -> u32 {
        self.reports.get(place as usize).map_or(0, |report| report.next)
    }

    /// The place of a key.
    pub(super) fn place(&self, key: &str) -> Option<u32> {
        self.find_place(key).and_then(|place| u32::try_from(place).ok())
    }

    /// Notes that `line` mentions a report; which of its mentions did so before, and stays the one noted.
    #[inline]
    pub(super) fn mention(&mut self, place: u32, line: u32, mention: usize) -> Option<usize> {
        let report = self.reports.get_mut(place as usize)?;
        if report.mentioned == line {
            return Some(report.mention as usize);
        }
        report.mentioned = line;
        report.mention = u32::try_from(mention).unwrap_or(u32::MAX);
        None
    }

    fn find_place(&self, key: &str) -> Option<usize> {
        let key_at = |place: &u32| self.reports.get(*place as usize).map_or("", Report::key);
        let at = self.by_key.binary_search_by(|place| key_at(place).cmp(key)).ok()?;
        self.by_key.get(at).map(|place| *place as usize)
    }

    fn remove_unmentioned(&mut self, budget: &mut Budget) {
        let line = self.line;
        self.reports.retain(|report| {
            let stays = report.mentioned == line;
            if !stays {
                budget.give_back(report.cost());
            }
            stays
        });
    }

    fn add_new(&mut self, delta: &mut Delta, is_first: bool, budget: &mut Budget) -> Result<(), LineError> {
        delta.void_repeated();
        let mut outcome = Ok(());
        let mut has_indices = false;
        for (at, mention) in delta.mentions.iter_mut().enumerate() {
            let key = match (&mut mention.target, mention.shape) {
                (Target::Void | Target::Known(_), _) => continue,
                (Target::New(_), Shape::Null) if !is_first => {
                    keep_first(&mut outcome, Err(null_report()));
                    continue;
                }
                (Target::New(key), _) => std::mem::take(key),
            };
            has_indices |= js::array_index(&key).is_some();
            let mut report = Report::new(key, mention.shape, self.line);
            report.set_kind(mention.kind.unwrap_or(ReportType::Other));
            report.mention = u32::try_from(at).unwrap_or(u32::MAX);
            if let Err(error) = budget.take(report.cost()) {
                keep_first(&mut outcome, Err(error));
                continue;
            }
            keep_first(&mut outcome, set_fields(&mut report, mention, &mut delta.fields, self.line, budget));
            self.reports.push(report);
        }
        if has_indices {
            self.reports.sort_by_key(|report| js::array_index(report.key()).map_or(u64::MAX, u64::from));
        }
        outcome
    }

    /// Makes each report's guess the one that followed it in the line.
    fn link(&mut self, mentions: usize) {
        let mut places = vec![u32::MAX; mentions];
        for (place, report) in self.reports.iter().enumerate() {
            if let Some(slot) = places.get_mut(report.mention as usize) {
                *slot = u32::try_from(place).unwrap_or(u32::MAX);
            }
        }
        let mut in_line = places.into_iter().filter(|place| *place != u32::MAX);
        let Some(mut before) = in_line.next() else { return };
        self.first = before;
        for place in in_line {
            if let Some(report) = self.reports.get_mut(before as usize) {
                report.next = place;
            }
            before = place;
        }
    }

    fn sort_keys(&mut self) {
        if self.by_key.len() == self.reports.len() {
            return;
        }
        let reports = &self.reports;
        self.by_key.clear();
        self.by_key.extend((0..reports.len()).filter_map(|place| u32::try_from(place).ok()));
        let key = |place: &u32| reports.get(*place as usize).map_or("", Report::key);
        self.by_key.sort_unstable_by(|a, b| key(a).cmp(key(b)));
    }
}

/// Applies a mention to a report of the base.
#[inline]
fn merge(
    report: &mut Report,
    mention: &Mention,
    fields: &mut [(super::Field, Value)],
    line: u32,
    budget: &mut Budget,
) -> Result<(), LineError> {
    match report.shape {
        // Fields of something that is no object are lost.
        Shape::Opaque => return Ok(()),
        Shape::Object => {}
        // What counts as false is replaced, at its place.
        Shape::Falsy | Shape::Null => budget.give_back(report.replace(mention.shape, line)),
    }
    if let Some(kind) = mention.kind {
        report.set_kind(kind);
    }
    if mention.fields.is_empty() { Ok(()) } else { set_fields(report, mention, fields, line, budget) }
}

fn set_fields(
    report: &mut Report,
    mention: &Mention,
    fields: &mut [(super::Field, Value)],
    line: u32,
    budget: &mut Budget,
) -> Result<(), LineError> {
    let range = mention.fields.start as usize..mention.fields.end as usize;
    for (field, value) in fields.get_mut(range).unwrap_or_default() {
        let needed = size_of::<Value>() + value.heap_bytes();
        budget.take(needed)?;
        let (more, less) = report.set(*field, std::mem::take(value), line);
        budget.give_back(needed - more.min(needed) + less);
    }
    Ok(())
}

fn keep_first(outcome: &mut Result<(), LineError>, next: Result<(), LineError>) {
    if outcome.is_ok() {
        *outcome = next;
    }
}

fn null_report() -> LineError {
    LineError::BadData { entry: "getstats", fault: "a report is null" }
}
