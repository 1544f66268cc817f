//! TLS on the ingest port, from rustls's and from openssl's side.

use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::ingest::archived;
use crate::support::http::{self, Response, exchange};
use crate::support::script::entry_message;
use crate::support::{Rng, Settings, TestServer, Upgrade, frames};

type TlsClient = StreamOwned<ClientConnection, std::net::TcpStream>;

/// Writes a new self-signed certificate for `localhost` and its key; each in one step, as careful tools do.
fn write_certificate(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    for (name, pem) in [("key.pem", made.signing_key.serialize_pem()), ("cert.pem", made.cert.pem())] {
        fs::write(folder.join("new"), pem).unwrap();
        fs::rename(folder.join("new"), folder.join(name)).unwrap();
    }
    made.cert.der().clone()
}

fn tls_settings() -> (Settings, CertificateDer<'static>) {
    let settings = Settings::new();
    let certificate = write_certificate(settings.root());
    let (cert, key) = (settings.root().join("cert.pem"), settings.root().join("key.pem"));
    (settings.set("tls.cert_path", cert.display()).set("tls.key_path", key.display()), certificate)
}

fn trusting(certificates: &[CertificateDer<'static>]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<TlsClient> {
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut client = StreamOwned::new(session, http::connect(address)?);
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock)?;
    }
    Ok(client)
}

/// Upgrades and reads until the greeting is there.
fn upgrade(client: &mut TlsClient, id: &str) {
    client.write_all(Upgrade::browser(id).head().as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let mut inbox = loop {
        if let Some(answer) = Response::parse(&bytes) {
            assert_eq!(answer.status, 101);
            break answer.body;
        }
        take_more(client, &mut bytes);
    };
    loop {
        if let Some(frame) = frames::take(&mut inbox) {
            assert_eq!(frame.opcode, frames::TEXT);
            return;
        }
        take_more(client, &mut inbox);
    }
}

fn take_more(client: &mut TlsClient, into: &mut Vec<u8>) {
    let mut chunk = [0; 4096];
    let count = client.read(&mut chunk).unwrap();
    assert!(count > 0, "the stream ended");
    into.extend_from_slice(&chunk[..count]);
}

fn next_frame(client: &mut TlsClient) -> frames::Frame {
    let mut inbox = Vec::new();
    loop {
        if let Some(frame) = frames::take(&mut inbox) {
            return frame;
        }
        take_more(client, &mut inbox);
    }
}

/// A whole session, with messages of many records, small ones packed into one record, and bytes behind `close_notify`
/// that never come: everything is archived.
#[test]
fn a_session_over_tls() {
    let (settings, certificate) = tls_settings();
    let server = settings.start();
    let id = Rng::new(70).uuid();
    let mut client = connect(server.ingest, &trusting(&[certificate])).unwrap();
    upgrade(&mut client, &id);
    let long = format!("[\"{}\"]", "l".repeat(2_000_000));
    client.write_all(&frames::message(frames::TEXT, entry_message(&id, &long).as_bytes())).unwrap();
    let packed: Vec<u8> = (0..2000)
        .flat_map(|n| frames::message(frames::TEXT, entry_message(&id, &format!("[{n}]")).as_bytes()))
        .collect();
    client.write_all(&packed).unwrap();
    client.write_all(&frames::message(frames::PING, b"all there")).unwrap();
    let pong = next_frame(&mut client);
    assert_eq!((pong.opcode, pong.payload.as_slice()), (frames::PONG, b"all there".as_slice()));
    client.write_all(&frames::close(Some(1000), "")).unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    assert_eq!(next_frame(&mut client).opcode, frames::CLOSE);
    // The server ends with close_notify, too: anything else would be an error here.
    assert_eq!(client.read(&mut [0; 16]).unwrap(), 0);
    let body = &archived(&server, &id, 1)[0].body;
    let expected: String = std::iter::once(long)
        .chain((0..2000).map(|n| format!("[{n}]")))
        .fold(String::new(), |all, line| all + &line + "\n");
    assert!(*body == expected, "{} bytes of {}", body.len(), expected.len());
}

/// An end by `close_notify` alone, behind data in the same segment, is an end, and is answered with one.
#[test]
fn close_notify_ends_a_session() {
    let (settings, certificate) = tls_settings();
    let server = settings.start();
    let id = Rng::new(71).uuid();
    let mut client = connect(server.ingest, &trusting(&[certificate])).unwrap();
    upgrade(&mut client, &id);
    client
        .conn
        .writer()
        .write_all(&frames::message(frames::TEXT, entry_message(&id, "[1]").as_bytes()))
        .unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    // An end without close_notify would be an error.
    assert_eq!(client.read(&mut [0; 16]).unwrap(), 0);
    assert_eq!(archived(&server, &id, 1)[0].body, "[1]\n");
    server.wait_for_metric("rtcstats_connections_closed_total{reason=\"end_of_stream\"}", 1.0);
}

/// Plain HTTP is told so in plain text, health checks included; what begins like TLS and goes on otherwise gets an alert; a
/// handshake that does not come to its end is over at the limit of the head.
#[test]
fn who_does_not_speak_tls() {
    let (settings, certificate) = tls_settings();
    let server = settings.set("limits.head_timeout_s", 1).start();
    for request in ["GET /healthcheck HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), Upgrade::browser("a").head()] {
        let answer = exchange(server.ingest, request.as_bytes());
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains("TLS"), "{answer:?}");
    }
    let mut broken = http::connect(server.ingest).unwrap();
    broken.write_all(b"\x16\x03\x01\x00\x04\x02\x00\x00\x00rubbish").unwrap();
    let mut alert = Vec::new();
    broken.read_to_end(&mut alert).unwrap();
    assert_eq!(alert.first(), Some(&0x15), "{alert:?}");
    server.wait_for_metric("rtcstats_connections_refused_total{reason=\"tls\"}", 1.0);
    let mut silent: Vec<_> = ["", "\x16", "\x16\x03\x01\x01\x00"]
        .map(|start| {
            let mut stream = http::connect(server.ingest).unwrap();
            stream.write_all(start.as_bytes()).unwrap();
            stream
        })
        .into();
    for stream in &mut silent {
        assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
    }
    server.wait_for_metric("rtcstats_connections_refused_total{reason=\"head_timeout\"}", 3.0);
    // The head's time limit has an answer once there is TLS to carry it.
    let mut slow = connect(server.ingest, &trusting(&[certificate])).unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).unwrap();
    assert_eq!(Response::parse(&answer).unwrap().status, 408);
}

