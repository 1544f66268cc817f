//! Tables of what is cut and what is not, and what holds for every text.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

thread_local! {
    static LOOKED_AT: Cell<usize> = const { Cell::new(0) };
}

/// What the product calls in tests.
pub(super) fn looked_at(bytes: usize) {
    LOOKED_AT.set(LOOKED_AT.get() + bytes);
}

fn cut_text(text: &str) -> String {
    String::from_utf8(cut(text.as_bytes())).unwrap()
}

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(cut_text(text), expected);
    assert_eq!(cut_text(expected), expected, "cut twice");
}

#[track_caller]
fn check_stays(text: &str) {
    check(text, text);
}

/// Candidates, descriptions and reports as browsers write them, with the escapes they have in a dump.
#[test]
fn addresses_are_cut_where_clients_write_them() {
    check(
        r#"["onicecandidate","PC_0",{"candidate":"candidate:842163049 1 udp 1677729535 203.0.113.77 51234 typ srflx raddr 192.168.1.23 rport 51234 generation 0 ufrag a1b2","sdpMid":"0"},1700000000000,7]"#,
        r#"["onicecandidate","PC_0",{"candidate":"candidate:842163049 1 udp 1677729535 203.0.113.0 51234 typ srflx raddr 192.168.1.0 rport 51234 generation 0 ufrag a1b2","sdpMid":"0"},1700000000000,7]"#,
    );
    check(
        r#"["addIceCandidate","PC_0",{"candidate":"candidate:1 1 udp 2130706431 2600:1f14:a95:d502:f257:af9d:4fff:7a78 10000 typ host"},1700000000000]"#,
        r#"["addIceCandidate","PC_0",{"candidate":"candidate:1 1 udp 2130706431 2600:1f14:a95:: 10000 typ host"},1700000000000]"#,
    );
    check(
        r#"["setLocalDescription","PC_0",{"sdp":"v=0\r\no=- 7435086536905726016 2 IN IP4 127.0.0.1\r\no=Mozilla 1 0 IN IP4 198.51.100.9\r\nc=IN IP4 203.0.113.77\r\nc=IN IP6 2001:db8:1:2::9\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=rtcp:51472 IN IP4 203.0.113.77\r\na=candidate:1 1 udp 2122260223 10.1.2.3 5 typ host\r\n"}]"#,
        r#"["setLocalDescription","PC_0",{"sdp":"v=0\r\no=- 7435086536905726016 2 IN IP4 127.0.0.1\r\no=Mozilla 1 0 IN IP4 198.51.100.0\r\nc=IN IP4 203.0.113.0\r\nc=IN IP6 2001:db8:1::\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=rtcp:51472 IN IP4 203.0.113.0\r\na=candidate:1 1 udp 2122260223 10.1.2.0 5 typ host\r\n"}]"#,
    );
    check(
        r#"["getstats","PC_0",{"I1":{"ip":"203.0.113.77","address":"203.0.113.77","relatedAddress":"10.1.2.3","ipAddress":"fe80::1c2d:3e4f","url":"turn:198.51.100.4:3478?transport=udp","port":443},"g":{"googLocalAddress":"203.0.113.77:54592","googRemoteAddress":"[2001:db8:1:2::9]:10000"}}]"#,
        r#"["getstats","PC_0",{"I1":{"ip":"203.0.113.0","address":"203.0.113.0","relatedAddress":"10.1.2.0","ipAddress":"fe80::","url":"turn:198.51.100.0:3478?transport=udp","port":443},"g":{"googLocalAddress":"203.0.113.0:54592","googRemoteAddress":"[2001:db8:1::]:10000"}}]"#,
    );
    check(
        r#"["create","PC_0",{"iceServers":[{"urls":["turn:198.51.100.4:3478","stun:[2001:db8:1:2::9]:3478"]}]}]"#,
        r#"["create","PC_0",{"iceServers":[{"urls":["turn:198.51.100.0:3478","stun:[2001:db8:1::]:3478"]}]}]"#,
    );
    check(
        r#"["connectionInfo",null,{"path":"/room?peer=203.0.113.77&next=https%3A%2F%2F198.51.100.4%2F","origin":"https://192.168.1.23:8443"}]"#,
        r#"["connectionInfo",null,{"path":"/room?peer=203.0.113.0&next=https%3A%2F%2F198.51.100.0%2F","origin":"https://192.168.1.0:8443"}]"#,
    );
    check(
        r#"{"type":"stats-entry","data":"{\"remote\":\"/203.0.113.77:10000\",\"log\":\"peer.example/203.0.113.77:5\\n198.51.100.4 left\\n2001:db8:1:2:0:0:0:9:443\"}"}"#,
        r#"{"type":"stats-entry","data":"{\"remote\":\"/203.0.113.0:10000\",\"log\":\"peer.example/203.0.113.0:5\\n198.51.100.0 left\\n[2001:db8:1::]:443\"}"}"#,
    );
}

