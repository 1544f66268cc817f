use super::*;
use std::os::unix::fs::symlink;

use gzip::Gzip;

struct Fixture {
    dir: tempfile::TempDir,
    archive: Archive,
    day: Arc<DayFolder>,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let archive = Archive::new(&dir.path().join("archive"));
    let day = archive.day(Day::of_clock(1_700_000_000_000).unwrap()).unwrap();
    Fixture { dir, archive, day }
}

impl Fixture {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("archive/2023-11-14").join(name)
    }

    fn pack(&self, dump: &[u8]) -> (Temporary, Content) {
        let mut packed = self.archive.temporary(&self.day).unwrap();
        let mut gzip = Gzip::new(1);
        gzip.begin();
        gzip.feed(dump, &mut packed).unwrap();
        let content = gzip.end(&mut packed).unwrap();
        (packed, content)
    }

    /// Archives `dump` as a worker does; the name that it got, and whether it was there already.
    fn archive(&self, name: &str, id: &str, dump: &[u8]) -> (String, bool) {
        let (mut packed, content) = self.pack(dump);
        match self.archive.place(&self.day, name, id, content, Search::Everywhere).unwrap() {
            Place::Archived(slot) => (slot.name().to_owned(), true),
            Place::Free(slot) => {
                let mut document = slot.write_document(&self.archive, slot.name().as_bytes()).unwrap();
                self.day.disk().unwrap().sync().unwrap();
                slot.publish_document(&mut document).unwrap();
                slot.commit(&mut packed).unwrap();
                self.day.sync().unwrap();
                (slot.name().to_owned(), false)
            }
        }
    }

    fn place(&self, content: Content) -> Place {
        self.archive.place(&self.day, "x", "x", content, Search::FreeName).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path(""))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn different_dumps_of_one_name_get_different_names() {
    let fixture = fixture();
    assert_eq!(fixture.archive("x", "x", b"one"), ("x".to_owned(), false));
    assert_eq!(fixture.archive("x", "x", b"two"), ("x_1".to_owned(), false));
    assert_eq!(fixture.archive("x_1", "x", b"three"), ("x_2".to_owned(), false));
    assert_eq!(fixture.archive("x_1", "x_1", b"four"), ("x_1_1".to_owned(), false));
    for (dump, name) in [(&b"one"[..], "x"), (b"two", "x_1"), (b"three", "x_2")] {
        assert_eq!(fixture.archive("x", "x", dump), (name.to_owned(), true), "archived twice");
        assert_eq!(std::fs::read(fixture.path(&format!("{name}.json"))).unwrap(), name.as_bytes());
    }
    assert_eq!(fixture.names().len(), 8, "{:?}", fixture.names());
}

#[test]
fn a_document_without_its_dump_is_replaced() {
    let fixture = fixture();
    std::fs::write(fixture.path("x.json"), "from a crash, and longer than the new one").unwrap();
    assert_eq!(fixture.archive("x", "x", b"one"), ("x".to_owned(), false));
    assert_eq!(std::fs::read(fixture.path("x.json")).unwrap(), b"x");
}

#[test]
fn an_archived_dump_without_its_document_is_told() {
    let fixture = fixture();
    fixture.archive("x", "x", b"one");
    let content = fixture.pack(b"one").1;
    for is_there in [true, false] {
        let place = fixture.archive.place(&fixture.day, "x", "x", content, Search::Everywhere).unwrap();
        let Place::Archived(slot) = place else { panic!("{place:?}") };
        assert_eq!(slot.lacks_document().unwrap(), !is_there);
        std::fs::remove_file(fixture.path("x.json")).unwrap_or(());
    }
}

#[test]
fn links_and_folders_are_names_that_are_taken() {
    let fixture = fixture();
    let target = fixture.dir.path().join("target");
    std::fs::write(&target, "foreign").unwrap();
    symlink(&target, fixture.path("x.gz")).unwrap();
    symlink(&target, fixture.path("x_1.json")).unwrap();
    std::fs::create_dir(fixture.path("x_2.gz")).unwrap();
    rustix::fs::mknodat(&fixture.day, "x_3.json", rustix::fs::FileType::Fifo, beneath::FILE_MODE, 0).unwrap();
    std::fs::write(fixture.path("x_4.gz"), "too short").unwrap();
    assert_eq!(fixture.archive("x", "x", b"one"), ("x_5".to_owned(), false));
    assert_eq!(std::fs::read(&target).unwrap(), b"foreign");
}

