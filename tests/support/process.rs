//! What a process uses, as the kernel counts it.

use std::fs;
use std::time::Duration;

/// A look at `/proc/<pid>`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) rss_bytes: u64,
    /// User and system time since the start; the kernel counts in steps of 10 ms.
    pub(crate) cpu: Duration,
    /// Descriptors that are sockets: listeners and connections.
    pub(crate) sockets: usize,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
        let rss_kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
            .expect("VmRSS is there");
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
        // The name in parentheses may hold blanks; user and system time are the 14th and 15th field.
        let (_, behind_name) = stat.rsplit_once(") ").expect("a name in parentheses");
        let ticks: u64 =
            behind_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks")).sum();
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process is ours");
        let is_socket = |entry: &fs::DirEntry| {
            fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
        };
        Self {
            rss_bytes: rss_kib.parse::<u64>().expect("a number") * 1024,
            cpu: Duration::from_millis(ticks * 10),
            sockets: descriptors.flatten().filter(is_socket).count(),
        }
    }
}