#[test]
fn words_end_where_they_should() {
    for (text, expected) in [
        ("203.0.113.77", "203.0.113.0"),
        ("(203.0.113.77)", "(203.0.113.0)"),
        ("203.0.113.77,198.51.100.4", "203.0.113.0,198.51.100.0"),
        ("203.0.113.77-203.0.113.99", "203.0.113.0-203.0.113.0"),
        ("203.0.113.77:198.51.100.4", "203.0.113.0:198.51.100.0"),
        ("ip_203.0.113.77_", "ip_203.0.113.0_"),
        ("ip:203.0.113.77:80", "ip:203.0.113.0:80"),
        ("It was 203.0.113.77.", "It was 203.0.113.0."),
        ("...203.0.113.77...", "...203.0.113.0..."),
        ("..203.0.113.77", "..203.0.113.0"),
        ("203.0.113.77..", "203.0.113.0.."),
        ("203.0.113.77..203.0.113.99", "203.0.113.0..203.0.113.0"),
        ("1..203.0.113.77..5", "1..203.0.113.0..5"),
        ("203.0.113...198.51.100.4...x", "203.0.113...198.51.100.0...x"),
        ("203.0.113.77..2001:db8:1:2::9", "203.0.113.0..2001:db8:1::"),
        (".2001:db8:1:2:3:4:5:6", ".2001:db8:1::"),
        ("left.2001:db8:1:2:3:4:5:6.", "left.2001:db8:1::."),
        ("1.2001:db8:1:2:3:4:5:6", "1.2001:db8:1::"),
        ("2001:db8:1:2::9..2001:db8:1:2::b", "[2001:db8:1::]..2001:db8:1::"),
        ("203.0.113.0:2001:db8:1:2::9", "203.0.113.0:[2001:db8:1::]"),
        ("10.0.0.255.128:2001:db8:1:2::9", "10.0.0.255.128:[2001:db8:1::]"),
        ("203.0.113.77.nip.io", "203.0.113.0.nip.io"),
        ("host.203.0.113.77", "host.203.0.113.0"),
        ("203.0.113.77/32", "203.0.113.0/32"),
        ("ü203.0.113.77ü", "ü203.0.113.0ü"),
        ("address:2001:db8:1:2::9: refused", "address:[2001:db8:1::]: refused"),
        ("add:2001:db8:1:2:3:4:5:6", "[add:2001:db8::]:6"),
        ("host:2001:db8:1:2::9", "host:[2001:db8:1::]"),
        ("2001:db8:1:2:3:4:5:6:eth0", "[2001:db8:1::]:eth0"),
        ("2001:db8:1:2::9.", "2001:db8:1::."),
        ("2001:db8:1:2::9...example", "2001:db8:1::...example"),
        ("::ffff:0add:12...4", "[::ffff:10.221.0.0]...4"),
        ("2001:db8:1:2::9/64", "2001:db8:1::/64"),
        ("fe80::1c2d%eth0", "fe80::%eth0"),
        ("fe80::1c2d%31", "fe80::%31"),
        ("[fe80::1c2d%25eth0]:80", "[fe80::%25eth0]:80"),
        ("1.2.3.4:2001:db8:1:2::9", "1.2.3.0:[2001:db8:1::]"),
        ("add:1:2:3:4:1:2:3:e80::1c2d", "[add:1:2::]:[e80::]"),
        ("2001:db8:1:2::9.203.0.113.77", "[2001:db8:1::].203.0.113.0"),
        ("2001:db8:1:2::9:10000:fe80::1c2d", "[2001:db8:1::]:10000:[fe80::]"),
        ("2001:db8:1:2:0:0:9::3", "[2001:db8:1::]3"),
        ("::ffff:cb00:714d.113", "[::ffff:203.0.113.0].113"),
        ("::203.0.113.77 ::3.2.3.03", "::203.0.113.0 ::3.2.3.0"),
        ("::1:100:1.2.3.0:2001:d", "::1:100:1.2.3.0:2001:d"),
        ("ffff:c2:0:0:0:1:2::9::100", "[ffff:c2::]9::100"),
        ("64:ff9b::203.0.113.77", "64:ff9b::"),
        ("80:64:ff9b::203.0.113.77", "80:[64:ff9b::]"),
        ("1:2001:db8:1:2::9", "1:[2001:db8:1::]"),
        ("2001:db8:1:0:0:0:0:0:2001:db8:1:2::9", "2001:db8:1:0:0:0:0:0:[2001:db8:1::]"),
        ("::ffff:203.0.113.77", "::ffff:203.0.113.0"),
        ("::FFFF:cb00:714d", "::ffff:203.0.113.0"),
        ("[::ffff:203.0.113.77]:443", "[::ffff:203.0.113.0]:443"),
    ] {
        assert_eq!(cut_text(text), expected, "{text}");
        assert_eq!(cut_text(expected), expected, "cut twice");
    }
}

