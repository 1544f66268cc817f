//! An accepted socket, with TLS or without.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;

use crate::connection::Transport;
use crate::tls::TlsStream;

/// The transport of every connection.
#[derive(Debug)]
pub enum Socket {
    /// As it is.
    Plain(TcpStream),
    /// With TLS on it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// The stream that is registered with the event queue.
    pub fn tcp_mut(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.stream_mut(),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl Transport for TcpStream {
    fn finish_writing(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Transport for Socket {
    fn finish_writing(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.finish_writing(),
            Self::Tls(stream) => stream.finish_writing(),
        }
    }

    fn say_goodbye(&mut self) {
        match self {
            Self::Plain(stream) => stream.say_goodbye(),
            Self::Tls(stream) => stream.say_goodbye(),
        }
    }

    fn has_more(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.has_more(),
            Self::Tls(stream) => stream.has_more(),
        }
    }

    fn wants_write(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.wants_write(),
            Self::Tls(stream) => stream.wants_write(),
        }
    }

    fn is_established(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_established(),
            Self::Tls(stream) => stream.is_established(),
        }
    }

    fn is_foreign(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_foreign(),
            Self::Tls(stream) => stream.is_foreign(),
        }
    }
}
