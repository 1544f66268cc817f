//! What is derived from a dump while it is read.

use std::io::BufRead;

use serde_json::{Value, json};

use super::source::Source;
use crate::metrics::FeatureMetrics;
use crate::records_store::TableRows;

/// Where a dump is archived, for its document.
pub(super) struct Archived<'a> {
    pub(super) name: &'a str,
    pub(super) id: &'a str,
    pub(super) day: String,
    pub(super) modified_ms: u64,
}

/// The result of one dump.
pub(super) struct Derived {
    pub(super) is_errored: bool,
    pub(super) features: Option<FeatureMetrics>,
    lines: u64,
}

impl Derived {
    pub(super) fn of(source: &mut Source<'_>) -> Self {
        let mut lines = 0;
        let mut line = Vec::new();
        let mut is_errored = false;
        loop {
            line.clear();
            match source.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => {
                    lines += 1;
                    is_errored |= serde_json::from_slice::<serde::de::IgnoredAny>(&line).is_err();
                }
            }
        }
        Self { is_errored, features: None, lines }
    }

    pub(super) fn document(&self, archived: &Archived<'_>) -> Vec<u8> {
        let document: Value = json!({"dumpMetadata": {"clientId": archived.name, "dumpId": format!("{}.gz", archived.name),
            "baseDumpId": archived.id, "dumpPath": format!("{}/{}.gz", archived.day, archived.name),
            "startDate": archived.modified_ms}, "features": {"lines": self.lines}});
        document.to_string().into_bytes()
    }

    pub(super) fn rows(&self, archived: &Archived<'_>) -> Vec<TableRows> {
        let id = archived.name.to_owned();
        let json = format!(r#"{{"id":"{id}"}}"#);
        vec![TableRows { table: "rtcstats", rows: vec![crate::records_store::Row { id, json }] }]
    }
}
