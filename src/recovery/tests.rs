use super::*;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

const LINE_BYTES_MAX: usize = 100_000;
const FIRST: &str = r#"["connectionInfo",null,{"clientProtocol":"3.1_STANDARD","server":{"id":"s_1","part":3}},1700000000000]"#;

fn folder() -> (tempfile::TempDir, Arc<DumpFolder>) {
    let dir = tempfile::tempdir().unwrap();
    let (folder, _) = DumpFolder::open(dir.path()).unwrap();
    (dir, Arc::new(folder))
}

fn recover(content: impl AsRef<[u8]>) -> (Recovery, Option<Vec<u8>>) {
    let (dir, folder) = folder();
    let path = dir.path().join("s");
    std::fs::write(&path, content).unwrap();
    let recovery = recover_one(&folder, "s", LINE_BYTES_MAX).unwrap();
    (recovery, std::fs::read(path).ok())
}

fn dump(recovery: Recovery) -> Recovered {
    let Recovery::Dump(found) = recovery else { panic!("{recovery:?}") };
    *found
}

fn entry(number: u64, payload_bytes: usize) -> String {
    format!("[\"getstats\",\"PC_0\",\"{}\",1700000000{number:03},{number}]\n", "x".repeat(payload_bytes))
}

fn scan_all(folder: &Arc<DumpFolder>) -> (Vec<Recovered>, ScanSummary) {
    let scan = Scan::start(Arc::clone(folder), LINE_BYTES_MAX, Arc::new(|| ())).unwrap();
    drain(&scan)
}

fn drain(scan: &Scan) -> (Vec<Recovered>, ScanSummary) {
    let mut dumps = Vec::new();
    loop {
        let chunk = scan.chunks().recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(chunk.dumps.len() <= CHUNK_DUMPS_MAX);
        dumps.extend(chunk.dumps);
        if let Some(summary) = chunk.complete {
            dumps.sort_by(|a, b| a.name.cmp(&b.name));
            return (dumps, summary);
        }
    }
}

#[test]
fn a_whole_dump_is_described_and_not_changed() {
    let content = format!("{FIRST}\n{}{}", entry(1, 10), entry(2, 10));
    let (recovery, left) = recover(&content);
    let found = dump(recovery);
    assert_eq!((found.id.as_str(), found.part, found.client), ("s_1", 3, ClientType::Rtcstats));
    assert_eq!((found.last_number, found.created_ms), (Some(2), Some(1_700_000_000_000)));
    assert_eq!((found.size_bytes, found.torn_bytes), (content.len() as u64, 0));
    assert_eq!(left.unwrap(), content.as_bytes());
}

#[test]
fn a_dump_cut_at_any_byte_keeps_exactly_its_whole_lines() {
    let content = format!("{FIRST}\n{}{}{}", entry(1, 3), entry(2, 0), entry(3, 5));
    let ends: Vec<usize> =
        content.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1).collect();
    for cut in 0..=content.len() {
        let whole = ends.iter().copied().rfind(|end| *end <= cut).unwrap_or(0);
        let (recovery, left) = recover(&content[..cut]);
        if whole == 0 {
            assert_eq!(recovery, Recovery::Empty, "cut at {cut}");
            assert_eq!(left, None);
            continue;
        }
        let lines = ends.iter().filter(|end| **end <= cut).count() as u64;
        let found = dump(recovery);
        assert_eq!(found.last_number, (lines > 1).then_some(lines - 1), "cut at {cut}");
        assert_eq!(found.torn_bytes, (cut - whole) as u64);
        assert_eq!(left.unwrap(), &content.as_bytes()[..whole]);
    }
}

#[test]
fn cutting_leaves_the_time_of_the_last_write() {
    let (dir, folder) = folder();
    let path = dir.path().join("s");
    std::fs::write(&path, format!("{FIRST}\ntorn")).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000, 500);
    File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
    let found = dump(recover_one(&folder, "s", LINE_BYTES_MAX).unwrap());
    assert_eq!((found.torn_bytes, found.modified), (4, old));
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), old);
}

#[test]
fn what_we_did_not_write_is_not_cut() {
    for content in ["garbage without end", "garbage\ntorn", "[\"identity\",null]\ntorn", "\0\0\0"] {
        let (recovery, left) = recover(content);
        let found = dump(recovery);
        assert_eq!((found.id.as_str(), found.last_number, found.torn_bytes), ("s", None, 0), "{content:?}");
        assert_eq!(left.unwrap(), content.as_bytes());
    }
}

#[test]
fn a_tail_longer_than_any_line_is_not_cut() {
    let content = format!("{FIRST}\n{}", "x".repeat(LINE_BYTES_MAX + WINDOW_BYTES));
    let (recovery, left) = recover(&content);
    assert_eq!(dump(recovery).torn_bytes, 0);
    assert_eq!(left.unwrap().len(), content.len());
}

#[test]
fn the_last_number_is_found_behind_long_lines_but_not_for_any_price() {
    for payload in [0, 10, 16_000, 17_000, 40_000, 95_000] {
        let content = format!("{FIRST}\n{}{}", entry(1, 10), entry(2, payload));
        assert_eq!(dump(recover(content).0).last_number, Some(2), "payload of {payload}");
        let content = format!("{FIRST}\n{}[\"unnumbered\",\"{}\"]\n", entry(1, 10), "x".repeat(payload));
        assert_eq!(dump(recover(content).0).last_number, Some(1), "behind {payload}");
    }
    let far = format!("{FIRST}\n{}{}", entry(1, 10), "[\"unnumbered\"]\n".repeat(30_000));
    assert_eq!(dump(recover(far).0).last_number, None);
}

