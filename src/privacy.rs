//! Cutting IP addresses out of what is kept: `privacy.obfuscate_ip`.
//!
//! Owns the form of a cut address and the pass that cuts them. Pure: bytes in, bytes out, nothing of files, of sessions or of
//! what an entry means. The dump in the folder of dumps is never touched, for resuming depends on it; who archives a dump or
//! publishes what follows from it sends it through here.
//!
//! One textual pass over every line, whether that parses or not. Addresses stand in candidates, descriptions, statistics, URLs
//! of servers, JSON inside strings and log texts of back ends, under keys that change with every browser; a list of places
//! would leak what it does not know. So an address is known by its form, at the borders of a word, and little is spared:
//!
//! | what | becomes |
//! |---|---|
//! | `203.0.113.77` | `203.0.113.0` |
//! | `2001:db8:1:2:3:4:5:6` | `2001:db8:1::` |
//! | `[2001:db8:1::7]:443`, `203.0.113.77:443` | as above, the port stays |
//! | `2001:db8:1:0:0:0:0:7:443` (old Java), `host:2001:db8:1::7` | `[2001:db8:1::]:443`, `host:[2001:db8:1::]` |
//! | `::ffff:203.0.113.77`, `::ffff:cb00:714d` | `::ffff:203.0.113.0` |
//! | `2002:cb00:714d::1` (6to4, an IPv4 address inside) | `2002:cb00:7100::` |
//! | `127.0.0.0/8`, `0.0.0.0/8`, `::1`, `::`, `::ffff:7f00:1` | stay: they are nobody's |
//! | IPv6 that begins with one or two digits, but for `64:ff9b:` and `::` before an IPv4 address | stays: a time, or bytes |
//! | names that end in `.local` (mDNS), `x.x.x.x` and what else clients have masked | stay |
//! | fingerprints, times, numbers with more or fewer than four parts | stay |
//! | `Name/1.2.3.4` under a key that ends in `userAgent`, `1.2.3.4` under one that ends in `version` | stay |
//!
//! Escapes are seen through: `\n203.0.113.7` and `%2F203.0.113.7` begin a word at the digit, `203\u002e0.113.7` is an address, and
//! so are `2001%3Adb8%3A%3A7` and `2001%253Adb8%253A%253A7`; `\u001b[32m203.0.113.7`, a colour of a terminal, begins a word behind
//! the letter. What is not recognised is listed in the docs, and so is what is cut and is no address.
//! What is cut is still an address of its family and stays as it is when it is cut again. A line that is JSON is JSON of the
//! same shape afterwards: two dots or two colons between digits stand inside strings only. Members of an object whose names are
//! addresses can have equal names then.
//! Rules: ours; docs/configuration.md, "Addresses in the archive". Sources of the forms: RFC 4291 2.2, RFC 3056 2.

use std::convert::Infallible;
use std::io::{self, Write};

mod address;
mod escapes;
mod scanner;
mod version;

use scanner::Scanner;

/// Bytes that are looked at together. Lines below this size are never divided.
const PIECE_BYTES: usize = 256 * 1024;

/// A text without its addresses.
#[must_use]
pub fn cut(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Cutter::default().append(text, &mut out);
    out
}

/// Cuts the addresses in a text that comes piece by piece, in bounded memory. How the text is fed does not show.
#[derive(Debug, Default)]
pub struct Cutter {
    /// What was fed and not given out. At most [`PIECE_BYTES`].
    pending: Vec<u8>,
    /// The piece that is given out, if anything in it was cut. Below twice [`PIECE_BYTES`]: an address gets longer by seven bytes
    /// at most, and then has 13 (`::ffff:aaaa:1` with a colon beside it: `[::ffff:170.170.0.0]`).
    out: Vec<u8>,
    scanner: Scanner,
}

impl Cutter {
    /// Begins a new text, whatever became of the one before.
    pub fn begin(&mut self) {
        self.pending.clear();
    }

