//! Passed sockets: a restart refuses nobody.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::kills::scaled;
use crate::support::{Rng, Upgrade, WsClient};

const RESTARTS: u64 = 20;

/// Twenty restarts under a storm of connects, while somebody else (systemd; here the test) holds the listening sockets.
/// No connect is refused. Whoever is answered by the server that goes is told to come again, in words.
#[test]
fn restarts_refuse_no_connection() {
    let socket = || Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let (ingest, metrics) = (socket(), socket());
    let address = ingest.local_addr().unwrap();
    let mut server = scaled().sockets(Arc::clone(&ingest), Arc::clone(&metrics)).start();
    let is_over = AtomicBool::new(false);
    let [greeted, sent_away, broken, refused] = [const { AtomicU64::new(0) }; 4];
    // The last server must outlive the storm.
    let server = std::thread::scope(|scope| {
        for seed in 0..4 {
            let (is_over, greeted, sent_away, broken, refused) =
                (&is_over, &greeted, &sent_away, &broken, &refused);
            scope.spawn(move || {
                let mut rng = Rng::new(80 + seed);
                while !is_over.load(Ordering::Relaxed) {
                    let outcome = match WsClient::try_connect(address, &Upgrade::browser(&rng.uuid())) {
                        Ok(Ok(_)) => greeted,
                        Ok(Err(answer)) if answer.status == 503 => sent_away,
                        Ok(Err(answer)) => panic!("{answer:?}"),
                        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => refused,
                        Err(error) => {
                            eprintln!("broken: {error:?}");
                            broken
                        }
                    };
                    outcome.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut rng = Rng::new(90);
        for _ in 0..RESTARTS {
            crate::pass(Duration::from_millis(rng.between(5, 60)));
            server = server.restart();
        }
        is_over.store(true, Ordering::Relaxed);
        server
    });
    let count = |outcome: &AtomicU64| outcome.load(Ordering::Relaxed);
    eprintln!(
        "{RESTARTS} restarts, {} connections greeted, {} sent away with 503, {} broken, {} refused",
        count(&greeted),
        count(&sent_away),
        count(&broken),
        count(&refused)
    );
    assert!(count(&greeted) > 10 * RESTARTS, "that was no storm");
    assert_eq!(count(&refused), 0);
    assert_eq!(count(&broken), 0);
    assert!(server.stop().status.success());
}