#[test]
fn links_folders_and_fifos_are_left_alone() {
    let (dir, folder) = folder();
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("target");
    std::fs::write(&target, "torn").unwrap();
    symlink(&target, dir.path().join("link")).unwrap();
    std::fs::create_dir(dir.path().join("lost+found")).unwrap();
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    std::fs::write(dir.path().join("not a dump"), "").unwrap();
    std::fs::write(dir.path().join("dump"), format!("{FIRST}\n")).unwrap();
    rustix::fs::mknodat(folder.root(), "fifo", rustix::fs::FileType::Fifo, beneath::FILE_MODE, 0).unwrap();

    let (dumps, summary) = scan_all(&folder);
    assert_eq!(dumps.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(), ["dump"]);
    assert_eq!(summary, ScanSummary { dumps: 1, torn: 0, empty: 0, unknown: 5 });
    for name in ["link", "lost+found", "folder", "not a dump", "fifo"] {
        assert!(Path::symlink_metadata(&dir.path().join(name)).is_ok(), "{name}");
    }
    assert_eq!(std::fs::read(&target).unwrap(), b"torn");
    assert_eq!(recover_one(&folder, "none", LINE_BYTES_MAX).unwrap(), Recovery::Absent);
}

#[test]
fn a_scan_reports_every_dump_in_bounded_chunks() {
    let (dir, folder) = folder();
    let count = CHUNK_DUMPS_MAX * 3 + 7;
    for n in 0..count {
        std::fs::write(dir.path().join(format!("s{n}")), format!("{FIRST}\n{}torn", entry(1, n))).unwrap();
    }
    std::fs::write(dir.path().join("empty"), "").unwrap();
    let (dumps, summary) = scan_all(&folder);
    assert_eq!(dumps.len(), count);
    assert!(dumps.iter().all(|found| found.last_number == Some(1) && found.torn_bytes == 4));
    let count = count as u64;
    assert_eq!(summary, ScanSummary { dumps: count, torn: count, empty: 1, unknown: 0 });
}

#[test]
fn a_scan_keeps_off_what_the_loop_has_taken() {
    let (dir, folder) = folder();
    // More than the scan can report while nobody listens, so that it surely runs when the name is taken.
    for n in 0..CHUNK_DUMPS_MAX * (CHUNKS_MAX + 2) {
        std::fs::write(dir.path().join(format!("s{n}")), format!("{FIRST}\n")).unwrap();
    }
    let scan = Scan::start(Arc::clone(&folder), LINE_BYTES_MAX, Arc::new(|| ())).unwrap();
    for n in 0..CHUNK_DUMPS_MAX * (CHUNKS_MAX + 2) {
        let name = format!("s{n}");
        scan.take(&name);
        File::options().append(true).open(dir.path().join(&name)).unwrap();
        // A write that the scan must not take for a torn line.
        std::fs::write(dir.path().join(&name), format!("{FIRST}\nhalf")).unwrap();
    }
    let (_, summary) = drain(&scan);
    assert_eq!(summary.torn, 0, "a live dump was cut");
    scan.take("after the end it does nothing");
}

#[test]
fn dropping_a_scan_ends_it() {
    let (dir, folder) = folder();
    for n in 0..CHUNK_DUMPS_MAX * (CHUNKS_MAX + 2) {
        std::fs::write(dir.path().join(format!("s{n}")), format!("{FIRST}\n")).unwrap();
    }
    drop(Scan::start(Arc::clone(&folder), LINE_BYTES_MAX, Arc::new(|| ())).unwrap());
    // The thread holds the folder, and with it the lock, until it ends.
    let deadline = std::time::Duration::from_secs(30);
    #[expect(clippy::disallowed_methods, reason = "a deadline for a test that waits for a thread")]
    let end = std::time::Instant::now() + deadline;
    while Arc::strong_count(&folder) > 1 {
        #[expect(clippy::disallowed_methods, reason = "as above")]
        let now = std::time::Instant::now();
        assert!(now < end, "the scan goes on");
        thread::yield_now();
    }
}

proptest! {
    #[test]
    fn any_bytes_are_recovered_without_losing_a_whole_line(
        ours in any::<bool>(),
        mut lines in proptest::collection::vec("[ -~]{0,40}", 0..6),
        numbers in proptest::collection::vec(1u64..100_000, 0..4),
        torn in "[ -~]{0,30}",
    ) {
        let numbered = numbers.iter().map(|n| format!("[\"t\",null,{{}},1700000000000,{n}]"));
        lines.extend(numbered);
        if ours {
            lines.insert(0, FIRST.to_owned());
        }
        let whole: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let (recovery, left) = recover(format!("{whole}{torn}"));
        if !ours {
            // No line of those that are generated begins like ours, but a short tail can be its beginning.
            if whole.is_empty() && BEGINNING.starts_with(torn.as_bytes()) {
                prop_assert_eq!(recovery, Recovery::Empty);
            } else {
                prop_assert_eq!(dump(recovery).torn_bytes, 0);
                prop_assert_eq!(left.unwrap(), format!("{whole}{torn}").into_bytes());
            }
            return Ok(());
        }
        let found = dump(recovery);
        prop_assert_eq!(left.unwrap(), whole.as_bytes());
        prop_assert_eq!(found.torn_bytes, torn.len() as u64);
        prop_assert_eq!(found.last_number, numbers.last().copied());
    }
}