    /// Takes the next bytes, and gives to `sink` what is finished.
    ///
    /// # Errors
    /// Those of `sink`; the text is then useless.
    pub fn feed<E>(
        &mut self,
        mut bytes: &[u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            let (taken, rest) = bytes.split_at(bytes.len().min(PIECE_BYTES - self.pending.len()));
            self.pending.extend_from_slice(taken);
            bytes = rest;
            // Only a full buffer is divided, so that the places follow from the text alone: the same dump gives the same copy.
            if self.pending.len() == PIECE_BYTES {
                self.give(end_of_piece(&self.pending), &mut sink)?;
            }
        }
        Ok(())
    }

    /// Ends the text: gives the rest to `sink`.
    ///
    /// # Errors
    /// Those of `sink`; the text is then useless.
    pub fn end<E>(&mut self, sink: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        self.give(self.pending.len(), sink)
    }

    /// Appends a whole text to `to`, without its addresses.
    pub fn append(&mut self, text: &[u8], to: &mut Vec<u8>) {
        let mut writer = self.write_to(to);
        writer.feed(text);
        writer.end();
    }

    /// A writer of a new text, which is appended to `to` without its addresses.
    pub fn write_to<'a>(&'a mut self, to: &'a mut Vec<u8>) -> CutWriter<'a> {
        self.begin();
        CutWriter { cutter: self, to }
    }

    /// Gives out the first `len` bytes.
    fn give<E>(&mut self, len: usize, mut sink: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let piece = self.pending.get(..len).unwrap_or_default();
        self.out.clear();
        sink(if self.scanner.cut(piece, &mut self.out) { &self.out } else { piece })?;
        self.pending.drain(..len);
        Ok(())
    }

    /// Bytes of memory that are held.
    #[cfg(test)]
    fn held_bytes(&self) -> usize {
        self.pending.capacity() + self.out.capacity() + self.scanner.held_bytes()
    }
}

/// Takes a text and appends it to memory, without its addresses. Unless it is [ended](Self::end), the last part is lost.
#[derive(Debug)]
pub struct CutWriter<'a> {
    cutter: &'a mut Cutter,
    to: &'a mut Vec<u8>,
}

impl CutWriter<'_> {
    /// Ends the text.
    pub fn end(self) {
        let Ok(()) = self.cutter.end(append_to(self.to));
    }

    fn feed(&mut self, bytes: &[u8]) {
        let Ok(()) = self.cutter.feed(bytes, append_to(self.to));
    }
}

impl Write for CutWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.feed(bytes);
        Ok(bytes.len())
    }

    /// Does nothing: how the text is written does not show.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn append_to(to: &mut Vec<u8>) -> impl FnMut(&[u8]) -> Result<(), Infallible> {
    |piece| {
        to.extend_from_slice(piece);
        Ok(())
    }
}

/// Where a full buffer is divided: behind its last line; in a longer line, behind the last byte that no address, no escape and no
/// product of a user agent holds; without one, behind the last that no address and no escape holds. A quarter of a MiB without any of
/// these is no text of people or programs; it is divided where it is full.
fn end_of_piece(bytes: &[u8]) -> usize {
    let may_be_held = |byte: u8| byte.is_ascii_alphanumeric() || b".:%\\\x1b[;".contains(&byte);
    memchr::memrchr(b'\n', bytes)
        .or_else(|| bytes.iter().rposition(|byte| b"\r ,{}".contains(byte)))
        .or_else(|| bytes.iter().rposition(|byte| !may_be_held(*byte)))
        .map_or(bytes.len(), |at| at + 1)
}

/// Where the bytes of a kind end that begin at `start`.
fn end_of(text: &[u8], start: usize, is_of_kind: impl Fn(u8) -> bool) -> usize {
    let tail = text.get(start..).unwrap_or_default();
    let len = tail.iter().position(|byte| !is_of_kind(*byte)).unwrap_or(tail.len());
    looked_at(len);
    start + len
}

/// Counts bytes that are looked at, each time they are: only in tests, which hold this to the length of the text.
#[cfg(not(test))]
fn looked_at(_bytes: usize) {}

#[cfg(test)]
use tests::looked_at;

#[cfg(test)]
mod tests;