#[test]
fn a_link_in_place_of_a_day_is_refused() {
    let fixture = fixture();
    let elsewhere = fixture.dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, fixture.dir.path().join("archive/1970-01-01")).unwrap();
    let error = fixture.archive.day(Day::of_clock(0).unwrap()).unwrap_err();
    assert!(error.to_string().contains("1970-01-01"), "{error}");
}

#[test]
fn a_name_that_is_being_filled_is_nobody_elses() {
    let fixture = fixture();
    let (_packed, content) = fixture.pack(b"one");
    let Place::Free(first) = fixture.place(content) else { panic!() };
    let Place::Free(second) = fixture.place(content) else { panic!() };
    assert_eq!((first.name(), second.name()), ("x", "x_1"));
    drop(first);
    let Place::Free(third) = fixture.place(content) else { panic!() };
    assert_eq!(third.name(), "x");
}

#[test]
fn somebody_who_takes_the_name_before_the_commit_is_not_replaced() {
    let fixture = fixture();
    let (mut packed, content) = fixture.pack(b"one");
    let Place::Free(slot) = fixture.place(content) else { panic!() };
    std::fs::write(fixture.path("x.gz"), "foreign").unwrap();
    let error = slot.commit(&mut packed).unwrap_err();
    assert!(matches!(error, ArchiveError::NameTaken { .. }), "{error}");
    assert_eq!(std::fs::read(fixture.path("x.gz")).unwrap(), b"foreign");
}

#[test]
fn only_temporary_files_that_nobody_holds_are_removed() {
    let fixture = fixture();
    std::fs::write(fixture.path(".rtcstats-1-1.tmp"), "from a crash").unwrap();
    std::fs::write(fixture.path(".1-1.tmp"), "foreign").unwrap();
    let held = fixture.archive.temporary(&fixture.day).unwrap();
    fixture.archive.forget_folders();
    fixture.archive.day(fixture.day.day()).unwrap();
    assert_eq!(fixture.names(), [".1-1.tmp".to_owned(), held.name.clone()]);
    drop(held);
    assert_eq!(fixture.names(), [".1-1.tmp"]);
}

#[test]
fn an_archive_that_was_removed_is_made_again() {
    let fixture = fixture();
    std::fs::remove_dir_all(fixture.dir.path().join("archive")).unwrap();
    fixture.archive.temporary(&fixture.day).unwrap_err();
    fixture.archive.forget_folders();
    let day = fixture.archive.day(fixture.day.day()).unwrap();
    fixture.archive.temporary(&day).unwrap();
}

#[test]
fn many_days_are_served_with_few_descriptors() {
    let fixture = fixture();
    for n in 0..(OPEN_DAYS_MAX as u64 * 3) {
        fixture.archive.day(Day::of_clock(n * 86_400_000).unwrap()).unwrap();
    }
    assert_eq!(fixture.archive.lock_folders().days.len(), OPEN_DAYS_MAX);
}

#[test]
fn an_id_that_is_used_again_and_again_does_not_make_us_look_at_all_its_names() {
    let fixture = fixture();
    let highest = HIGH_PART_MIN + 3;
    for n in 0..=highest {
        fixture.archive("x", "x", n.to_string().as_bytes());
    }
    // A hole: only who looks at every name finds it.
    std::fs::remove_file(fixture.path("x_5.gz")).unwrap();
    let (_packed, content) = fixture.pack(b"new");
    let Place::Free(slot) = fixture.place(content) else { panic!() };
    assert_eq!(slot.name(), format!("x_{}", highest + 1));
    drop(slot);
    assert_eq!(fixture.archive("x", "x", b"7"), ("x_7".to_owned(), true), "who may be there is looked for");
    assert_eq!(fixture.archive("x", "x", b"new"), ("x_5".to_owned(), false));
}
