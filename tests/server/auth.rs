//! Who may send: tokens, origins, and that a token is nowhere to be found afterwards.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use ring::hmac;

use super::ingest::archived;
use crate::support::script::entry_message;
use crate::support::{Rng, Settings, TestServer, Upgrade, WsClient};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const DENIED: &str = "rtcstats_connections_closed_total{reason=\"unauthorized\"}";

fn unsigned(algorithm: &str, payload: &str) -> String {
    let header = format!("{{\"alg\":\"{algorithm}\",\"typ\":\"JWT\"}}");
    format!("{}.{}", BASE64URL_NOPAD.encode(header.as_bytes()), BASE64URL_NOPAD.encode(payload.as_bytes()))
}

fn hs256(secret: &str, payload: &str) -> String {
    let text = unsigned("HS256", payload);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes());
    format!("{text}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}

fn in_an_hour() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3600
}

fn payload(claims: &str) -> String {
    format!("{{\"exp\":{},\"rtcStats\":{claims}}}", in_an_hour())
}

fn secret_server(secret: &str) -> TestServer {
    let settings = Settings::new().set("log.level", "debug");
    let path = settings.root().join("secret");
    fs::write(&path, secret).unwrap();
    settings.set("auth.jwt_secret_path", path.display()).start()
}

/// In the header, as back ends send it.
fn bearer(token: &str) -> Upgrade {
    let mut upgrade = Upgrade::back_end("3.1_STANDARD");
    upgrade.headers.push(("Authorization".into(), format!("Bearer {token}")));
    upgrade
}

/// In the query, as browsers must.
fn in_query(id: &str, token: &str) -> Upgrade {
    Upgrade::browser(id)
        .target(&format!("/room?statsSessionId={id}&rtcstats-token={token}&isReconnect=false"))
}

/// Upgraded, not greeted, and closed with 1008.
fn denied(server: &TestServer, upgrade: &Upgrade) -> String {
    WsClient::connect(server.ingest, upgrade).expect_close(1008)
}

/// A good token is taken from either place and its claims are in the dump; a bad one is answered with 1008; neither the
/// token nor a part of it that could be used is written anywhere.
#[test]
fn tokens_decide_and_leave_no_trace() {
    let server = secret_server(&format!("{SECRET}\n"));
    let claims = r#"{"user":"u-1","session":"s-1","conference":"c-1"}"#;
    let good = hs256(SECRET, &payload(claims));
    let id = Rng::new(60).uuid();
    let mut browser = WsClient::open(server.ingest, &in_query(&id, &good));
    browser.send_text(&entry_message(&id, "[1]"));
    let mut back_end = WsClient::open(server.ingest, &bearer(&good));
    back_end.send_text(&entry_message("back-end", "[1]"));
    let bad = [
        ("token is missing", None),
        ("token has a wrong signature", Some(hs256("another secret", &payload(claims)))),
        ("token has expired", Some(hs256(SECRET, "{\"exp\":1}"))),
        (
            "token is not valid yet",
            Some(hs256(SECRET, &format!("{{\"exp\":{0},\"nbf\":{0}}}", in_an_hour()))),
        ),
        ("token is malformed", Some(hs256(SECRET, "{}"))),
        ("token is malformed", Some("rubbish".into())),
        (
            "token has an algorithm that is not accepted",
            Some(format!("{}.", unsigned("none", &payload(claims)))),
        ),
    ];
    for (reason, token) in &bad {
        let upgrade = token.as_ref().map_or_else(|| Upgrade::browser(&id), |token| in_query("denied", token));
        assert_eq!(denied(&server, &upgrade), *reason);
        if let Some(token) = token {
            assert_eq!(denied(&server, &bearer(token)), *reason);
        }
    }
    server.wait_for_metric(DENIED, 13.0);
    // Whoever is in notices nothing, not even when somebody without a token names the same session.
    browser.round_trip();
    browser.close(1000);
    back_end.close(1000);
    for name in [&id, "back-end"] {
        let dump = &archived(&server, name, 1)[0];
        let info = dump.connection_info();
        assert_eq!(info["server"]["claims"].to_string(), {
            let claims: serde_json::Value = serde_json::from_str(claims).unwrap();
            claims.to_string()
        });
        assert_eq!(dump.body, "[1]\n");
    }
    let info = archived(&server, &id, 1)[0].connection_info();
    assert_eq!(info["path"], format!("/room?statsSessionId={id}&isReconnect=false"));

    let root = server.root().to_owned();
    let keep = server.settings();
    let log = server.stop().log.join("\n");
    assert!(log.contains("conn.close") && log.contains("reason=unauthorized"), "{log}");
    let mut everything = vec![log.into_bytes()];
    read_all(&root, &mut everything);
    let parts: Vec<&str> = bad.iter().filter_map(|(_, token)| token.as_deref()).chain([&*good]).collect();
    for token in parts {
        let secret = token.rsplit_once('.').map_or(token, |(_, signature)| signature);
        for text in &everything {
            let is_in = |part: &str| {
                !part.is_empty() && text.windows(part.len()).any(|window| window == part.as_bytes())
            };
            assert!(!is_in(token) && !is_in(secret), "a token was written: {token}");
        }
    }
    drop(keep);
}

/// Every file below a folder, unpacked.
fn read_all(folder: &Path, into: &mut Vec<Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_all(&path, into);
        } else {
            let bytes = fs::read(&path).unwrap();
            if path.extension().is_some_and(|end| end == "gz") {
                let mut text = Vec::new();
                let mut unpacked = flate2::read::MultiGzDecoder::new(bytes.as_slice());
                std::io::Read::read_to_end(&mut unpacked, &mut text).unwrap();
                into.push(text);
            }
            into.push(bytes);
        }
    }
}

