//! A blocking WebSocket client that can be as correct, or as wrong, as a test wants.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::frames::{self, Frame};
use super::http::{self, Response};

/// The sample nonce of RFC 6455 1.3, and the answer which that section gives for it.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The first message of every connection to a session that is not resumed.
pub(crate) const GREETING: &str = r#"{"type":"sn","body":{"value":0,"state":"initial"}}"#;

/// What a client asks for when it upgrades.
#[derive(Debug, Clone)]
pub(crate) struct Upgrade {
    pub(crate) target: String,
    /// Offered subprotocols as one header value; empty offers none.
    pub(crate) protocols: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Upgrade {
    /// As a browser client connects with the session `id`.
    pub(crate) fn browser(id: &str) -> Self {
        Self {
            target: format!("/room?statsSessionId={id}&isReconnect=false"),
            protocols: "3.1_STANDARD".into(),
            headers: vec![
                ("Origin".into(), "https://meet.example.org".into()),
                (
                    "User-Agent".into(),
                    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
                     Chrome/138.0.0.0 Safari/537.36"
                        .into(),
                ),
            ],
        }
    }

    /// As a back end connects: no session in the URL, many on the connection.
    pub(crate) fn back_end(protocol: &str) -> Self {
        Self { target: "/".into(), protocols: protocol.into(), headers: Vec::new() }
    }

    pub(crate) fn target(mut self, target: &str) -> Self {
        self.target = target.into();
        self
    }

    /// The request head.
    pub(crate) fn head(&self) -> String {
        let mut head = format!(
            "GET {} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n",
            self.target
        );
        if !self.protocols.is_empty() {
            head += &format!("Sec-WebSocket-Protocol: {}\r\n", self.protocols);
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head + "\r\n"
    }
}

/// What came from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Incoming {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close {
        code: Option<u16>,
        reason: String,
    },
    /// The stream ended in order.
    End,
    /// The stream was reset.
    Reset,
}

/// One upgraded connection.
#[derive(Debug)]
pub(crate) struct WsClient {
    stream: TcpStream,
    inbox: Vec<u8>,
    pub(crate) answer: Response,
}

impl WsClient {
    /// Connects and upgrades; the greeting is still to be read.
    pub(crate) fn connect(address: SocketAddr, upgrade: &Upgrade) -> Self {
        match Self::try_connect(address, upgrade) {
            Ok(Ok(client)) => client,
            Ok(Err(refusal)) => panic!("the upgrade was refused: {refusal:?}"),
            Err(error) => panic!("no connection: {error}"),
        }
    }

    /// Connects, upgrades and reads the greeting.
    pub(crate) fn open(address: SocketAddr, upgrade: &Upgrade) -> Self {
        let mut client = Self::connect(address, upgrade);
        assert_eq!(client.expect_text(), GREETING);
        client
    }

    /// Connects and upgrades; an answer other than 101 is the inner error.
    pub(crate) fn try_connect(address: SocketAddr, upgrade: &Upgrade) -> io::Result<Result<Self, Response>> {
        let mut stream = http::connect(address)?;
        stream.write_all(upgrade.head().as_bytes())?;
        Self::upgraded(stream)
    }

