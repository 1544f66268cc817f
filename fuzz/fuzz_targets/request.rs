//! Requests: whatever a message holds, the short way for usual entries and the general way agree, a line is one line
//! of UTF-8, and a refused one leaves nothing behind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rtcstats_server::client::ClientType;
use rtcstats_server::numbering;
use rtcstats_server::protocol::usual::UsualEntry;
use rtcstats_server::protocol::{self, RequestType};

/// What is there before must stay there.
const BEFORE: &[u8] = b"before\n";

fuzz_target!(|message: &[u8]| {
    for client in [ClientType::Rtcstats, ClientType::Jvb] {
        for request in protocol::requests(message).flatten() {
            if matches!(request.kind, RequestType::Close | RequestType::Keepalive) {
                continue;
            }
            let mut out = BEFORE.to_vec();
            let written = protocol::write_line(&request, client, 1_700_000_000_123, &mut out);
            let line = out.strip_prefix(BEFORE).expect("what was there stays");
            if written.is_err() {
                assert!(line.is_empty(), "a refused line leaves something behind");
                continue;
            }
            let line = std::str::from_utf8(line).expect("a dump is UTF-8").strip_suffix('\n').expect("a line ends");
            assert!(!line.contains(['\n', '\r']), "one request, two lines");
            std::hint::black_box(numbering::line_number(line.as_bytes()));
            std::hint::black_box(numbering::is_acknowledgeable(line.as_bytes()));
        }
    }
    if let Ok(text) = std::str::from_utf8(message) {
        compare(text);
    }
});

fn compare(text: &str) {
    let Some(entry) = UsualEntry::of(text) else { return };
    let mut space = vec![b'?'; entry.room()];
    let Some(length) = entry.write_line(&mut space) else { return };
    let short = [BEFORE, &space[..length]].concat();
    let mut requests = protocol::requests(text.as_bytes());
    let request = requests.next().expect("a request").expect("a good one");
    assert_eq!((request.id.as_ref(), request.kind), (entry.id, RequestType::StatsEntry));
    assert_eq!(request.whole, text);
    let mut general = BEFORE.to_vec();
    protocol::write_line(&request, ClientType::Rtcstats, 0, &mut general).expect("taken the short way");
    assert_eq!(short, general);
    assert!(requests.next().is_none());
}