/// The keys are read again with SIGHUP; a file that is of no use leaves the old ones in effect.
#[test]
fn keys_are_exchanged_while_running() {
    let server = secret_server(SECRET);
    let (old, new) = (hs256(SECRET, &payload("null")), hs256("new-secret", &payload("null")));
    let inside = WsClient::open(server.ingest, &bearer(&old));
    assert_eq!(denied(&server, &bearer(&new)), "token has a wrong signature");
    fs::write(server.root().join("secret"), "").unwrap();
    server.hangup();
    server.expect_log("auth.bad");
    WsClient::open(server.ingest, &bearer(&old)).close(1000);
    fs::write(server.root().join("secret"), "new-secret").unwrap();
    server.hangup();
    server.expect_log("auth.weak_secret");
    WsClient::open(server.ingest, &bearer(&new)).close(1000);
    assert_eq!(denied(&server, &bearer(&old)), "token has a wrong signature");
    inside.close(1000);
}

/// RS256 and ES256 as openssl makes and signs them.
#[test]
fn public_keys_as_openssl_makes_them() {
    let settings = Settings::new();
    let root = settings.root().to_owned();
    let openssl = |arguments: &str| {
        let done = Command::new("openssl").args(arguments.split(' ')).current_dir(&root).output();
        done.map(|done| assert!(done.status.success(), "{arguments}: {done:?}"))
    };
    if let Err(error) = openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem") {
        eprintln!("SKIPPED: openssl cannot be executed: {error}");
        return;
    }
    openssl("pkey -in rsa.pem -pubout -out rsa-public.pem").unwrap();
    openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ec.pem").unwrap();
    openssl("pkey -in ec.pem -pubout -out ec-public.pem").unwrap();
    let both = ["rsa-public.pem", "ec-public.pem"].map(|name| fs::read(root.join(name)).unwrap()).concat();
    let path = root.join("public.pem");
    fs::write(&path, both).unwrap();
    let sign = |algorithm: &str, key: &str| {
        let text = unsigned(algorithm, &payload("{\"user\":7}"));
        fs::write(root.join("text"), &text).unwrap();
        openssl(&format!("dgst -sha256 -sign {key} -out signature text")).unwrap();
        let mut signature = fs::read(root.join("signature")).unwrap();
        if algorithm == "ES256" {
            signature = fixed(&signature);
        }
        format!("{text}.{}", BASE64URL_NOPAD.encode(&signature))
    };
    let (rs256, es256) = (sign("RS256", "rsa.pem"), sign("ES256", "ec.pem"));
    let server = settings.set("auth.jwt_public_key_path", path.display()).start();
    WsClient::open(server.ingest, &bearer(&rs256)).close(1000);
    WsClient::open(server.ingest, &bearer(&es256)).close(1000);
    let swapped = rs256.replacen(&rs256[..20], &es256[..20], 1);
    denied(&server, &bearer(&swapped));
    // The public key is known to everybody; it must not work as a shared secret.
    let confused = hs256(&fs::read_to_string(&path).unwrap(), &payload("null"));
    assert_eq!(denied(&server, &bearer(&confused)), "token has an algorithm that is not accepted");
}

/// The two integers of a DER signature, 32 bytes each (RFC 7518 3.4).
fn fixed(der: &[u8]) -> Vec<u8> {
    let mut fixed = Vec::new();
    let mut rest = &der[2..];
    for _ in 0..2 {
        let (integer, behind) = rest[2..].split_at(usize::from(rest[1]));
        let digits = &integer[integer.len().saturating_sub(32)..];
        fixed.resize(fixed.len() + 32 - digits.len(), 0);
        fixed.extend_from_slice(digits);
        rest = behind;
    }
    fixed
}

/// Pages of others are refused, back ends are not.
#[test]
fn origins_are_matched() {
    let server = Settings::new()
        .set("auth.allowed_origins", "https://meet.example.org,https://*.example.net,null")
        .start();
    let from = |origin: &str| {
        let mut upgrade = Upgrade::back_end("3.1_STANDARD");
        upgrade.headers.push(("Origin".into(), origin.into()));
        upgrade
    };
    for origin in ["https://meet.example.org", "https://a.example.net", "jvb.example.net", "null"] {
        WsClient::open(server.ingest, &from(origin)).close(1000);
    }
    WsClient::open(server.ingest, &Upgrade::back_end("3.0_JVB")).close(1000);
    for origin in ["https://evil.example", "http://meet.example.org", "https://example.net", "evil.example"] {
        assert_eq!(denied(&server, &from(origin)), "origin is not allowed", "{origin}");
    }
    server.wait_for_metric(DENIED, 4.0);
}

/// A key file that is of no use stops the start.
#[test]
fn a_bad_key_file_stops_the_start() {
    for (key, content) in [
        ("auth.jwt_secret_path", Some("\n")),
        ("auth.jwt_secret_path", None),
        ("auth.jwt_public_key_path", Some("no PEM")),
    ] {
        let settings = Settings::new();
        let path = settings.root().join("key");
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let exit = settings.set(key, path.display()).try_start().map(|_| ()).unwrap_err();
        assert!(!exit.status.success(), "{key} {content:?}");
        assert!(exit.log.iter().any(|line| line.contains("/key")), "{key} {content:?}: {:?}", exit.log);
    }
}
