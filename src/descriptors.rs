//! The limit of open files of this process.
//!
//! Connections, dumps, the archive and the metrics port share it; who gets how many is the loop's business.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit before and after [`raise_limit`]. A limit of none at all is `u64::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorLimit {
    /// The soft limit that the process was started with.
    pub before: u64,
    /// The soft limit that is in effect now: so many descriptors can be open.
    pub soft: u64,
    /// The hard limit, which only the administrator raises (`LimitNOFILE` of the unit).
    pub hard: u64,
}

/// Raises the soft limit to the hard one.
///
/// The soft one is usually 1024, for programs that use `select`; we do not.
///
/// # Errors
///
/// When the kernel refuses, which it may inside a sandbox. The limit is then as it was; see [`limit`].
pub fn raise_limit() -> io::Result<DescriptorLimit> {
    let before = limit();
    if before.soft < before.hard {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(DescriptorLimit { before: before.soft, ..limit() })
}

/// The limit as it is.
#[must_use]
pub fn limit() -> DescriptorLimit {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let soft = current.unwrap_or(u64::MAX);
    DescriptorLimit { before: soft, soft, hard: maximum.unwrap_or(u64::MAX) }
}
