//! Request head, routing and handshake: no panic, no dependence on how the bytes were cut, no answer that a peer can
//! split.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rtcstats_server::client::SessionId;
use rtcstats_server::handshake;
use rtcstats_server::http::{self, Head, HeadLimits, HeadStatus, Route};

/// Small, so that inputs reach them.
const LIMITS: HeadLimits = HeadLimits { bytes_max: 600, headers_max: 8 };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Incomplete,
    Complete(usize),
    Tls,
    Refused,
}

fn verdict(bytes: &[u8]) -> Verdict {
    match http::parse_head(bytes, &LIMITS) {
        HeadStatus::Incomplete => Verdict::Incomplete,
        HeadStatus::Complete { head_len, .. } => Verdict::Complete(head_len),
        HeadStatus::TlsClientHello => Verdict::Tls,
        HeadStatus::Refused(_) => Verdict::Refused,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let whole = verdict(bytes);
    // Decided once, decided for good; and the end of a head is where its last byte is.
    let mut decided = None;
    for end in 0..=bytes.len() {
        let now = verdict(&bytes[..end]);
        match decided {
            Some(before) => assert_eq!(now, before, "changed at {end}"),
            None if now == Verdict::Incomplete => {}
            None => {
                if let Verdict::Complete(head_len) = now {
                    assert_eq!(head_len, end, "complete before or after its last byte");
                }
                decided = Some(now);
            }
        }
    }
    assert_eq!(decided.unwrap_or(Verdict::Incomplete), whole);
    if let HeadStatus::Complete { head, .. } = http::parse_head(bytes, &LIMITS) {
        answer(&head);
    }
});

fn answer(head: &Head<'_>) {
    let mut out = Vec::new();
    match http::route(head) {
        Ok(Route::Health) => return,
        Ok(Route::Upgrade) => match handshake::accept(head) {
            Ok(upgrade) => {
                for text in [&upgrade.target, &upgrade.origin, &upgrade.user_agent, &upgrade.protocol] {
                    assert!(!text.chars().any(char::is_control), "control character in {text:?}");
                }
                let query = upgrade.target.split_once('?').map_or("", |(_, query)| query);
                assert!(!query.split('&').any(|pair| pair.starts_with("rtcstats-token=")));
                assert!(upgrade.session_id.as_ref().is_none_or(|id| SessionId::is_valid(id.as_str())));
                upgrade.write_response(&mut out);
                assert_eq!(lines(&out), 4 + usize::from(!upgrade.protocol.is_empty()));
                return;
            }
            Err(fault) => http::write_refusal(&mut out, fault.refusal(), &fault.to_string(), head.method),
        },
        Err(fault) => http::write_refusal(&mut out, fault.refusal(), &fault.to_string(), head.method),
    }
    // The statuses that can occur here have four lines and up to two more.
    assert!((4..=6).contains(&lines(&out)));
}

/// Lines of a response head, without the empty one that ends it; each ends in CR LF.
fn lines(response: &[u8]) -> usize {
    let text = std::str::from_utf8(response).expect("a response is text");
    let (head, _) = text.split_once("\r\n\r\n").expect("a response has an end");
    assert!(head.split("\r\n").all(|line| !line.contains(['\r', '\n'])));
    head.split("\r\n").count()
}
