//! Echoes WebSocket messages through the production head parser, handshake and decoder: the peer of the Autobahn suite.
//!
//! `echo [PORT]` listens on loopback (port 0, the default, is any), prints `listening 127.0.0.1:PORT` and ends when its
//! standard input is closed. One blocking thread per connection: this is a peer for tests, not a server.
#![expect(clippy::print_stdout, reason = "the port is this program's result")]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use rtcstats_server::handshake;
use rtcstats_server::http::{self, HeadLimits, HeadStatus, Method, Route};
use rtcstats_server::reasons::Refusal;
use rtcstats_server::websocket::{
    Decoder, Event, FrameLimits, push_binary, push_close, push_pong, push_text,
};

const HEAD: HeadLimits = HeadLimits { bytes_max: 8192, headers_max: 64 };

/// The suite sends messages of 16 MiB and fragments of 64 bytes.
const FRAMES: FrameLimits = FrameLimits { message_bytes_max: 64 << 20, message_fragments_max: 1 << 20 };

/// Large enough that the suite meets whole frames, small enough that it meets cut ones.
const READ_BYTES: usize = 64 << 10;

/// A peer that neither sends nor closes for so long holds its thread no longer.
const SILENCE_MAX: Duration = Duration::from_secs(60);

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).map_or(Ok(0), |text| text.parse()).map_err(io::Error::other)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    println!("listening {}", listener.local_addr()?);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    Ok(())
}

/// One connection; an error of the socket is the end of it and of no interest here.
fn serve(mut stream: TcpStream) {
    let result = stream
        .set_nodelay(true)
        .and_then(|()| stream.set_read_timeout(Some(SILENCE_MAX)))
        .and_then(|()| talk(&mut stream));
    if let Err(error) = result {
        eprintln!("connection ended: {error}");
    }
}

fn talk(stream: &mut TcpStream) -> io::Result<()> {
    let mut received = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut out = Vec::new();
    let head_len = loop {
        match upgrade(&received, &mut out) {
            Upgrading::ReadOn => {}
            Upgrading::Open { head_len } => break head_len,
            Upgrading::Answered => return finish(stream, &out, &mut buffer),
        }
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => received.extend(buffer.iter().take(count)),
        }
    };
    stream.write_all(&out)?;
    let mut decoder = Decoder::default();
    let mut input = received.split_off(head_len);
    loop {
        out.clear();
        let goes_on = echo(&mut decoder, &mut input, &mut out);
        if !goes_on {
            return finish(stream, &out, &mut buffer);
        }
        stream.write_all(&out)?;
        input.resize(READ_BYTES, 0);
        match stream.read(&mut input)? {
            0 => return Ok(()),
            count => input.truncate(count),
        }
    }
}

enum Upgrading {
    ReadOn,
    Open { head_len: usize },
    Answered,
}

/// What follows from the bytes so far; appends the answer, if there is one.
fn upgrade(received: &[u8], out: &mut Vec<u8>) -> Upgrading {
    let (head_len, head) = match http::parse_head(received, &HEAD) {
        HeadStatus::Incomplete => return Upgrading::ReadOn,
        HeadStatus::Complete { head_len, head } => (head_len, head),
        HeadStatus::TlsClientHello => {
            out.extend_from_slice(&http::TLS_ALERT);
            return Upgrading::Answered;
        }
        HeadStatus::Refused(fault) => {
            http::write_refusal(out, fault.refusal(), &fault.to_string(), Method::Other);
            return Upgrading::Answered;
        }
    };
    match http::route(&head) {
        Ok(Route::Upgrade) => match handshake::accept(&head) {
            Ok(granted) => {
                granted.write_response(out);
                return Upgrading::Open { head_len };
            }
            Err(fault) => http::write_refusal(out, fault.refusal(), &fault.to_string(), head.method),
        },
        Ok(Route::Health) => http::write_refusal(out, Refusal::NotFound, "this one only echoes", head.method),
        Err(fault) => http::write_refusal(out, fault.refusal(), &fault.to_string(), head.method),
    }
    Upgrading::Answered
}

/// Appends the answers to what was received; `false` when the last of them is a close frame.
fn echo(decoder: &mut Decoder, mut input: &mut [u8], out: &mut Vec<u8>) -> bool {
    loop {
        match decoder.feed(&mut input, &FRAMES) {
            Ok(None) => return true,
            Ok(Some(Event::Text(text))) => push_text(out, &text),
            Ok(Some(Event::Binary(bytes))) => push_binary(out, &bytes),
            Ok(Some(Event::Ping(bytes))) => push_pong(out, &bytes),
            Ok(Some(Event::Pong(_))) => {}
            Ok(Some(Event::Close { code, .. })) => {
                push_close(out, code, "");
                return false;
            }
            Err(violation) => {
                push_close(out, violation.close_reason().code(), &violation.to_string());
                return false;
            }
        }
    }
}

/// Writes the last bytes and waits for the peer to close, so that a reset does not overtake them.
fn finish(stream: &mut TcpStream, out: &[u8], buffer: &mut [u8]) -> io::Result<()> {
    stream.write_all(out)?;
    stream.shutdown(Shutdown::Write)?;
    while stream.read(buffer)? > 0 {}
    Ok(())
}
