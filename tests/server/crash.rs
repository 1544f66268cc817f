//! SIGKILL at random moments under load: what is older than the flush interval is on disk, nothing is there twice.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use crate::support::archive::{file_names, plain_dumps_of};
use crate::support::script::entry_message;
use crate::support::{Rng, Settings, TestServer, Upgrade, WsClient};

const KILLS: usize = 50;
const CLIENTS: usize = 4;
const FLUSH_INTERVAL: Duration = Duration::from_millis(20);

/// What a client knows about its session when the server is gone.
#[derive(Debug)]
struct Witness {
    id: String,
    /// Lines handed to the kernel.
    sent: usize,
    /// Lines that were read by the server, and whose flush interval was over, in a turn that the server has
    /// completed: it has answered two pings since.
    owed: usize,
}

/// Fifty times the server is killed at a random moment and started again in the same folder, so that it is also
/// hit while it recovers and archives. In the end every line that was due is in exactly one dump, in order.
#[test]
fn fifty_kills_lose_nothing_that_was_due() {
    let seed = 0x5eed_0002;
    eprintln!("seed {seed:#x}");
    let mut rng = Rng::new(seed);
    let mut settings = Settings::new().set("dump.flush_interval_ms", FLUSH_INTERVAL.as_millis());
    let mut witnesses = Vec::new();
    for _ in 0..KILLS {
        let server = settings.start();
        let (reports, seen) = channel();
        let moment = rng.between(10, 120) as usize;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (rng, reports, address) = (Rng::new(rng.next()), reports.clone(), server.ingest);
                std::thread::spawn(move || run_client(address, rng, &reports))
            })
            .collect();
        drop(reports);
        // The moment is counted in batches, which makes it random in time.
        assert_eq!(seen.iter().take(moment).count(), moment, "the clients run until the kill");
        settings = server.kill9();
        witnesses.extend(clients.into_iter().flat_map(|client| client.join().unwrap()));
    }

    pardon(&settings.root().join("temp"));
    let server = settings.start();
    let owed: usize = witnesses.iter().map(|witness| witness.owed).sum();
    let sent: usize = witnesses.iter().map(|witness| witness.sent).sum();
    eprintln!("{} sessions, {sent} lines sent, {owed} of them due", witnesses.len());
    assert!(owed > KILLS * 10, "only {owed} lines were due: the test proves nothing");
    for witness in &witnesses {
        server.wait_until("the dump is archived", || {
            plain_dumps_of(&server.dump_path(""), &witness.id).is_empty().then_some(())?;
            plain_dumps_of(&server.dump_path("finished"), &witness.id).is_empty().then_some(())
        });
        check(&server, witness);
    }
    eprintln!("{} dumps are in quarantine", file_names(&server.dump_path("quarantine")).len());
    assert!(server.stop().status.success());
}

/// A job that was killed twice is set aside, as it should be. An operator gives it another chance, and so does this.
fn pardon(temp: &Path) {
    let (finished, quarantine) = (temp.join("finished"), temp.join("quarantine"));
    for name in file_names(&quarantine) {
        fs::rename(quarantine.join(&name), finished.join(&name)).unwrap();
    }
    for mark in file_names(&finished).iter().filter(|name| name.ends_with(".attempt")) {
        fs::remove_file(finished.join(mark)).unwrap();
    }
}

/// All parts of the session together are a beginning of what was sent, at least as long as what is owed.
fn check(server: &TestServer, witness: &Witness) {
    let archived = server.archive().dumps_of(&witness.id);
    let mut parts: Vec<(String, String)> =
        archived.into_iter().map(|dump| (format!("{}/{}.gz", dump.day, dump.name), dump.body)).collect();
    // A job that the kills hit twice is out of the archive's way, but not lost.
    for dump in plain_dumps_of(&server.dump_path("quarantine"), &witness.id) {
        let body = dump.split_once('\n').map_or(String::new(), |(_, body)| body.to_owned());
        parts.push(("quarantine".into(), body));
    }
    let places: Vec<(&str, usize)> =
        parts.iter().map(|(place, body)| (place.as_str(), body.matches('\n').count())).collect();
    let whole: usize = places.iter().map(|(_, lines)| lines).sum();
    assert!(whole >= witness.owed, "too few lines in {places:?}: {witness:?}");
    assert!(whole <= witness.sent, "too many lines in {places:?}: {witness:?}");
    let found: Vec<&str> = parts.iter().flat_map(|(_, body)| body.lines()).collect();
    for (index, found_line) in found.iter().enumerate() {
        let expected = line(&witness.id, index);
        // A kill can tear the line that is being appended, which then is the last.
        let torn = index + 1 == found.len() && expected.starts_with(found_line);
        assert!(
            *found_line == expected || torn,
            "line {index} in {places:?} is {found_line:.100}: {witness:?}"
        );
    }
}

fn line(id: &str, index: usize) -> String {
    format!("[\"crash\",null,\"{}\",{}]", id.repeat(1 + index % 50), 1_700_000_000_000 + index)
}

/// Runs one session after another until the server is gone. Each batch ends with a ping.
fn run_client(address: SocketAddr, mut rng: Rng, reports: &Sender<()>) -> Vec<Witness> {
    let mut witnesses = Vec::new();
    loop {
        let id = rng.uuid();
        let Ok(Ok(mut client)) = WsClient::try_connect(address, &Upgrade::browser(&id)) else {
            return witnesses;
        };
        witnesses.push(Witness { id, sent: 0, owed: 0 });
        let witness = witnesses.last_mut().unwrap();
        for _ in 0..rng.between(5, 60) {
            if run_batch(&mut client, witness, &mut rng, reports).is_err() {
                return witnesses;
            }
        }
    }
}

fn run_batch(
    client: &mut WsClient,
    witness: &mut Witness,
    rng: &mut Rng,
    reports: &Sender<()>,
) -> std::io::Result<()> {
    for _ in 0..rng.between(1, 8) {
        // Counted before it is sent: a part that reached the server may be recorded.
        witness.sent += 1;
        let text = entry_message(&witness.id, &line(&witness.id, witness.sent - 1));
        client.try_send_bytes(&crate::support::frames::message(
            crate::support::frames::TEXT,
            text.as_bytes(),
        ))?;
    }
    client.try_round_trip()?;
    let (read, read_at) = (witness.sent, Instant::now());
    // Now and then wait until the batch is due, in round trips; the server has passed the due time when it answers
    // a ping that was sent after it, and has ended that turn when it answers the next.
    if rng.one_in(4) {
        while read_at.elapsed() < 2 * FLUSH_INTERVAL {
            client.try_round_trip()?;
        }
        client.try_round_trip()?;
        client.try_round_trip()?;
        witness.owed = read;
    }
    // The receiver is gone once it has counted enough.
    let _ = reports.send(());
    Ok(())
}
