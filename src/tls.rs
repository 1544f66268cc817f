//! TLS on the ingest port: rustls over a non-blocking stream.
//!
//! Owns the certificate (read, checked, read again when its files change) and [`TlsStream`], which looks to the connection
//! like a plain stream. Names no mio. TLS 1.2 and 1.3 with rustls's own choice of ciphers; a session is resumed by
//! tickets, whose keys outlive a change of certificates.
//!
//! Readiness is edge-triggered, so nothing may stay behind unseen: [`TlsStream`] reads until its caller's buffer is full or
//! the socket is empty, as the caller expects of a socket, and [`Transport::has_more`] tells of an end that was already read.
//! At most one record of plaintext and what it becomes wait for the socket inside; the rest stays in the connection's
//! queue, where it is bounded.
//!
//! A peer that does not begin with a TLS record speaks plain HTTP: its bytes are handed on as they are, and the connection
//! is told by [`Transport::is_foreign`] that it should answer in kind and close.
//!
//! Blocking: two `stat(2)` a second, and the reading of two small files when they say so.

use std::fmt;
use std::fs::Metadata;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::ProducesTickets;
use rustls::{ServerConfig, ServerConnection};

use crate::config::TlsConfig;
use crate::connection::Transport;

/// First byte of every TLS connection: a handshake record (RFC 8446 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;
/// Plaintext that may wait inside for the socket: one record.
const PENDING_BYTES_MAX: usize = 16 * 1024;

