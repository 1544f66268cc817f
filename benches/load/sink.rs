//! The raw sink: what the kernel alone costs.
//!
//! One thread, one epoll. It answers the upgrade and sends the greeting, then reads into one shared buffer and writes
//! the bytes as they are to one file per connection: one `epoll_wait`, one `read` and one `write` for what has arrived
//! at a time. It unmasks nothing, parses nothing, and knows the end by the last eight bytes, a masked close frame. Where
//! there are descriptors for the connections and not for their files, it opens the file for each write.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);
/// The answer to the nonce that the fleet sends, and the greeting in a frame behind it.
const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: 3.1_STANDARD\r\n\r\n\
    \x81\x32{\"type\":\"sn\",\"body\":{\"value\":0,\"state\":\"initial\"}}";
/// A close frame with code 1000, and its answer.
const CLOSE: [u8; 4] = [0x88, 2, 3, 0xe8];

struct Connection {
    stream: TcpStream,
    record: Record,
    /// The last bytes that came: a close frame may arrive in two reads.
    tail: [u8; 8],
}

/// Where the bytes of a connection go.
enum Record {
    /// Nowhere: it has not been upgraded.
    None,
    Open(File),
    Named(PathBuf),
}

/// Where files are made, and whether they stay open.
struct Folder<'a> {
    path: &'a Path,
    by_name: bool,
}

/// Serves until the process is killed. The address is told on standard output. `by_name`: files do not stay open.
pub(crate) fn run(folder: &Path, by_name: bool) -> io::Result<()> {
    let folder = Folder { path: folder, by_name };
    let mut listener = TcpListener::bind("0.0.0.0:0".parse().expect("an address"))?;
    println!("sink.ready ingest={}", listener.local_addr()?);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut connections, &mut free)?;
                continue;
            }
            let slot = event.token().0;
            let Some(connection) = connections[slot].as_mut() else { continue };
            if !connection.receive(&mut buffer, &folder)? {
                connections[slot] = None;
                free.push(slot);
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    poll: &Poll,
    connections: &mut Vec<Option<Connection>>,
    free: &mut Vec<usize>,
) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let slot = free.pop().unwrap_or_else(|| {
            connections.push(None);
            connections.len() - 1
        });
        poll.registry().register(&mut stream, Token(slot), Interest::READABLE)?;
        connections[slot] = Some(Connection { stream, record: Record::None, tail: [0; 8] });
    }
}

impl Connection {
    /// Takes what has arrived; false when the connection is over.
    fn receive(&mut self, buffer: &mut [u8], folder: &Folder<'_>) -> io::Result<bool> {
        loop {
            let count = match self.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            let arrived = &buffer[..count];
            let written = match &mut self.record {
                Record::None => {
                    self.upgrade(arrived, folder)?;
                    return Ok(true);
                }
                Record::Open(file) => file.write(arrived)?,
                Record::Named(path) => OpenOptions::new().append(true).open(path)?.write(arrived)?,
            };
            assert_eq!(written, count, "a file takes a write whole");
            if self.is_over(count, arrived) {
                self.stream.write_all(&CLOSE)?;
                return Ok(false);
            }
            // Less than the buffer holds: the socket was empty, and the next byte is a new edge.
            if count < buffer.len() {
                return Ok(true);
            }
        }
    }

    fn upgrade(&mut self, head: &[u8], folder: &Folder<'_>) -> io::Result<()> {
        assert!(head.ends_with(b"\r\n\r\n"), "the fleet sends its head in one piece and then waits");
        let head = String::from_utf8_lossy(head);
        let id =
            head.split("statsSessionId=").nth(1).and_then(|rest| rest.get(..36)).expect("an id in the URL");
        let path = folder.path.join(id);
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        self.record = if folder.by_name { Record::Named(path) } else { Record::Open(file) };
        self.stream.write_all(ANSWER)
    }

    fn is_over(&mut self, count: usize, arrived: &[u8]) -> bool {
        match arrived.last_chunk::<8>() {
            Some(last) => self.tail = *last,
            None => {
                self.tail.rotate_left(count);
                self.tail[8 - count..].copy_from_slice(arrived);
            }
        }
        let [opcode, length, a, b, _, _, high, low] = self.tail;
        [opcode, length & 0x7f, high ^ a, low ^ b] == CLOSE
    }
}