    /// Takes over a stream on which the request head was already sent.
    pub(crate) fn upgraded(mut stream: TcpStream) -> io::Result<Result<Self, Response>> {
        let mut bytes = Vec::new();
        let mut answer = loop {
            if let Some(answer) = Response::parse(&bytes) {
                break answer;
            }
            let mut chunk = [0; 4096];
            let count = read(&mut stream, &mut chunk)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            bytes.extend_from_slice(&chunk[..count]);
        };
        if answer.status != 101 {
            return Ok(Err(answer));
        }
        assert_eq!(answer.header("sec-websocket-accept"), Some(ACCEPT), "{answer:?}");
        assert!(answer.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")));
        assert!(answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
        assert_eq!(answer.header("sec-websocket-extensions"), None, "no extension may be negotiated");
        let inbox = std::mem::take(&mut answer.body);
        Ok(Ok(Self { stream, inbox, answer }))
    }

    pub(crate) fn send_text(&mut self, text: &str) {
        self.send_bytes(&frames::message(frames::TEXT, text.as_bytes()));
    }

    /// Bytes as they are: frames, parts of frames, nonsense.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes).expect("the server takes what is sent");
    }

    pub(crate) fn try_send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next frame, or the end of the stream.
    ///
    /// # Panics
    ///
    /// Panics when nothing comes until the deadline.
    pub(crate) fn receive(&mut self) -> Incoming {
        loop {
            if let Some(frame) = frames::take(&mut self.inbox) {
                return understood(frame);
            }
            let mut chunk = [0; 16 * 1024];
            match read(&mut self.stream, &mut chunk) {
                Ok(0) => return Incoming::End,
                Ok(count) => self.inbox.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Incoming::Reset,
                Err(error) => panic!("nothing came from the server: {error}"),
            }
        }
    }

    /// The next text message; pings on the way are answered.
    pub(crate) fn expect_text(&mut self) -> String {
        match self.receive_answering_pings() {
            Incoming::Text(text) => text,
            other => panic!("a text message was expected, {other:?} came"),
        }
    }

    /// Sends a ping and waits for its pong: all that was sent before it has been read by the server.
    pub(crate) fn round_trip(&mut self) {
        self.try_round_trip().expect("the ping is answered");
    }

    /// As [`Self::round_trip`]; an end of the connection is an error.
    pub(crate) fn try_round_trip(&mut self) -> io::Result<()> {
        self.try_send_bytes(&frames::message(frames::PING, b"are you there"))?;
        loop {
            match self.receive() {
                Incoming::Pong(payload) => {
                    assert_eq!(payload, b"are you there");
                    return Ok(());
                }
                Incoming::Text(_) | Incoming::Ping(_) => {}
                Incoming::Close { .. } | Incoming::End | Incoming::Reset => {
                    return Err(ErrorKind::ConnectionAborted.into());
                }
            }
        }
    }

    /// Expects a close frame with `code` as the next message, answers it, and expects the end of the stream.
    pub(crate) fn expect_close(&mut self, code: u16) -> String {
        match self.receive_answering_pings() {
            Incoming::Close { code: Some(got), reason } => {
                assert_eq!(got, code, "close code, with reason {reason:?}");
                // The server may be gone already; what counts is that it told us.
                let _ = self.try_send_bytes(&frames::close(Some(code), ""));
                self.expect_end();
                reason
            }
            other => panic!("a close frame with {code} was expected, {other:?} came"),
        }
    }

    /// Expects the end of the stream. A reset counts: ours may still be under way when the server closes.
    pub(crate) fn expect_end(&mut self) {
        match self.receive() {
            Incoming::End | Incoming::Reset => {}
            other => panic!("the end was expected, {other:?} came"),
        }
    }

    /// The close handshake, begun by us; the server must echo the code.
    pub(crate) fn close(mut self, code: u16) {
        self.send_bytes(&frames::close(Some(code), ""));
        loop {
            match self.receive() {
                Incoming::Close { code: got, .. } => {
                    assert_eq!(got, Some(code), "the echoed close code");
                    return self.expect_end();
                }
                Incoming::Text(_) | Incoming::Ping(_) | Incoming::Pong(_) => {}
                end @ (Incoming::End | Incoming::Reset) => panic!("{end:?} instead of a close frame"),
            }
        }
    }

    /// Ends the sending direction; the other one stays open.
    pub(crate) fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("the stream is open");
    }

    /// Drops the connection so that the server gets a reset.
    pub(crate) fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(std::time::Duration::ZERO))
            .expect("SO_LINGER can be set");
    }

    fn receive_answering_pings(&mut self) -> Incoming {
        loop {
            match self.receive() {
                Incoming::Ping(payload) => self.send_bytes(&frames::message(frames::PONG, &payload)),
                other => return other,
            }
        }
    }
}

fn understood(frame: Frame) -> Incoming {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text from the server is UTF-8");
    match frame.opcode {
        frames::TEXT => Incoming::Text(text(&frame.payload)),
        frames::PING => Incoming::Ping(frame.payload),
        frames::PONG => Incoming::Pong(frame.payload),
        frames::CLOSE => match frame.payload.split_first_chunk::<2>() {
            Some((code, reason)) => {
                Incoming::Close { code: Some(u16::from_be_bytes(*code)), reason: text(reason) }
            }
            None => Incoming::Close { code: None, reason: String::new() },
        },
        opcode => panic!("the server sent opcode {opcode:#x}"),
    }
}

/// A read of a socket with a timeout does not go on by itself behind a signal or a stop of the machine.
fn read(stream: &mut TcpStream, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(into) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
