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

/// Who may have how many descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Upgraded connections.
    pub connections_max: usize,
    /// Connections over that which may exist at once, to be told so. Beyond them the backlog waits.
    pub refusals_max: usize,
    /// Dumps that may be kept open even when connections need all the rest.
    pub open_dumps_min: usize,
}

impl Shares {
    /// Divides so many descriptors. Kept back is what is no connection: sockets, epoll, folders, logs, the files that
    /// workers and the metrics thread have open, connections while they are refused, and a few dumps.
    #[must_use]
    pub fn divide(descriptors: u64, connections_wanted: usize) -> Self {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        // Of a limit that is far too small three quarters, so that what is let in can be written.
        let kept = RESERVED.min(descriptors / 4 * 3);
        let share = (kept / 4).clamp(1, 64);
        Self {
            connections_max: connections_wanted.min(descriptors - kept).max(1),
            refusals_max: share,
            open_dumps_min: share,
        }
    }
}

/// Descriptors that are never given to connections in good standing.
const RESERVED: usize = 384;

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

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections, refusals and dumps leave at least a third of a small limit, and 256 of a usual one, for all others.
    #[test]
    fn shares() {
        for (descriptors, connections_max, share) in [
            (20_000, 19_616, 64),
            (1024, 640, 64),
            (512, 128, 64),
            (256, 64, 48),
            (64, 16, 12),
            (0, 1, 1),
            (u64::MAX, 50_000, 64),
        ] {
            let shares = Shares::divide(descriptors, 50_000);
            assert_eq!(
                (shares.connections_max, shares.refusals_max),
                (connections_max, share),
                "{descriptors}"
            );
            assert_eq!(shares.open_dumps_min, share);
        }
        assert_eq!(Shares::divide(20_000, 100).connections_max, 100);
    }
}
