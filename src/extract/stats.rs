//! Reports of `getstats` entries: delta decompression, and the view that the rules have of the result.
//!
//! Owns, per peer connection, the reports as they stand after the last entry (the base), reduced to the fields
//! that a rule reads. Computes no feature. Rules: feature extraction 8.1, and the treatment of `id` in 8.2.

mod base;
mod delta;
mod field;
mod report;

pub(super) use base::{Base, Found};
pub(super) use delta::{Delta, Reported};
pub(super) use field::Field;
pub(super) use report::{Report, ReportType};

/// The base after stats lines with these reports, for tests of the rules.
#[cfg(test)]
pub(super) fn base_of(lines: &[&str]) -> Base {
    let mut base = None;
    let mut delta = Delta::default();
    for line in lines {
        delta.clear();
        delta.read(&mut super::json::Scanner::new(line, 16), base.as_mut(), 100).unwrap();
        let _ =
            base.get_or_insert_with(Base::default).apply(&mut delta, &mut super::budget::Budget::default());
    }
    base.unwrap_or_default()
}