/// Why there is no TLS. Never shows what is in the files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file has not what it should have.
    #[error("{path} has no {what} in PEM")]
    NotPem {
        /// Which one.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// They do not fit together, or are of no use to rustls.
    #[error("cannot use the certificate in {cert_path} with its key")]
    Unusable {
        /// The certificate's file.
        cert_path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The system has no random numbers, or rustls lacks something that was compiled in.
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
}

/// The certificate in effect, and what new connections need.
pub struct Tls {
    cert_path: PathBuf,
    key_path: PathBuf,
    /// The files as they were at the last attempt.
    stamps: [Option<Stamp>; 2],
    ticketer: Arc<dyn ProducesTickets>,
    config: Arc<ServerConfig>,
}

/// What of a file changes when it is replaced or rewritten: device, inode, time of the last write in two parts, size.
type Stamp = (u64, u64, i64, i64, u64);

impl Tls {
    /// TLS as configured; `None` when it is not.
    ///
    /// # Errors
    /// The files are of no use.
    pub fn load(settings: &TlsConfig) -> Result<Option<Self>, TlsError> {
        let (Some(cert_path), Some(key_path)) = (&settings.cert_path, &settings.key_path) else {
            return Ok(None);
        };
        let ticketer = rustls::crypto::ring::Ticketer::new().map_err(TlsError::Setup)?;
        let stamps = [cert_path, key_path].map(|path| stamp(path));
        let config = server_config(cert_path, key_path, Arc::clone(&ticketer))?;
        let (cert_path, key_path) = (cert_path.clone(), key_path.clone());
        Ok(Some(Self { cert_path, key_path, stamps, ticketer, config }))
    }

    /// Reads both files again. Connections that exist keep what they have.
    ///
    /// # Errors
    /// The files are of no use; what was in effect stays.
    pub fn reload(&mut self) -> Result<(), TlsError> {
        self.stamps = [&self.cert_path, &self.key_path].map(|path| stamp(path));
        self.config = server_config(&self.cert_path, &self.key_path, Arc::clone(&self.ticketer))?;
        Ok(())
    }

    /// Whether a file is another one than at the last attempt.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        [&self.cert_path, &self.key_path].map(|path| stamp(path)) != self.stamps
    }

    /// The server's side of a new connection.
    ///
    /// # Errors
    /// When rustls refuses its own configuration, which it does not.
    pub fn accept<S: Transport>(&self, stream: S) -> Result<TlsStream<S>, TlsError> {
        let mut session = ServerConnection::new(Arc::clone(&self.config)).map_err(TlsError::Setup)?;
        session.set_buffer_limit(Some(PENDING_BYTES_MAX));
        Ok(TlsStream { stream, session, state: State::Fresh, is_finishing: false })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("cert_path", &self.cert_path).finish_non_exhaustive()
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let of = |data: Metadata| (data.dev(), data.ino(), data.mtime(), data.mtime_nsec(), data.size());
    std::fs::metadata(path).ok().map(of)
}

fn server_config(
    cert_path: &Path,
    key_path: &Path,
    ticketer: Arc<dyn ProducesTickets>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let not_pem = |path: &Path, what| {
        let path = path.to_owned();
        move |source| TlsError::NotPem { path, what, source }
    };
    let cert_pem = read(cert_path)?;
    let chain = CertificateDer::pem_slice_iter(&cert_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(not_pem(cert_path, "certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(&read(key_path)?).map_err(not_pem(key_path, "private key"))?;
    let unusable = |source| TlsError::Unusable { cert_path: cert_path.to_owned(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.ticketer = ticketer;
    // A client that speaks HTTP/2 alone learns it in the handshake.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not a byte was read.
    Fresh,
    /// It began as TLS does.
    Tls,
    /// The peer has ended its side (`close_notify`, or the end of the stream); not yet told to our caller.
    Ended,
    /// It did not begin as TLS does.
    Foreign,
    /// TLS went wrong; what still comes is thrown away by our caller, what goes out is thrown away here.
    Failed,
}

/// A TLS session over a non-blocking stream.
pub struct TlsStream<S> {
    stream: S,
    session: ServerConnection,
    state: State,
    /// Our side ends as soon as everything has left.
    is_finishing: bool,
}

impl<S> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("state", &self.state).finish_non_exhaustive()
    }
}

impl<S: Transport> TlsStream<S> {
    /// The stream below, for registration.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Decides by the first byte what the peer speaks.
    fn look_at_first_byte(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut first = [0];
        if self.stream.read(&mut first)? == 0 {
            return Ok(0);
        }
        if first == [HANDSHAKE_RECORD] {
            self.state = State::Tls;
            self.session.read_tls(&mut first.as_slice())?;
            return self.read_session(buffer);
        }
        self.state = State::Foreign;
        let Some((head, rest)) = buffer.split_first_mut() else { return Ok(0) };
        [*head] = first;
        match self.stream.read(rest) {
            Ok(count) => Ok(1 + count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(1),
            Err(error) => Err(error),
        }
    }

    /// Reads plaintext until the buffer is full or the socket is empty.
    fn read_session(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        loop {
            let rest = buffer.get_mut(filled..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(filled);
            }
            match self.session.reader().read(rest) {
                Ok(0) => return Ok(self.ended(filled)),
                Ok(count) => {
                    filled += count;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The stream ended without close_notify. Frames carry their own lengths, so nothing can be cut unseen.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(self.ended(filled)),
                Err(error) => return Err(error),
            }
            match self.session.read_tls(&mut self.stream) {
                // The end is told by the reader above, once it is known to the session.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return if filled > 0 { Ok(filled) } else { Err(error) };
                }
                Err(error) => return Err(error),
            }
            let processed = self.session.process_new_packets();
            // An answer of the handshake, a new ticket, an alert.
            self.push()?;
            if let Err(error) = processed {
                self.state = State::Failed;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }

    /// The reader has come to its end. Tells it at once, or after what was read before it.
    fn ended(&mut self, filled: usize) -> usize {
        self.state = if filled > 0 { State::Ended } else { State::Tls };
        filled
    }

    /// Writes what is ready, as far as the socket takes it.
    fn push(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.is_finishing {
            self.is_finishing = false;
            self.stream.finish_writing()?;
        }
        Ok(())
    }
}

impl<S: Transport> Read for TlsStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.state {
            State::Fresh => self.look_at_first_byte(buffer),
            State::Tls => self.read_session(buffer),
            State::Ended => {
                self.state = State::Tls;
                Ok(0)
            }
            State::Foreign | State::Failed => self.stream.read(buffer),
        }
    }
}

impl<S: Transport> Write for TlsStream<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.state {
            State::Foreign => return self.stream.write(bytes),
            State::Failed => return Ok(bytes.len()),
            State::Fresh | State::Tls | State::Ended => {}
        }
        self.push()?;
        if self.session.wants_write() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.session.writer().write(bytes)?;
        self.push()?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.state {
            State::Foreign => self.stream.flush(),
            State::Fresh | State::Tls | State::Ended | State::Failed => self.push(),
        }
    }
}

impl<S: Transport> Transport for TlsStream<S> {
    fn finish_writing(&mut self) -> io::Result<()> {
        match self.state {
            State::Foreign => self.stream.finish_writing(),
            State::Fresh | State::Tls | State::Ended | State::Failed => {
                if self.state != State::Failed {
                    self.session.send_close_notify();
                }
                self.is_finishing = true;
                self.push()
            }
        }
    }

    fn say_goodbye(&mut self) {
        if matches!(self.state, State::Tls | State::Ended) {
            self.session.send_close_notify();
            // The stream is closed whether it takes this or not.
            let _ = self.push();
        }
    }

    fn has_more(&self) -> bool {
        self.state == State::Ended
    }

    fn wants_write(&self) -> bool {
        self.state != State::Foreign && self.session.wants_write()
    }

    fn is_established(&self) -> bool {
        match self.state {
            State::Fresh => false,
            State::Tls | State::Ended => !self.session.is_handshaking(),
            State::Foreign | State::Failed => true,
        }
    }

    fn is_foreign(&self) -> bool {
        self.state == State::Foreign
    }
}
