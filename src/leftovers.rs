//! What an earlier server left in the dump folder, from the loop's side: every dump is taken up exactly once, by the
//! scan or by whoever needs its name first.
//!
//! The scan runs on its own thread ([`crate::recovery`]) and reports in chunks. The loop may need a name before the scan
//! has come to it: for a client that comes back, or for a new dump. It then claims the name, so that the scan keeps off
//! it, and looks at the file itself. Bounded by the names that are claimed while the scan runs, seconds at most.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use log::error;

use crate::client::SessionId;
use crate::dump_folder::DumpFolder;
use crate::logging::value;
use crate::recovery::{self, Recovered, Recovery, Scan};

/// Parts of one id that are looked for when its client comes back before the scan is over.
const PARTS_MAX: u32 = 16;

/// The running scan and the names that need no look any more.
#[derive(Debug)]
pub struct Leftovers {
    scan: Scan,
    folder: Arc<DumpFolder>,
    line_bytes_max: usize,
    /// Names that were claimed or reported.
    handled: HashSet<Box<str>>,
    /// Dumps that were found by claiming their names.
    found: VecDeque<Recovered>,
    is_complete: bool,
}

impl Leftovers {
    /// What `scan` is going to find in `folder`.
    #[must_use]
    pub fn new(scan: Scan, folder: Arc<DumpFolder>, line_bytes_max: usize) -> Self {
        let (handled, found) = (HashSet::new(), VecDeque::new());
        Self { scan, folder, line_bytes_max, handled, found, is_complete: false }
    }

    /// Whether all have been taken up.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_complete && self.found.is_empty()
    }

    /// Takes a name from the scan. A dump that stands there is looked at now.
    pub fn claim(&mut self, name: &str) {
        if !self.handled.insert(name.into()) {
            return;
        }
        self.scan.take(name);
        match recovery::recover_one(&self.folder, name, self.line_bytes_max) {
            Ok(Recovery::Dump(dump)) => self.found.push_back(*dump),
            Ok(Recovery::Empty | Recovery::NotADump | Recovery::Absent) => {}
            Err(cause) => error!("recovery.error dump={name} err={}", value(cause)),
        }
    }

    /// Claims the names under which dumps of `id` may stand, since its client has come back, and hands over what is
    /// there.
    pub fn claim_session(&mut self, id: &SessionId) -> Vec<Recovered> {
        self.claim(id.as_str());
        for part in 1..PARTS_MAX {
            self.claim(&format!("{id}_{part}"));
        }
        let (of_session, others) = self.found.drain(..).partition::<Vec<_>, _>(|dump| dump.id == id.as_str());
        self.found = others.into();
        of_session
    }

    /// The next dump that is to be taken up, if one is known by now.
    pub fn take_next(&mut self) -> Option<Recovered> {
        loop {
            if let Some(found) = self.found.pop_front() {
                return Some(found);
            }
            let chunk = self.scan.chunks().try_recv().ok()?;
            for dump in chunk.dumps {
                if self.handled.insert(dump.name.as_str().into()) {
                    self.found.push_back(dump);
                }
            }
            self.is_complete |= chunk.complete.is_some();
        }
    }
}