/// Certificates change under load: no handshake fails, nobody is dropped, new connections see the new one.
#[test]
fn certificates_change_under_load() {
    let (settings, first) = tls_settings();
    let server = settings.start();
    let root = server.root().to_owned();
    let mut known = vec![first];
    let mut inside = connect(server.ingest, &trusting(&known)).unwrap();
    upgrade(&mut inside, &Rng::new(72).uuid());
    let is_over = AtomicBool::new(false);
    let shown = |client: &TlsClient| client.conn.peer_certificates().unwrap()[0].clone().into_owned();
    let handshakes: usize = std::thread::scope(|scope| {
        let load: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut count = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        // The certificate is not what is tested here, so any is fine: openssl or the other thread look
                        // at it. What counts is that the handshake comes to its end.
                        let mut client = connect(server.ingest, &trusting_all()).expect("no handshake fails");
                        client.write_all(b"GET /healthcheck HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
                        let mut answer = Vec::new();
                        client.read_to_end(&mut answer).unwrap();
                        assert_eq!(Response::parse(&answer).unwrap().status, 200);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for change in 0..4 {
            let next = write_certificate(&root);
            if change % 2 == 0 {
                server.hangup();
            }
            known.push(next.clone());
            let config = trusting(&known);
            server.wait_until("the new certificate is shown", || {
                (shown(&connect(server.ingest, &config).unwrap()) == next).then_some(())
            });
        }
        is_over.store(true, Ordering::Relaxed);
        load.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    println!("{handshakes} handshakes during 4 changes, 0 failed");
    // Half of a pair is of no use; what was there stays, and the next good pair is found by itself.
    fs::write(root.join("cert.pem"), "half").unwrap();
    server.expect_log("tls.bad");
    connect(server.ingest, &trusting(&known)).expect("the old certificate is still there");
    inside.write_all(&frames::message(frames::PING, b"still")).unwrap();
    assert_eq!(next_frame(&mut inside).payload, b"still");
}

/// A client that does not look at the certificate.
fn trusting_all() -> Arc<ClientConfig> {
    #[derive(Debug)]
    struct Anybody(rustls::crypto::CryptoProvider);
    impl rustls::client::danger::ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.0.signature_verification_algorithms;
            rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
        }
        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.0.signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
    let provider = rustls::crypto::ring::default_provider();
    let config = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_safe_default_protocol_versions()
        .unwrap();
    Arc::new(
        config
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth(),
    )
}

/// What `openssl s_client` says about a connection; `None`, loudly, when there is no openssl.
fn s_client(server: &TestServer, options: &[&str]) -> Option<String> {
    let address = server.ingest.to_string();
    let spawned = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-servername", "localhost", "-CAfile", "cert.pem"])
        .args(options)
        .current_dir(server.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            eprintln!("SKIPPED: openssl cannot be executed: {error}");
            return None;
        }
    };
    // The server ends the connection behind the answer, and openssl with it.
    let request = b"GET /healthcheck HTTP/1.1\r\nHost: h\r\n\r\n";
    let _ = child.stdin.as_mut().unwrap().write_all(request);
    let done = child.wait_with_output().unwrap();
    Some(String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned())
}

/// TLS 1.2 and 1.3 are spoken, older ones refused, both resume, a foreign protocol is refused by name.
#[test]
fn openssl_agrees() {
    let (settings, _) = tls_settings();
    let server = settings.start();
    for (version, protocol) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let Some(first) =
            s_client(&server, &[version, "-ign_eof", "-sess_out", "session", "-alpn", "http/1.1"])
        else {
            return;
        };
        assert!(first.contains(&format!("New, {protocol}")), "{first}");
        assert!(first.contains("Verify return code: 0 (ok)"), "{first}");
        assert!(first.contains("HTTP/1.1 200"), "{first}");
        assert!(first.contains("ALPN protocol: http/1.1"), "{first}");
        let again = s_client(&server, &[version, "-ign_eof", "-sess_in", "session"]).unwrap();
        assert!(again.contains(&format!("Reused, {protocol}")), "{again}");
    }
    // Tickets outlive the certificate.
    write_certificate(server.root());
    server.hangup();
    server.expect_log("tls.reloaded");
    let again = s_client(&server, &["-tls1_3", "-ign_eof", "-sess_in", "session"]).unwrap();
    assert!(again.contains("Reused, TLSv1.3"), "{again}");
    let old = s_client(&server, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]).unwrap();
    assert!(old.contains("Cipher is (NONE)") && old.contains("SSL alert number"), "{old}");
    let h2 = s_client(&server, &["-alpn", "h2"]).unwrap();
    assert!(h2.contains("alert no application protocol"), "{h2}");
}

/// Files that are of no use stop the start.
#[test]
fn a_bad_certificate_stops_the_start() {
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    for (name, content) in [("cert.pem", "no PEM"), ("key.pem", "no PEM"), ("key.pem", &other)] {
        let (settings, _) = tls_settings();
        fs::write(settings.root().join(name), content).unwrap();
        let exit = settings.try_start().map(|_| ()).unwrap_err();
        assert!(!exit.status.success());
        assert!(exit.log.iter().any(|line| line.contains(".pem")), "{:?}", exit.log);
    }
    let (settings, certificate) = tls_settings();
    let pem = fs::read(settings.root().join("cert.pem")).unwrap();
    assert_eq!(
        CertificateDer::from_pem_slice(&pem).unwrap(),
        certificate,
        "the test writes what it believes"
    );
}