#[test]
fn escapes_hide_nothing() {
    for (text, expected) in [
        (r"\n203.0.113.77\t198.51.100.4\b10.1.2.3", r"\n203.0.113.0\t198.51.100.0\b10.1.2.0"),
        (r"\\n203.0.113.77\\\\f2001:db8:1:2::9", r"\\n203.0.113.0\\\\f2001:db8:1::"),
        (r"\u003d203.0.113.77\u00a0", r"\u003d203.0.113.0\u00a0"),
        (r"\u00a02001:db8:1:2::9\ud83d\ude00", r"\u00a02001:db8:1::\ud83d\ude00"),
        (r"203\u002e0.113\u002E77", r"203\u002e0.113\u002E0"),
        (r"203.0.113.\u0037\u0037 x", r"203.0.113.0 x"),
        (r"203.0.113.7\\u0037", r"203.0.113.0"),
        (r"2001\u003adb8:1:2::9", "2001:db8:1::"),
        ("%20203.0.113.77%20", "%20203.0.113.0%20"),
        ("x=2001%3Adb8%3A1%3a2%3A%3A9&y", "x=2001:db8:1::&y"),
        ("%5B2001:db8:1:2::9%5D:80", "%5B2001:db8:1::%5D:80"),
        ("x=2001%253Adb8%253A1%253A2%253A%253A9&y", "x=2001:db8:1::&y"),
        ("http%253A%252F%252F203.0.113.77%252Fx", "http%253A%252F%252F203.0.113.0%252Fx"),
        ("%252Fx%25252F203.0.113.77%2525", "%252Fx%25252F203.0.113.0%2525"),
        ("203%252E0%25252e113%2E77", "203%252E0%25252e113%2E0"),
        ("[fe80::1c2d%2531]:80", "[fe80::%2531]:80"),
        ("fe80::1c2d%10.", "fe80::%10."),
        ("%1.2.3.4", "%1.2.3.0"),
        ("%10.1.2.3 %10.1.2.3. %10.1.2.3..9", "%10.1.2.0 %10.1.2.0. %10.1.2.0..9"),
        ("%2510.1.2.3 %25.1.2.3", "%2510.1.2.0 %25.1.2.0"),
        ("%100.0.0.1 %2010.0.0.1", "%100.0.0.0 %2010.0.0.0"),
        ("%401.2.3.4 %2F1.2.3.4", "%401.2.3.0 %2F1.2.3.0"),
        ("%20.10.1.2.3 %20%2E10.1.2.3", "%20.10.1.2.0 %20%2E10.1.2.0"),
        ("%2001:db8:1:2::9", "%2001:db8:1::"),
        ("%252001%3Adb8%3A1%253A2%3A%3A9", "%252001:db8:1::"),
        ("%202001:db8:1:2::9", "%202001:db8:1::"),
        ("%fe80::1c2d %20fe80::1c2d", "%fe80:: %20fe80::"),
        ("100% 203.0.113.77 %", "100% 203.0.113.0 %"),
        (r"\", r"\"),
        (r"203.0.113.77\", r"203.0.113.0\"),
        (r"\u00 203.0.113.77", r"\u00 203.0.113.0"),
        ("%5Cn203.0.113.77%5C%5Ct10.1.2.3", "%5Cn203.0.113.0%5C%5Ct10.1.2.0"),
        ("%255Cn198.51.100.4 %25255cr10.1.2.3", "%255Cn198.51.100.0 %25255cr10.1.2.0"),
        (r"\u005cn203.0.113.77\\u005Cr10.1.2.3", r"\u005cn203.0.113.0\\u005Cr10.1.2.0"),
        (r"\u005cu005cn203.0.113.77 \u005c\u005cn10.1.2.3", r"\u005cu005cn203.0.113.0 \u005c\u005cn10.1.2.0"),
        (r"%5Cu003d203.0.113.77 203%5Cu002e0.113.77", r"%5Cu003d203.0.113.0 203%5Cu002e0.113.0"),
        (r"%5Cn2001:db8:1:2::9 \u005cn2001:db8:1:2::9", r"%5Cn2001:db8:1:: \u005cn2001:db8:1::"),
        (r"%5C203.0.113.77 \u005c203.0.113.77", r"%5C203.0.113.0 \u005c203.0.113.0"),
        (r"%5Cfe80::1c2d %5C2001:db8:1:2::9 %5c12:db8:1:2::9", r"%5Cfe80:: %5C2001:db8:1:: %5c12:db8:1::"),
    ] {
        assert_eq!(cut_text(text), expected, "{text}");
    }
}

/// Log texts have them; `^` is an ESC, as JSON escapes it and as the byte.
#[test]
fn colours_hide_nothing() {
    for (text, expected) in [
        ("^[32m203.0.113.77^[0m", "^[32m203.0.113.0^[0m"),
        ("^[1mfe80::1c2d^[22m", "^[1mfe80::^[22m"),
        ("^[32m2001:db8:1:2::9^[0m", "^[32m2001:db8:1::^[0m"),
        ("^[0m^[1;38;5;208m203.0.113.77:443^[m", "^[0m^[1;38;5;208m203.0.113.0:443^[m"),
        ("^[m203.0.113.77 ^[2K203.0.113.77", "^[m203.0.113.0 ^[2K203.0.113.0"),
        ("^[1;38;2;255;255;0m203.0.113.77", "^[1;38;2;255;255;0m203.0.113.0"),
        ("host:^[32m2001:db8:1:2:3:4:5:6^[0m:443", "host:^[32m2001:db8:1::^[0m:443"),
        ("203.0.113.77^[0m203.0.113.99", "203.0.113.0^[0m203.0.113.0"),
        // No such sequence.
        ("^203.0.113.77 ^[203.0.113.77] ^[2001:db8:1:2::9]", "^203.0.113.0 ^[203.0.113.0] ^[2001:db8:1::]"),
        ("^[ 203.0.113.77 ^[;203.0.113.77", "^[ 203.0.113.0 ^[;203.0.113.0"),
        ("^[1;38;2;255;255;10m203.0.113.77", "^[1;38;2;255;255;10m203.0.113.77"),
        ("[32m203.0.113.77 ^[", "[32m203.0.113.77 ^["),
    ] {
        for esc in [r"\u001b", r"\u001B", r"\\u001b", "\u{1b}", r"\u005cu001b"] {
            check(&text.replace('^', esc), &expected.replace('^', esc));
        }
    }
    // At the places where a line is divided that has no better ones.
    let unit = "/\u{1b}[1;32m203.0.113.77";
    for shift in 0..unit.len() {
        let text = format!("{}{}", "x".repeat(shift), unit.repeat(PIECE_BYTES / unit.len() + 1));
        assert!(!cut_text(&text).contains(".77"), "{shift}");
    }
}

#[test]
fn what_only_looks_like_an_address_stays() {
    let fingerprint =
        "08:51:22:4F:74:30:FE:27:FE:87:2D:A4:4C:A9:E3:A9:DF:C6:A4:B8:88:4C:45:29:FF:63:2B:D1:84:6F:BB:78";
    for text in [
        format!("a=fingerprint:sha-256 {fingerprint}\\r\\na=setup:actpass"),
        format!(
            "{{\"CF{fingerprint}\":{{\"fingerprint\":\"{fingerprint}\",\"localCertificateId\":\"RTCCertificate_{fingerprint}\"}}}}"
        ),
    ] {
        check_stays(&text);
    }
    for text in [
        "",
        r#"{"timestamp":1700000000000.123,"jitter":0.004,"ssrc":2946271033}"#,
        r#"["connectionInfo",null,{"userAgent":"Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/120.0.6099.1 Safari/537.36 Teams/1.6.0.123 OPR/105.1.2.3"}]"#,
        r#"{"data":"{\"userAgent\":\"Mozilla/5.0 Chrome/120.1.2.3\"}"}"#,
        r#""browserInfo":{"name":"X","version":"105.1.2.3"},"browserVersion":"105.1.2.3","appVersion": "1.2.3.4""#,
        "Jicofo 2024-02-11 17:05:58.584 INFO: [24578] 00:1a:2b:3c:4d:5e",
        "v1.2.3.4 1.2.3 1.2.3.4.5 1.3.6.1.4.1.311 256.1.2.3 1.2.3.4a a1.2.3.4",
        "x.x.x.x x:x:x:x:x:x:x:x 2600:380:76ec:x:x:x:x:x 203.0.113.x a1b2c3d4.x a1b2c3d4:x",
        "127.0.0.1 0.0.0.0 ::1 :: [::]:3000 localhost 203.0.113.0 2001:db8:1::",
        "::ffff:7f00:1 0:0:0:0:0:ffff:7f00:1 ::ffff:127.0.0.1 ::ffff:0:0 %20127.0.0.1",
        "12:34:5678:: 12::3456 aa:bb:cc:dd:ee:ff:0011:2233 1:2:3:4:5:6:7:8888",
        "0f3f8c1e-6c5b-4a57-9f5e-0a1b2c3d4e5f.local",
        "std::deque Foo::add ::before urn:ietf:params:rtp-hdrext:ssrc-audio-level a=mid:0 12:34:56 12::34",
        "https://meet.example.org/1.2.3/room:4",
    ] {
        check_stays(text);
    }
}

/// What docs/configuration.md lists as not recognised. Whoever teaches the product one of these takes it from that list.
#[test]
fn forms_that_are_not_recognised_stay() {
    let before_fingerprint = format!("2001{}", ":aa".repeat(15));
    for text in [
        "v203.0.113.77 203.0.113.77a a2001:db8:1:2:3:4:5:6b host::ffff:cb00:714d",
        "ip-203-0-113-77.example.net 2001-db8--7.ipv6-literal.net",
        "7.7.0.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
        "203.0.113.77.443 203.0.29005 3405803853 0313.0.0161.0115 0xcb.0x0.0x71.0x4d",
        "12:34:56:78:9a:bc:de:f012",
        &before_fingerprint,
        r"%32%30%33%2E0%2E113%2E77 203\u00252E0.113.77 203\x2e0.113.77 203&#46;0.113.77",
        "\u{ff12}\u{ff10}\u{ff13}.0.113.77 ",
        r"%1B[32m203.0.113.77 %1B%5B32m203.0.113.77 \x1b[32m203.0.113.77 \033[32m203.0.113.77",
        r"\u001b[?25l203.0.113.77 \u001b[00000000000000000m203.0.113.77",
    ] {
        check_stays(text);
    }
    check("77.113.0.203.in-addr.arpa", "77.113.0.0.in-addr.arpa");
}

/// What docs/configuration.md lists as cut wrongly, and what it says of names.
#[test]
fn what_is_no_address_is_cut_if_it_has_the_form() {
    check("App/1.2.3.4 1.3.6.1 abc::def", "App/1.2.3.0 1.3.6.0 abc::");
    check(r#"{"203.0.113.77":1,"203.0.113.99":2}"#, r#"{"203.0.113.0":1,"203.0.113.0":2}"#);
    check_stays("127.1.2.3 0.1.2.3");
}

/// The exemption of versions is no way around for anything else in the same text.
#[test]
fn only_products_are_spared_in_user_agents() {
    check(
        r#"{"userAgent":"App/1.2.3.4 (203.0.113.77; http://203.0.113.77/)","x":"App/1.2.3.4"}"#,
        r#"{"userAgent":"App/1.2.3.4 (203.0.113.0; http://203.0.113.0/)","x":"App/1.2.3.0"}"#,
    );
    check(r#""version","1.2.3.4""#, r#""version","1.2.3.0""#);
    check("{\"userAgent\":\"torn\nA/1.2.3.4", "{\"userAgent\":\"torn\nA/1.2.3.0");
    let gap = |len: usize| format!("\"version\":{}\"1.2.3.4\"", " ".repeat(len));
    check_stays(&gap(63));
    check(&gap(65), &gap(65).replace("3.4", "3.0"));
}

/// Bytes that no text has, those that the view uses for itself among them, end a word and hide nothing.
#[test]
fn bytes_that_are_no_text_end_a_word() {
    for byte in [0xff_u8, 0xfe, 0x80, 0xc0] {
        for (before, after, expected) in [
            (&b"a"[..], &b"203.0.113.77"[..], &b"203.0.113.0"[..]),
            (b"1", b"203.0.113.77", b"203.0.113.0"),
            (b"203.0.113.77", b"a", b"a"),
            (b"203.0.113.77", b".5", b".5"),
            (b"host", b"2001:db8:1:2::9", b"2001:db8:1::"),
            (b"203.0", b".113.77", b".113.77"),
            (b"2001:db8:1", b":2::9", b":2::9"),
        ] {
            let join = |before: &[u8], after: &[u8]| [before, &[byte], after].concat();
            let before_cut = if before == b"203.0.113.77" { b"203.0.113.0" } else { before };
            let cut = cut(&join(before, after));
            assert_eq!(cut, join(before_cut, expected), "{}", cut.escape_ascii());
        }
    }
}

/// Feeds `text` in pieces and gives what comes out.
fn cut_in_pieces(text: &[u8], sizes: &[usize]) -> Vec<u8> {
    let (mut cutter, mut out) = (Cutter::default(), Vec::new());
    let mut sink = |piece: &[u8]| {
        assert!(piece.len() < 2 * PIECE_BYTES, "{} bytes", piece.len());
        out.extend_from_slice(piece);
        Ok::<(), std::convert::Infallible>(())
    };
    let mut rest = text;
    for size in sizes.iter().cycle() {
        let (piece, after) = rest.split_at(rest.len().min(*size));
        cutter.feed(piece, &mut sink).unwrap();
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    cutter.end(&mut sink).unwrap();
    out
}

/// However a text is fed, the same comes out: the archive knows a dump by its content.
#[test]
fn how_a_text_is_fed_does_not_show() {
    let line = "[\"x\",\"203.0.113.77 and 2001:db8:1:2::9\",1700000000000]\n";
    let short = line.repeat(3 * PIECE_BYTES / line.len());
    let long = short.replace('\n', " ");
    let only_digits = "203.0.113.77.".repeat(PIECE_BYTES / 5);
    let only_words = "203.0.113.77/x_".repeat(PIECE_BYTES / 5);
    for text in ["", line, &short, &long, &only_digits, &only_words] {
        let whole = cut_in_pieces(text.as_bytes(), &[text.len().max(1)]);
        for sizes in [&[1000][..], &[1, 65_537, 3], &[PIECE_BYTES], &[PIECE_BYTES - 1, 2]] {
            assert!(cut_in_pieces(text.as_bytes(), sizes) == whole, "{sizes:?}");
        }
    }
    for (text, cut_line) in
        [(&long, cut_text(line).replace('\n', " ")), (&only_words, "203.0.113.0/x_".to_owned())]
    {
        let times = text.len() / if text == &long { line.len() } else { 15 };
        assert!(cut_text(text) == cut_line.repeat(times), "divided between words");
    }
}

/// However large a text is and whatever is in it, memory is taken for a piece of it: a few copies, none of which is as large as two.
#[test]
fn memory_is_bounded() {
    let mut cutter = Cutter::default();
    for unit in ["\\n::ffff:aaaa:1:", "%3A", "1", ":", "1.", "203.0.113.77 "] {
        let text = unit.repeat(3 * PIECE_BYTES / unit.len());
        for size in [1000, PIECE_BYTES - 1] {
            cutter.begin();
            let mut sink = |_: &[u8]| Ok::<(), Infallible>(());
            for piece in text.as_bytes().chunks(size) {
                cutter.feed(piece, &mut sink).unwrap();
            }
            cutter.end(&mut sink).unwrap();
            assert!(cutter.held_bytes() <= 8 * PIECE_BYTES, "{} bytes with {unit}", cutter.held_bytes());
        }
    }
}

/// How often each byte of `text` is looked at while it is cut, on average.
fn looks_per_byte(text: &str) -> usize {
    LOOKED_AT.set(0);
    let mut out = Vec::new();
    Cutter::default().append(text.as_bytes(), &mut out);
    LOOKED_AT.get().div_ceil(text.len())
}

/// What any text costs at most; what the worst of these costs are eight groups and a port, looked at from each of the groups.
const LOOKS_PER_BYTE_MAX: usize = 120;

/// Whatever a text consists of, each of its bytes is looked at a limited number of times: nothing that a client sends costs more
/// than so many times what any other text costs. More than a piece is never looked at together.
#[test]
fn runs_are_looked_at_once() {
    for unit in [
        "1.",
        "1:",
        "0:",
        ":",
        ".",
        "a:",
        "1.1.1.1:",
        "::1.",
        "\\",
        "%3A",
        "\\u002e",
        "App/1.2.3.4 ",
        "123::1:",
        "123::1::",
        "fe80::1c2d:",
        "123:",
        "1234:1:",
        "2001:db8:1:2:3:4:5:6:",
        "2001:db8:::",
        "2001:db8:1:2:0:0:9::3",
        "::ffff:aaaa:1",
        "::ffff:1.2.3.4:",
        "64:ff9b::1.2.3.4:",
        "::1.2.3.4",
        "CF:08:51:22:4F:74:",
        "123:08:51:22:4F:74:30:FE:27:FE:87:2D:A4:4C:A9:E3:",
        "12345678:",
        "123456789.",
        "1.2.3.4..",
        "1..",
        "1.1.1.",
        "..1",
        "%25",
        "%2525",
        "%10%",
        "%1%25",
        "%200:%",
        "%123%25",
        "%fe80::1",
        "\\u003a",
        "\\u0031.",
        "\\\\",
        "\\n",
        "\\\"",
        "\u{1b}",
        "\u{1b}[",
        "\u{1b}[0000000000000000",
        "\u{1b}[32m1.2.3.4",
        "\\u001b[1;1;1;1;1;1;1;1",
        "\\u001b[1m",
        "\\u005c",
        "u005c",
        "%5C",
        "%5Cn",
        "%5Cu005c",
        "%255Cu",
        "\"version\":\"1.2.3.4",
        "\"A/1.2.3.4,",
        "A/1.2.3.4",
        "\" ",
        "1",
        "a",
    ] {
        let text = format!("\"userAgent\":\"{}", unit.repeat(PIECE_BYTES / unit.len()));
        let looks = looks_per_byte(&text);
        assert!((1..=LOOKS_PER_BYTE_MAX).contains(&looks), "{unit}: {looks}");
    }
    // As long as a message may be.
    for unit in ["123::1:", "1.1.1.1..", "%2525"] {
        let looks = looks_per_byte(&unit.repeat((4 << 20) / unit.len()));
        assert!((1..=LOOKS_PER_BYTE_MAX).contains(&looks), "{unit}: {looks}");
    }
}

/// A long part that could be looked at from many places behind it, or before it, is not.
#[test]
fn long_parts_are_looked_at_once() {
    for (long, many) in [
        (" ", "A/1.2.3.4,"),
        ("\\", "A/1.2.3.4,"),
        ("1", ":123"),
        ("a", ":123"),
        ("25", "%"),
        ("1.", ":123"),
        (".", ":123"),
        (":", "1.1.1.1.."),
        ("0;", "\u{1b}["),
        ("u005c", "%5C"),
        ("u005c", "\\"),
    ] {
        let (long_text, many_text) =
            (long.repeat(PIECE_BYTES / 2 / long.len()), many.repeat(PIECE_BYTES / 3 / many.len()));
        for text in [format!("\"userAgent\":{long_text}\"{many_text}"), format!("{many_text}{long_text}")] {
            let looks = looks_per_byte(&text);
            assert!((1..=LOOKS_PER_BYTE_MAX).contains(&looks), "{long} {many}: {looks}");
        }
    }
}

fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = (1_u8..=223, any::<u8>(), any::<u8>(), 1_u8..=255)
        .prop_filter("nobody's", |(first, ..)| *first != 127)
        .prop_map(|(a, b, c, d)| IpAddr::V4(Ipv4Addr::new(a, b, c, d)));
    let prefix = prop_oneof![Just(0x2001_u16), Just(0x2a02), Just(0xfd12), Just(0xfe80), 0x2000_u16..0x4000];
    // Zeros now and then, so that they are shortened.
    let group = prop_oneof![Just(0_u16), any::<u16>()];
    let v6 =
        (prefix, prop::collection::vec(group, 7)).prop_filter_map("nothing to be cut", |(first, groups)| {
            let mut segments = [first; 8];
            segments[1..].copy_from_slice(&groups);
            (segments[3..] != [0; 5]).then(|| IpAddr::V6(segments.into()))
        });
    let mapped =
        (1_u8..=126, 1_u8..=255).prop_map(|(a, d)| IpAddr::V6(Ipv4Addr::new(a, 0, 113, d).to_ipv6_mapped()));
    prop_oneof![3 => v4, 3 => v6, 1 => mapped]
}

/// What must come of `address`, computed in another way.
fn expected(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let v4 = Ipv4Addr::from(v4.to_bits() / 256 * 256);
            if address.is_ipv6() { v4.to_ipv6_mapped().into() } else { v4.into() }
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            let c = if a == 0x2002 { c / 256 * 256 } else { c };
            Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
        }
    }
}

/// The places where an address may stand; `@` is the address, `#` the address as a URL has it.
const PLACES: [&str; 16] = [
    "@",
    "candidate:1 1 udp 2122260223 @ 51234 typ host generation 0",
    "candidate:1 1 tcp 1 10.0.0.0 9 typ relay raddr @ rport 9",
    "v=0\r\no=- 1 2 IN IP4 @\r\ns=-\r\n",
    "v=0\r\nc=IN IP6 @\r\na=rtcp:9 IN IP4 @\r\na=candidate:1 1 udp 1 @ 9 typ host\r\n",
    "#:54592",
    "turn:#:3478?transport=udp",
    "https://example.org:1/x?y=@&z=#",
    "connect to /#: refused",
    "from @, to @.",
    "x\u{1f600}@\u{1f600}",
    "tab\t@\ttab\u{0}@\u{1f}@\"@\\@/@",
    "{\"ip\":\"@\",\"nested\":\"{\\\"ip\\\":\\\"@\\\\n@\\\"}\"}",
    "ip=@;for=\"#\"",
    "peer = @;",
    "<candidate ip='@' port='9'/>",
];

fn place(index: usize, address: IpAddr) -> String {
    let bare = address.to_string();
    let in_url = if address.is_ipv6() { format!("[{bare}]") } else { bare.clone() };
    PLACES[index].replace('@', &bare).replace('#', &in_url)
}

/// Every text of a value.
fn texts(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => into.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, into)),
        Value::Object(members) => members.iter().for_each(|(key, item)| {
            into.push(key.clone());
            texts(item, into);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

proptest! {
    /// In a line that parses every address is cut to what is expected, wherever it stands, and nothing else changes.
    #[test]
    fn nothing_but_addresses_changes(
        entries in prop::collection::vec((0..PLACES.len(), address(), "[a-z]{1,8}"), 1..8),
        other in "\\PC{0,20}",
    ) {
        let line = |mapped: &dyn Fn(IpAddr) -> IpAddr| {
            let values: Vec<Value> = entries.iter().map(|(index, address, key)| {
                let text = place(*index, mapped(*address));
                json!({key.as_str(): text, "list": [text, {"x": text}], "number": 1.25, "address": mapped(*address).to_string()})
            }).collect();
            json!(["getstats", "PC_0", values, {"o": other.replace([':', '.'], "")}, 1_700_000_000_000_u64, 7]).to_string()
        };
        let (uncut, wanted) = (line(&|address| address), line(&expected));
        let cut = cut_text(&uncut);
        prop_assert_eq!(&cut, &wanted);
        prop_assert_eq!(&cut_text(&cut), &cut);
        let parsed: Value = serde_json::from_str(&cut).unwrap();
        let mut found = Vec::new();
        texts(&parsed, &mut found);
        for (_, address, _) in &entries {
            prop_assert!(found.iter().all(|text| !text.split([' ', '\n', '"', '\'']).any(|word| word == address.to_string())));
        }
        // The same line torn anywhere is cut, too.
        for at in (0..uncut.len()).step_by(97).filter(|at| uncut.is_char_boundary(*at)) {
            cut_text(&uncut[..at]);
        }
    }

    /// Whatever the bytes are: no panic, no line more or less, and how they are fed does not show.
    #[test]
    fn any_bytes_are_taken(bytes in prop::collection::vec(
        prop_oneof![
            Just(b'.'), Just(b':'), Just(b'\\'), Just(b'%'), Just(b'"'), Just(b'\n'), Just(b'/'), Just(b'u'), Just(b'0'),
            Just(b'1'), Just(b'2'), Just(b'a'), Just(b'3'), Just(0x1b), Just(b'['), any::<u8>(),
        ],
        0..300,
    )) {
        let cut_once = cut(&bytes);
        let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
        prop_assert_eq!(lines(&cut_once), lines(&bytes));
        prop_assert_eq!(cut_in_pieces(&bytes, &[7]), cut_once);
    }
}
