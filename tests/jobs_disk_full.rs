//! A full archive disk, for real: a small tmpfs. Nothing is lost, nothing is stored twice, no table is torn, and when
//! space returns everything is stored without anybody's help.
//!
//! Mounting needs root; elsewhere the test says that it was skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rtcstats_server::config::Config;
use rtcstats_server::dump_folder::DumpFolder;
use rtcstats_server::jobs::{Job, JobOutcome, Origin};
use rtcstats_server::metrics::Metrics;
use rtcstats_server::moment::Moment;
use rtcstats_server::workers::{Report, WorkerSettings, Workers};

const DUMPS: usize = 60;
const PATIENCE: Duration = Duration::from_secs(60);

/// A mounted tmpfs; unmounted when it goes.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(path: &'a Path, size: &str) -> Option<Self> {
        std::fs::create_dir(path).unwrap();
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], path).then_some(Self(path))
    }

    fn resize(&self, size: &str) {
        assert!(mount(&["-o", &format!("remount,size={size}")], self.0));
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

fn mount(arguments: &[&str], path: &Path) -> bool {
    let output = Command::new("mount").args(arguments).arg(path).output();
    output.is_ok_and(|output| output.status.success())
}

/// A dump that deflate can hardly shorten.
fn dump(number: usize) -> String {
    let mut state = number as u64 + 1;
    let noise = (0..700).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{state:016x}")
    });
    let noise: String = noise.collect();
    format!(
        "[\"connectionInfo\",null,{{\"userAgent\":\"\",\"clientProtocol\":\"3.1_STANDARD\"}},1700000000000]\n\
         [\"other\",null,\"{noise}\",1700000001000,1]\n"
    )
}

fn archived(day: &Path) -> Vec<String> {
    let mut dumps = Vec::new();
    for entry in std::fs::read_dir(day).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "gz") {
            let mut content = String::new();
            let file = std::fs::File::open(&path).unwrap();
            flate2::read::GzDecoder::new(file).read_to_string(&mut content).unwrap();
            assert!(path.with_extension("json").exists(), "{}", path.display());
            dumps.push(content);
        }
    }
    dumps
}

fn tables_are_whole(day: &Path) {
    for entry in std::fs::read_dir(day.join("records")).into_iter().flatten() {
        let path = entry.unwrap().path();
        let table = std::fs::read_to_string(&path).unwrap();
        assert!(table.is_empty() || table.ends_with('\n'), "{} is torn", path.display());
        let rows: BTreeSet<&str> = table.lines().collect();
        assert_eq!(rows.len(), table.lines().count(), "{} has a row twice", path.display());
        for row in rows {
            serde_json::from_str::<serde_json::Value>(row).unwrap();
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the clock of a deadline")]
fn a_full_archive_disk_delays_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("archive");
    let Some(disk) = Disk::mount(&archive, "256k") else {
        eprintln!("SKIPPED: cannot mount a tmpfs here (needs root)");
        return;
    };
    let (folder, _) = DumpFolder::open(&dir.path().join("temp")).unwrap();
    let folder = Arc::new(folder);
    let mut config = Config::built_in();
    config.archive.path.clone_from(&archive);
    config.workers.threads = 2;
    // And the listing, which waits there until the first thread has started.
    config.workers.queue_jobs_max = DUMPS + 1;
    let settings = WorkerSettings {
        workers: config.workers,
        folder: Arc::clone(&folder),
        archive: config.archive,
        records: config.records,
        privacy: config.privacy,
        limits: config.limits,
        last_heartbeat: None,
    };
    let metrics = Arc::new(Metrics::new(Moment::now(), SystemTime::now()).unwrap());
    let workers = Workers::start(&settings, metrics, Arc::new(|| ())).unwrap();
    for number in 0..DUMPS {
        let name = format!("s{number}");
        std::fs::write(dir.path().join("temp").join(&name), dump(number)).unwrap();
        let name = folder.finish(&name).unwrap();
        let finished_at = SystemTime::now();
        let job = Job { name, size_bytes: 0, finished_at, retries: 0, origin: Origin::Finished };
        workers.submit(job).unwrap();
    }
    let outcomes = |count: usize| -> Vec<JobOutcome> {
        let reports = std::iter::repeat_with(|| workers.reports().recv_timeout(PATIENCE).unwrap());
        let outcomes = reports.filter_map(|report| match report {
            Report::Job(outcome) => Some(outcome),
            Report::Found(_) | Report::RescanComplete { .. } => None,
        });
        outcomes.take(count).collect()
    };

    let (mut stored, mut failed) = (0, Vec::new());
    for outcome in outcomes(DUMPS) {
        match outcome {
            JobOutcome::Stored { .. } => stored += 1,
            JobOutcome::Failed { job, .. } => failed.push(job),
            JobOutcome::Quarantined { .. } | JobOutcome::Panicked { .. } | JobOutcome::Gone { .. } => {
                panic!("{outcome:?}")
            }
        }
    }
    assert!(stored > 0 && !failed.is_empty(), "{stored} stored, {} failed", failed.len());
    let day = archive.join("2023-11-14");
    tables_are_whole(&day);
    let waiting = std::fs::read_dir(dir.path().join("temp/finished")).unwrap().count();
    assert_eq!(waiting, failed.len(), "what is not stored is still there, and nothing else");

    disk.resize("16m");
    let count = failed.len();
    for job in failed {
        workers.submit(job).unwrap();
    }
    for outcome in outcomes(count) {
        assert!(matches!(outcome, JobOutcome::Stored { .. }), "{outcome:?}");
    }
    let _ = workers.shutdown(Moment::now() + PATIENCE);
    let archived = archived(&day);
    assert_eq!(archived.len(), DUMPS);
    let archived: BTreeSet<String> = archived.into_iter().collect();
    let expected: BTreeSet<String> = (0..DUMPS).map(dump).collect();
    assert!(archived == expected, "every dump once, byte for byte");
    tables_are_whole(&day);
    assert_eq!(std::fs::read_dir(dir.path().join("temp/finished")).unwrap().count(), 0);
    let temporary = std::fs::read_dir(&day)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
    assert_eq!(temporary.count(), 0);
}
