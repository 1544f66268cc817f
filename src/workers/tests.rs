use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::time::{Duration, SystemTime};

use super::worker::BATCH_JOBS_MAX;
use super::*;
use crate::jobs::{Origin, Step};

/// Called at each point of each job: may fail, panic or wait.
pub(super) type Interrupt = Arc<dyn Fn(&Job, Point) -> Result<(), Failure> + Send + Sync>;

const DAY: &str = "2023-11-14";
const POINTS: [Point; 7] = [
    Point::Marked,
    Point::Extracted,
    Point::Unmarked,
    Point::DocumentPublished,
    Point::Committed,
    Point::RowsAppended,
    Point::Removed,
];
/// No test waits longer for a thread than this before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A dump folder and an archive, with workers that come and go.
struct Site {
    dir: tempfile::TempDir,
    folder: Arc<DumpFolder>,
    archiving: bool,
    threads: usize,
    queue_jobs_max: usize,
    archive_limits: Limits,
    wakes: Arc<AtomicU32>,
    metrics: Arc<Metrics>,
}

fn site() -> Site {
    let dir = tempfile::tempdir().unwrap();
    let (folder, _) = DumpFolder::open(&dir.path().join("temp")).unwrap();
    let metrics = Metrics::new(now(), SystemTime::UNIX_EPOCH).unwrap();
    Site {
        dir,
        folder: Arc::new(folder),
        archiving: true,
        threads: 2,
        queue_jobs_max: 1000,
        archive_limits: Limits::default(),
        wakes: Arc::default(),
        metrics: Arc::new(metrics),
    }
}

impl Site {
    fn shared(&self) -> Shared {
        Shared {
            folder: Arc::clone(&self.folder),
            archive: Archive::new(&self.dir.path().join("archive")),
            upkeep: Upkeep::new(self.archive_limits, None),
            is_archiving: self.archiving,
            records: RecordsStore::default(),
            is_recording: true,
            is_cutting_addresses: false,
            app_environment: String::new(),
            gzip_level: 1,
            limits: ExtractLimits::default(),
            metrics: Arc::clone(&self.metrics),
            in_hand: Mutex::default(),
            threads: self.threads,
            in_work: AtomicUsize::new(0),
            suspects: Mutex::default(),
            is_stopping: AtomicBool::new(false),
            is_rescan_wanted: AtomicBool::new(false),
            interrupt: None,
        }
    }

    fn start_shared(&self, shared: Shared) -> Running {
        let wakes = Arc::clone(&self.wakes);
        let wake: Wake = Arc::new(move || {
            wakes.fetch_add(1, Ordering::Relaxed);
        });
        Running { workers: Workers::start_shared(shared, self.queue_jobs_max, wake).unwrap() }
    }

    fn start(&self) -> Running {
        self.start_shared(self.shared())
    }

