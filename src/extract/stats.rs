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
