//! Whether waiting for a whole file system is as good as waiting for each of its files.
//!
//! Owns the check that must stand before any `syncfs` is relied on. `syncfs` writes everything on the file system in one
//! go, which for many files is much cheaper than one by one, but it is not everywhere as good. It is trusted only where it
//! is known to be: on the file systems in `TRUSTED` (below FUSE it may succeed without a word to whoever stores the
//! files), and from Linux 5.8 on (earlier it does not tell that a write failed).

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{FsWord, fstatfs};

/// File systems of which `syncfs` writes everything and waits for it: ext2 to ext4, XFS, Btrfs, F2FS, tmpfs
/// (`statfs(2)`).
const TRUSTED: [FsWord; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x0102_1994];
/// The first Linux of which `syncfs` tells that a write failed (`syncfs(2)`).
const HONEST_SINCE: (u32, u32) = (5, 8);

/// Whether `syncfs` on the file system of `file` waits for everything and tells of every failure.
///
/// # Errors
/// When the file system cannot be asked.
pub fn is_trusted(file: impl AsFd) -> io::Result<bool> {
    Ok(TRUSTED.contains(&fstatfs(file)?.f_type) && is_honest())
}

/// Whether `syncfs` of this kernel tells that a write failed. When in doubt it does not. The kernel is asked itself: of its
/// files below `/proc/sys` a sandbox may show nothing.
fn is_honest() -> bool {
    let kernel = rustix::system::uname();
    let version = kernel.release().to_str().ok().and_then(version);
    version.is_some_and(|version| version >= HONEST_SINCE)
}

/// The first two numbers of a kernel release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (release, expected) in [
            ("6.18.44-x\n", Some((6, 18))),
            ("5.10.0-28-amd64", Some((5, 10))),
            ("5.8", Some((5, 8))),
            ("5.4.0", Some((5, 4))),
            ("", None),
            ("x.y", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
        assert!(version("5.10.0") > Some(HONEST_SINCE));
        assert!(version("5.4.0") < Some(HONEST_SINCE));
    }

    /// procfs stands for a file system that is not known.
    #[test]
    fn what_is_not_known_is_not_trusted() {
        assert!(!is_trusted(fs::File::open("/proc/self/stat").unwrap()).unwrap());
    }
}