    fn start_with(
        &self,
        interrupt: impl Fn(&Job, Point) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Running {
        self.start_shared(Shared { interrupt: Some(Arc::new(interrupt)), ..self.shared() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a dump where the loop puts it.
    fn finish(&self, name: &str, content: &str) -> Job {
        let path = self.path("temp").join(name);
        std::fs::write(&path, content).unwrap();
        // Rows tell the time of the last write, and are compared.
        let written = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_100);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(written).unwrap();
        job_of(&self.folder.finish(name).unwrap(), content.len() as u64)
    }

    /// Every dump of the archive, unpacked, by its path in it.
    fn archived(&self) -> BTreeMap<String, String> {
        let mut dumps = BTreeMap::new();
        for day in names(&self.path("archive")) {
            let folder = self.path("archive").join(&day);
            for name in names(&folder).into_iter().filter(|name| name.ends_with(".gz")) {
                let mut content = String::new();
                let file = std::fs::File::open(folder.join(&name)).unwrap();
                flate2::read::GzDecoder::new(file).read_to_string(&mut content).unwrap();
                let document = folder.join(name.replace(".gz", ".json"));
                let document: serde_json::Value =
                    serde_json::from_slice(&std::fs::read(document).unwrap()).unwrap();
                assert_eq!(document["dumpMetadata"]["dumpId"], name.as_str());
                assert_eq!(document["dumpMetadata"]["dumpPath"], format!("{day}/{name}"));
                dumps.insert(format!("{day}/{name}"), content);
            }
        }
        dumps
    }

    /// The value of a metric without labels.
    fn metric(&self, name: &str) -> f64 {
        let text = self.metrics.render(now()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    fn rows(&self) -> Vec<String> {
        let folder = self.path("archive").join(DAY).join("records");
        let mut rows: Vec<String> = names(&folder)
            .iter()
            .flat_map(|table| {
                let text = std::fs::read_to_string(folder.join(table)).unwrap();
                assert!(text.is_empty() || text.ends_with('\n'), "{table} is torn");
                text.lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect();
        rows.sort();
        rows
    }
}

#[expect(clippy::disallowed_methods, reason = "threads run, so their tests have deadlines")]
fn now() -> Moment {
    Moment::now()
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn job_of(name: &str, size_bytes: u64) -> Job {
    let finished_at = SystemTime::UNIX_EPOCH;
    Job { name: name.to_owned(), size_bytes, finished_at, retries: 0, origin: Origin::Finished }
}

fn dump(id: &str) -> String {
    format!(
        concat!(
            "[\"connectionInfo\",null,{{\"userAgent\":\"\",\"clientProtocol\":\"3.1_STANDARD\",",
            "\"server\":{{\"id\":\"{}\"}}}},1700000000000]\n",
            "[\"identity\",null,{{\"confName\":\"c\"}},1700000000001,1]\n",
            "[\"other\",\"PC_0\",null,1700000001000,2]\n"
        ),
        id
    )
}

/// Workers and what they have reported.
struct Running {
    workers: Workers,
}

impl Running {
    fn submit(&self, job: Job) {
        assert_eq!(self.workers.submit(job), Ok(Submitted::Accepted));
    }

    fn next(&self) -> Report {
        self.workers.reports().recv_timeout(PATIENCE).expect("the workers have something to say")
    }

    /// The next outcome of a job; what rescans report is submitted as the loop does it.
    fn outcome(&self) -> JobOutcome {
        loop {
            match self.next() {
                Report::Job(outcome) => return outcome,
                Report::Found(jobs) => jobs.into_iter().for_each(|job| self.submit(job)),
                Report::RescanComplete { .. } => {}
            }
        }
    }

    /// Waits for the end of a rescan; the jobs that were found are submitted.
    fn rescanned(&self) -> u64 {
        loop {
            match self.next() {
                Report::Found(jobs) => jobs.into_iter().for_each(|job| self.submit(job)),
                Report::RescanComplete { jobs } => return jobs,
                Report::Job(outcome) => panic!("{outcome:?} during the rescan"),
            }
        }
    }

    fn is_stored(&self) -> bool {
        let outcome = self.outcome();
        let JobOutcome::Stored { errored, .. } = outcome else { panic!("{outcome:?}") };
        !errored
    }

    fn shutdown(self) -> Leftover {
        self.workers.shutdown(now() + PATIENCE)
    }
}

const NOTHING_LEFT: Leftover = Leftover { queued: 0, in_work: 0 };

#[test]
fn a_finished_dump_ends_in_the_archive_and_nowhere_else() {
    let site = site();
    let content = dump("s");
    let running = site.start();
    running.rescanned();
    running.submit(site.finish("s", &content));
    assert!(running.is_stored());
    assert_eq!(running.shutdown(), NOTHING_LEFT);
    assert_eq!(site.archived(), BTreeMap::from([(format!("{DAY}/s.gz"), content)]));
    assert_eq!(site.rows().len(), 2, "the meeting and its peer connection");
    assert_eq!(names(&site.path("temp/finished")), [""; 0]);
    assert_eq!(names(&site.path("archive").join(DAY)), ["records", "s.gz", "s.json"]);
    assert!(site.wakes.load(Ordering::Relaxed) >= 2, "the loop was woken");
    assert_eq!(site.metric("rtcstats_files_processed"), 1.0);
    assert_eq!(site.metric("rtcstats_files_errored"), 0.0);
    assert_eq!(site.metric("rtcstats_dump_size_sum"), dump("s").len() as f64);
    assert_eq!(site.metric("rtcstats_processing_time_count"), 1.0);
}

#[test]
fn without_an_archive_a_processed_dump_is_removed() {
    let site = Site { archiving: false, ..site() };
    let running = site.start();
    running.submit(site.finish("s", &dump("s")));
    assert!(running.is_stored());
    assert_eq!(running.shutdown(), NOTHING_LEFT);
    assert!(site.archived().is_empty());
    assert_eq!(site.rows().len(), 2);
    assert_eq!(names(&site.path("temp/finished")), [""; 0]);
}

#[test]
fn a_dump_that_cannot_be_understood_is_archived_all_the_same() {
    for content in ["", "\n", "garbage", "[\"connectionInfo\"", "\u{0}\u{0}", "[]\n{}\n"] {
        let site = site();
        let running = site.start();
        running.submit(site.finish("s", content));
        let is_good = running.is_stored();
        assert!(!is_good || content.is_empty() || content == "[]\n{}\n", "{content:?}");
        assert_eq!(site.metric("rtcstats_files_errored"), f64::from(!is_good), "{content:?}");
        assert_eq!(running.shutdown(), NOTHING_LEFT);
        let archived: Vec<String> = site.archived().into_values().collect();
        assert_eq!(archived, [content]);
    }
}

#[test]
fn every_dump_of_many_is_stored_once() {
    let site = site();
    let running = site.start();
    running.rescanned();
    let mut expected = BTreeMap::new();
    for n in 0..200 {
        let name = format!("s{}", n % 50);
        let content = dump(&name) + &format!("[\"n\",null,{n},1700000002000,{}]\n", n + 3);
        running.submit(site.finish(&name, &content));
        expected.insert(content, ());
    }
    for _ in 0..200 {
        assert!(running.is_stored());
    }
    assert_eq!(running.shutdown(), NOTHING_LEFT);
    let archived: BTreeMap<String, ()> = site.archived().into_values().map(|content| (content, ())).collect();
    assert_eq!(site.archived().len(), 200);
    let rows = site.rows();
    assert_eq!(rows.len(), 400);
    let ids = rows.iter().map(|row| row.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap());
    assert_eq!(ids.collect::<std::collections::BTreeSet<_>>().len(), 400, "dumps of one name share no ids");
    assert!(archived == expected);
    assert_eq!(names(&site.path("temp/finished")), [""; 0]);
}

/// The process ends at every point of a job; the next one finishes it: one archive, one set of rows.
#[test]
fn a_crash_anywhere_loses_nothing_and_stores_nothing_twice() {
    for archiving in [true, false] {
        let expected = {
            let site = Site { archiving, ..site() };
            let running = site.start();
            running.submit(site.finish("s", &dump("s")));
            running.is_stored();
            (site.archived(), site.rows())
        };
        for crash in POINTS {
            assert_eq!(after_a_crash(archiving, crash), expected, "crash at {crash:?}");
        }
    }
}

/// As above, and between the two the archived dump goes, to make room: its rows, which stay, are not stored again.
#[test]
fn a_dump_that_was_cut_after_a_crash_has_its_rows_once() {
    let limits = Limits { max_age_days: 0, max_bytes: u64::MAX };
    let site = Site { threads: 1, archive_limits: limits, ..site() };
    crash(&site, Point::RowsAppended);
    let rows = site.rows();
    for name in ["s.gz", "s.json"] {
        std::fs::remove_file(site.path("archive").join(DAY).join(name)).unwrap();
    }
    let running = site.start();
    assert_eq!(running.rescanned(), 1);
    running.is_stored();
    assert!(!rows.is_empty());
    assert_eq!(site.rows(), rows);
    assert_eq!(site.archived().len(), 1);
}

#[test]
fn a_look_at_the_archive_that_panics_is_a_failure_and_not_the_last() {
    let site = site();
    let mut keeper = Keeper::new(Arc::new(site.shared()));
    assert!(keeper.look(|_, _| panic!("on purpose")));
    assert_eq!(site.metric("rtcstats_archive_removal_errors_total"), 1.0);
    assert!(!keeper.look(Keeper::keep));
    assert_eq!(site.metric("rtcstats_archive_removal_errors_total"), 1.0);
}

/// Runs one job with a crash at `crash`, and once more to its end.
fn after_a_crash(archiving: bool, crash: Point) -> (BTreeMap<String, String>, Vec<String>) {
    let site = Site { archiving, threads: 1, ..site() };
    self::crash(&site, crash);
    let is_marked = names(&site.path("temp/finished")).contains(&"s.attempt".to_owned());
    assert_eq!(is_marked, matches!(crash, Point::Marked | Point::Extracted), "crash at {crash:?}");

    let running = site.start();
    if running.rescanned() > 0 {
        running.is_stored();
    }
    assert_eq!(running.shutdown(), NOTHING_LEFT);
    assert_eq!(names(&site.path("temp/finished")), [""; 0], "crash at {crash:?}");
    assert_eq!(names(&site.path("temp/quarantine")), [""; 0], "crash at {crash:?}");
    (site.archived(), site.rows())
}

/// Runs the job of `s` until it crashes at `crash`.
fn crash(site: &Site, crash: Point) {
    let (reached, is_reached) = bounded(1);
    let dying = site.start_with(move |_, point| {
        if point == crash {
            reached.send(()).unwrap();
            // A thread that stops here for good is, for the disk, a process that died here.
            loop {
                thread::park();
            }
        }
        Ok(())
    });
    dying.submit(site.finish("s", &dump("s")));
    is_reached.recv_timeout(PATIENCE).expect("the job gets there");
}

#[test]
fn a_job_that_panics_twice_goes_to_quarantine() {
    let site = site();
    let running = site.start_with(|job, point| {
        assert!(job.name != "bad" || point != Point::Extracted, "as this test wants it");
        Ok(())
    });
    running.rescanned();
    running.submit(site.finish("bad", &dump("bad")));
    let outcome = running.outcome();
    let JobOutcome::Panicked { job } = outcome else { panic!("{outcome:?}") };
    assert_eq!(names(&site.path("temp/finished")), ["bad", "bad.attempt"]);

    running.submit(job);
    let outcome = running.outcome();
    assert!(matches!(outcome, JobOutcome::Quarantined { .. }), "{outcome:?}");
    assert_eq!(std::fs::read_to_string(site.path("temp/quarantine/bad")).unwrap(), dump("bad"));
    assert_eq!(names(&site.path("temp/finished")), [""; 0]);
    assert_eq!(names(&site.path("archive").join(DAY)), [""; 0], "no temporary file is left");

    // The worker lives on, and the next bad dump of that name does not replace the one in quarantine.
    running.submit(site.finish("good", &dump("good")));
    assert!(running.is_stored());
    for _ in 0..2 {
        let job = match names(&site.path("temp/finished")).as_slice() {
            [] => site.finish("bad", &dump("bad")),
            _ => job_of("bad", 0),
        };
        running.submit(job);
        running.outcome();
    }
    assert_eq!(names(&site.path("temp/quarantine")), ["bad", "bad_1"]);
    assert_eq!(site.metric("rtcstats_files_errored"), 2.0);
    assert_eq!(running.shutdown(), NOTHING_LEFT);
}

#[test]
fn a_job_that_fails_does_not_take_its_batch_along() {
    let names_of_jobs: Vec<String> = (0..BATCH_JOBS_MAX * 2).map(|n| format!("s{n}")).collect();
    for point in POINTS {
        let site = Site { threads: 1, ..site() };
        let is_first = AtomicBool::new(true);
        let (all_are_submitted, gate) = bounded(1);
        let running = site.start_with(move |job, reached| {
            if job.name == "s0" && reached == Point::Marked {
                gate.recv().expect("the test submits");
            }
            if job.name == "s7" && reached == point && is_first.swap(false, Ordering::Relaxed) {
                return Err(Failure { step: Step::Archive, error: "as this test wants it".to_owned() });
            }
            Ok(())
        });
        running.rescanned();
        for name in &names_of_jobs {
            running.submit(site.finish(name, &dump(name)));
        }
        all_are_submitted.send(()).unwrap();
        let mut failed = None;
        for _ in &names_of_jobs {
            match running.outcome() {
                JobOutcome::Stored { .. } => {}
                JobOutcome::Failed { job, .. } => assert!(failed.replace(job).is_none()),
                outcome @ (JobOutcome::Quarantined { .. }
                | JobOutcome::Panicked { .. }
                | JobOutcome::Gone { .. }) => {
                    panic!("{outcome:?}")
                }
            }
        }
        running.submit(failed.unwrap());
        let outcome = running.outcome();
        let is_done = matches!(outcome, JobOutcome::Stored { .. } | JobOutcome::Gone { .. });
        assert!(is_done, "{outcome:?}");
        assert_eq!(running.shutdown(), NOTHING_LEFT);
        let expected = names_of_jobs.iter().map(|name| (format!("{DAY}/{name}.gz"), dump(name))).collect();
        assert_eq!(site.archived(), expected, "{point:?}");
        assert_eq!(site.rows().len(), 2 * names_of_jobs.len(), "{point:?}");
        assert_eq!(names(&site.path("temp/finished")), [""; 0], "{point:?}");
    }
}

/// Only reading a dump can be its fault. What comes after is tried again, but not at once and not for ever faster.
#[test]
fn a_panic_while_storing_is_no_death() {
    let site = Site { threads: 1, ..site() };
    let panics = AtomicU32::new(3);
    let running = site.start_with(move |_, point| {
        let is_due = point == Point::Committed
            && panics.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        assert!(!is_due, "as this test wants it");
        Ok(())
    });
    running.rescanned();
    let mut job = site.finish("s", &dump("s"));
    for expected in [1, 2, 4] {
        running.submit(job);
        let outcome = running.outcome();
        let JobOutcome::Failed { job: failed, retry_after, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(retry_after, Duration::from_secs(expected));
        assert_eq!(names(&site.path("temp/finished")), ["s"]);
        job = failed;
    }
    running.submit(job);
    assert!(running.is_stored());
    assert_eq!(running.shutdown(), NOTHING_LEFT);
    assert_eq!(site.archived(), BTreeMap::from([(format!("{DAY}/s.gz"), dump("s"))]), "byte for byte");
    assert_eq!(site.rows().len(), 2);
}

#[test]
fn a_dump_that_killed_two_servers_is_not_read_again() {
    let site = site();
    for marks in ["x", "xx"] {
        site.finish("bad", &dump("bad"));
        std::fs::write(site.path("temp/finished/bad.attempt"), marks).unwrap();
        let running = site.start_with(|_, point| {
            assert_ne!(point, Point::Extracted, "as this test wants it");
            Ok(())
        });
        let outcome = running.outcome();
        assert!(matches!(outcome, JobOutcome::Quarantined { .. }), "{outcome:?}");
        assert_eq!(names(&site.path("temp/finished")), [""; 0]);
    }
    assert_eq!(names(&site.path("temp/quarantine")), ["bad", "bad_1"]);
}

#[test]
fn an_archive_that_cannot_be_written_is_tried_again() {
    let site = site();
    std::fs::write(site.path("archive"), "a file in place of the folder").unwrap();
    let running = site.start();
    running.rescanned();
    let mut job = site.finish("s", &dump("s"));
    for expected in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        running.submit(job);
        let outcome = running.outcome();
        let JobOutcome::Failed { job: failed, step, retry_after, error } = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!((step, retry_after), (Step::Archive, Duration::from_secs(expected)), "{error}");
        assert!(error.contains("archive"), "{error}");
        assert_eq!(names(&site.path("temp/finished")), ["s"], "not marked: this was no death");
        job = failed;
    }
    assert_eq!(site.metric("rtcstats_storage_error_count"), 11.0);
    std::fs::remove_file(site.path("archive")).unwrap();
    running.submit(job);
    assert!(running.is_stored());
    assert_eq!(running.shutdown(), NOTHING_LEFT);
    assert_eq!(site.archived(), BTreeMap::from([(format!("{DAY}/s.gz"), dump("s"))]), "byte for byte");
    assert_eq!(names(&site.path("temp/quarantine")), [""; 0]);
}

#[test]
fn records_that_cannot_be_written_are_tried_again_without_a_second_archive() {
    let site = site();
    let running = site.start();
    running.rescanned();
    let records = site.path("archive").join(DAY).join("records");
    std::fs::create_dir_all(records.parent().unwrap()).unwrap();
    std::fs::write(&records, "a file in place of the folder").unwrap();
    running.submit(site.finish("s", &dump("s")));
    let outcome = running.outcome();
    let JobOutcome::Failed { job, step, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(step, Step::Records);
    std::fs::remove_file(&records).unwrap();
    running.submit(job);
    assert!(running.is_stored());
    assert_eq!(running.shutdown(), NOTHING_LEFT);
    assert_eq!(site.archived(), BTreeMap::from([(format!("{DAY}/s.gz"), dump("s"))]), "byte for byte");
    assert_eq!(site.rows().len(), 2);
}

#[test]
fn what_is_no_dump_is_left_alone() {
    let site = site();
    let finished = site.path("temp/finished");
    let target = site.path("target");
    std::fs::write(&target, "foreign").unwrap();
    std::os::unix::fs::symlink(&target, finished.join("link")).unwrap();
    rustix::fs::mknodat(
        site.folder.finished(),
        "fifo",
        rustix::fs::FileType::Fifo,
        crate::beneath::FILE_MODE,
        0,
    )
    .unwrap();
    std::fs::create_dir(finished.join("folder")).unwrap();
    std::fs::write(finished.join("not a dump"), "").unwrap();
    std::fs::write(finished.join("orphan.attempt"), "x").unwrap();
    let running = site.start();
    assert_eq!(running.rescanned(), 0);
    for name in ["link", "fifo", "folder", "none"] {
        running.submit(job_of(name, 0));
        let outcome = running.outcome();
        assert!(matches!(outcome, JobOutcome::Gone { .. }), "{name}: {outcome:?}");
    }
    assert_eq!(names(&finished), ["fifo", "folder", "link", "not a dump"], "but the orphaned mark is gone");
    assert_eq!(std::fs::read(&target).unwrap(), b"foreign");
    assert_eq!(running.shutdown(), NOTHING_LEFT);
}

/// Starts workers of one thread, and submits jobs of these names so that they make up one batch: the first waits at its
/// first point until the others are in the queue. `interrupt` is called behind that.
fn batch_of(
    site: &Site,
    dump_names: &'static [&str],
    interrupt: impl Fn(&Job, Point) -> Result<(), Failure> + Send + Sync + 'static,
) -> Running {
    let (entered, entries) = bounded(100);
    let (let_go, gate) = bounded::<()>(100);
    let first = dump_names[0];
    let running = site.start_with(move |job, point| {
        if job.name == first && point == Point::Marked && job.retries == 0 {
            let _ = entered.send(());
            let _ = gate.recv();
        }
        interrupt(job, point)
    });
    running.rescanned();
    for (at, name) in dump_names.iter().enumerate() {
        running.submit(site.finish(name, &dump(name)));
        if at == 0 {
            entries.recv_timeout(PATIENCE).unwrap();
        }
    }
    // Later attempts find the gate open.
    drop(let_go);
    running
}

const BATCH: &[&str] = &["s0", "s1", "s2", "s3"];

/// Rows of a batch are appended together. When one table cannot be written, others may have been: what is tried again finds
/// them.
#[test]
fn a_batch_of_which_one_table_cannot_be_written_has_its_rows_once_in_the_end() {
    let records = |site: &Site| site.path("archive").join(DAY).join("records");
    let site_of_one_worker = || Site { threads: 1, ..site() };
    let site = site_of_one_worker();
    let running = batch_of(&site, BATCH, |_, _| Ok(()));
    BATCH.iter().for_each(|_| assert!(running.is_stored()));
    let (expected, tables) = ((site.archived(), site.rows()), names(&records(&site)));
    assert!(tables.len() > 1, "{tables:?}");
    for table in tables {
        let site = site_of_one_worker();
        let in_the_way = records(&site).join(&table);
        std::fs::create_dir_all(&in_the_way).unwrap();
        let running = batch_of(&site, BATCH, |_, _| Ok(()));
        let jobs: Vec<Job> = BATCH
            .iter()
            .map(|_| {
                let outcome = running.outcome();
                let JobOutcome::Failed { job, step, .. } = outcome else { panic!("{table}: {outcome:?}") };
                assert_eq!(step, Step::Records);
                job
            })
            .collect();
        std::fs::remove_dir(&in_the_way).unwrap();
        jobs.into_iter().for_each(|job| running.submit(job));
        BATCH.iter().for_each(|_| assert!(running.is_stored()));
        assert_eq!(running.shutdown(), NOTHING_LEFT);
        assert_eq!((site.archived(), site.rows()), expected, "{table}");
    }
}

/// The process ends at every point of every job of a batch; the next one finishes them: each once, with its rows.
#[test]
fn a_crash_anywhere_in_a_batch_loses_nothing_and_stores_nothing_twice() {
    let undisturbed = |archiving| {
        let site = Site { archiving, threads: 1, ..site() };
        let running = batch_of(&site, BATCH, |_, _| Ok(()));
        BATCH.iter().for_each(|_| assert!(running.is_stored()));
        (site.archived(), site.rows())
    };
    for archiving in [true, false] {
        let expected = undisturbed(archiving);
        assert_eq!((expected.0.len(), expected.1.len()), (if archiving { 4 } else { 0 }, 8));
        for crash in POINTS {
            for victim in BATCH {
                let after = after_a_crash_in_a_batch(archiving, victim, crash);
                assert_eq!(after, expected, "crash at {crash:?} of {victim}");
            }
        }
    }
}

fn after_a_crash_in_a_batch(
    archiving: bool,
    victim: &'static str,
    crash: Point,
) -> (BTreeMap<String, String>, Vec<String>) {
    let site = Site { archiving, threads: 1, ..site() };
    let (reached, is_reached) = bounded(1);
    let dying = batch_of(&site, BATCH, move |job, point| {
        if point == crash && job.name == victim {
            reached.send(()).unwrap();
            // A thread that stops here for good is, for the disk, a process that died here.
            loop {
                thread::park();
            }
        }
        Ok(())
    });
    is_reached.recv_timeout(PATIENCE).expect("the batch gets there");
    drop(dying);
    let marks = names(&site.path("temp/finished")).into_iter().filter(|name| name.ends_with(".attempt"));
    let is_marked = matches!(crash, Point::Marked | Point::Extracted);
    assert_eq!(
        marks.count(),
        usize::from(is_marked),
        "only who is being read is blamed: {crash:?} of {victim}"
    );

    let running = site.start();
    (0..running.rescanned()).for_each(|_| assert!(running.is_stored()));
    assert_eq!(running.shutdown(), NOTHING_LEFT);
    assert_eq!(names(&site.path("temp/finished")), [""; 0], "crash at {crash:?} of {victim}");
    assert_eq!(names(&site.path("temp/quarantine")), [""; 0], "crash at {crash:?} of {victim}");
    (site.archived(), site.rows())
}

#[test]
fn a_job_that_panics_takes_no_other_of_its_batch_with_it() {
    for panicking in POINTS.into_iter().filter(|point| *point != Point::Removed) {
        let site = Site { threads: 1, ..site() };
        let is_first = AtomicBool::new(true);
        let running = batch_of(&site, BATCH, move |job, point| {
            let is_due = job.name == "s1" && point == panicking && is_first.swap(false, Ordering::Relaxed);
            assert!(!is_due, "as this test wants it");
            Ok(())
        });
        let mut panicked = None;
        for _ in BATCH {
            let outcome = running.outcome();
            if let JobOutcome::Panicked { job } | JobOutcome::Failed { job, .. } = outcome {
                panicked = Some(job);
            } else {
                assert!(
                    matches!(&outcome, JobOutcome::Stored { job, .. } if job.name != "s1"),
                    "{outcome:?}"
                );
            }
        }
        running.submit(panicked.expect("the panic is told"));
        assert!(running.is_stored(), "{panicking:?}");
        assert_eq!(running.shutdown(), NOTHING_LEFT);
        assert_eq!(site.archived().len(), BATCH.len(), "{panicking:?}");
        assert_eq!(site.rows().len(), 2 * BATCH.len(), "{panicking:?}");
        assert_eq!(names(&site.path("temp/finished")), [""; 0], "{panicking:?}");
    }
}

/// What a power cut can leave on a file system that keeps no order.
#[test]
fn an_archived_dump_gets_its_lost_document_again() {
    let site = site();
    let running = site.start();
    running.rescanned();
    running.submit(site.finish("s", &dump("s")));
    assert!(running.is_stored());
    let document = site.path("archive").join(DAY).join("s.json");
    let before = std::fs::read(&document).unwrap();
    std::fs::remove_file(&document).unwrap();
    site.finish("s", &dump("s"));
    running.workers.rescan();
    assert!(running.is_stored());
    assert_eq!(running.shutdown(), NOTHING_LEFT);
    assert_eq!(std::fs::read(&document).unwrap(), before);
    assert_eq!(site.archived().len(), 1);
    assert_eq!(site.rows().len(), 2, "not twice");
}

/// Kills in quick succession would else meet the same dump each time, until that is in quarantine.
#[test]
fn jobs_that_died_before_are_the_last_of_a_listing() {
    let site = Site { threads: 2, ..site() };
    let running = site.start();
    running.rescanned();
    for n in 0..300 {
        site.finish(&format!("s{n:03}"), &dump("s"));
    }
    for name in ["s000", "s001", "s150", "s299"] {
        std::fs::write(site.path("temp/finished").join(format!("{name}.attempt")), "x").unwrap();
    }
    running.workers.rescan();
    let (mut found, mut complete) = (Vec::new(), false);
    while !complete {
        match running.next() {
            Report::Found(jobs) => found.extend(jobs),
            Report::RescanComplete { jobs } => complete = jobs == 300,
            Report::Job(outcome) => panic!("{outcome:?} before anything was submitted"),
        }
    }
    assert_eq!(found.len(), 300);
    let mut suspects: Vec<String> = found[296..].iter().map(|job| job.name.clone()).collect();
    suspects.sort();
    assert_eq!(suspects, ["s000", "s001", "s150", "s299"]);
    assert_eq!(running.shutdown(), NOTHING_LEFT);
}

/// Two threads and many suspects: the death of one must not be counted against another.
#[test]
fn only_one_dump_that_died_before_is_read_at_a_time() {
    let site = Site { threads: 2, ..site() };
    let suspects: Vec<String> = (0..20).map(|n| format!("s{n}")).collect();
    let (marked, marks) = bounded(100);
    let finished = site.path("temp/finished");
    let running = site.start_with(move |job, point| {
        // Two marks: one of the death before, one of the attempt that runs.
        let is_marked_twice =
            |name: &String| std::fs::read(finished.join(name)).is_ok_and(|marks| marks.len() == 2);
        if point == Point::Extracted {
            let names = names(&finished).into_iter().filter(|name| name.ends_with(".attempt"));
            marked.send((job.name.clone(), names.filter(is_marked_twice).collect::<Vec<_>>())).unwrap();
        }
        Ok(())
    });
    running.rescanned();
    let jobs = suspects.iter().map(|name| {
        std::fs::write(site.path("temp/finished").join(format!("{name}.attempt")), "x").unwrap();
        site.finish(name, &dump(name))
    });
    jobs.collect::<Vec<_>>().into_iter().for_each(|job| running.submit(job));
    suspects.iter().for_each(|_| assert!(running.is_stored()));
    assert_eq!(running.shutdown(), NOTHING_LEFT);
    for (name, blamed) in marks.try_iter() {
        assert_eq!(blamed, [format!("{name}.attempt")]);
    }
    assert_eq!(names(&site.path("temp/finished")), [""; 0]);
}

/// Workers of which every job waits at its first point until it is let go.
fn held(site: &Site) -> (Running, Receiver<String>, Sender<()>) {
    let (entered, entries) = bounded(100);
    let (let_go, gate) = bounded::<()>(100);
    let running = site.start_with(move |job, point| {
        if point == Point::Marked {
            entered.send(job.name.clone()).unwrap();
            gate.recv().expect("the test lets it go");
        }
        Ok(())
    });
    running.rescanned();
    (running, entries, let_go)
}

#[test]
fn a_full_queue_gives_the_job_back_and_loses_nothing() {
    let site = Site { threads: 1, queue_jobs_max: 2, ..site() };
    let (running, entries, let_go) = held(&site);
    assert!(!running.workers.is_busy());
    running.submit(site.finish("s0", &dump("s0")));
    entries.recv_timeout(PATIENCE).unwrap();
    assert_eq!((running.workers.in_work(), running.workers.is_busy()), (1, true));
    for name in ["s1", "s2"] {
        running.submit(site.finish(name, &dump(name)));
    }
    assert_eq!(running.workers.queued(), 2);
    let refused = running.workers.submit(site.finish("s3", &dump("s3"))).unwrap_err();
    assert_eq!(refused.name, "s3");
    // What has no place in the queue is found again on disk; what is in hand is not.
    running.workers.rescan();
    for _ in 0..3 {
        let_go.send(()).unwrap();
    }
    let (mut stored, mut found, mut complete) = (0, Vec::new(), false);
    while stored < 3 || !complete {
        match running.next() {
            Report::Job(outcome) => {
                assert!(matches!(outcome, JobOutcome::Stored { .. }), "{outcome:?}");
                stored += 1;
            }
            Report::Found(jobs) => found.extend(jobs),
            Report::RescanComplete { jobs } => {
                assert_eq!(jobs, 1);
                complete = true;
            }
        }
    }
    assert_eq!((found[0].name.as_str(), found[0].origin), ("s3", Origin::Found));
    let_go.send(()).unwrap();
    running.submit(found.remove(0));
    assert!(running.is_stored());
    assert_eq!(running.shutdown(), NOTHING_LEFT);
    assert_eq!(site.archived().len(), 4);
}

#[test]
fn a_job_in_hand_is_not_begun_twice_but_a_new_dump_of_its_name_is_not_forgotten() {
    let site = site();
    let (entered, entries) = bounded(100);
    let (let_go, gate) = bounded::<()>(100);
    let running = site.start_with(move |_, point| {
        if point == Point::Removed {
            entered.send(()).unwrap();
            gate.recv().expect("the test lets it go");
        }
        Ok(())
    });
    running.rescanned();
    running.submit(site.finish("s", &dump("first")));
    entries.recv_timeout(PATIENCE).unwrap();
    // The dump is removed, the job is not over: the name is free for the next session of this id.
    let second = site.finish("s", &dump("second"));
    assert_eq!(second.name, "s");
    running.submit(second.clone());
    assert_eq!(running.workers.submit(second.clone()), Ok(Submitted::Merged(second)));
    assert_eq!(running.workers.queued(), 0);
    let_go.send(()).unwrap();
    let_go.send(()).unwrap();
    assert!(running.is_stored());
    assert!(running.is_stored());
    assert_eq!(running.shutdown(), NOTHING_LEFT);
    let archived: Vec<String> = site.archived().into_values().collect();
    assert_eq!(archived, [dump("first"), dump("second")]);
}

#[test]
fn a_stop_lets_running_jobs_end_and_begins_no_others() {
    let site = Site { threads: 1, ..site() };
    let (mut running, entries, let_go) = held(&site);
    for name in ["s0", "s1"] {
        running.submit(site.finish(name, &dump(name)));
    }
    entries.recv_timeout(PATIENCE).unwrap();
    running.workers.stop();
    running.workers.submit(job_of("s2", 0)).unwrap_err();
    assert!(!running.workers.is_stopped());
    let_go.send(()).unwrap();
    assert_eq!(running.shutdown(), Leftover { queued: 1, in_work: 0 });
    assert_eq!(site.archived().len(), 1);
    assert_eq!(names(&site.path("temp/finished")), ["s1"]);
}

#[test]
fn a_stuck_job_does_not_hold_up_the_end_and_is_not_blamed() {
    let site = site();
    let (running, entries, _let_go) = held(&site);
    running.submit(site.finish("stuck", &dump("stuck")));
    entries.recv_timeout(PATIENCE).unwrap();
    assert_eq!(names(&site.path("temp/finished")), ["stuck", "stuck.attempt"]);
    assert_eq!(running.workers.shutdown(now()), Leftover { queued: 0, in_work: 1 });
    assert_eq!(names(&site.path("temp/finished")), ["stuck"]);
}
