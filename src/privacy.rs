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
//! | `127.0.0.1`, `0.0.0.0`, `::1`, `::` | stay: they are nobody's |
//! | names that end in `.local` (mDNS), `x.x.x.x` and what else clients have masked | stay |
//! | fingerprints, times, numbers with more or fewer than four parts | stay |
//! | `Name/1.2.3.4` under a key that ends in `userAgent`, `1.2.3.4` under one that ends in `version` | stay |
//!
//! Escapes are seen through: `\n203.0.113.7` and `%2F203.0.113.7` begin a word at the digit, `203\u002e0.113.7` is an address.
//! What is cut is still an address of its family and stays as it is when it is cut again. A line that is JSON is JSON of the
//! same shape afterwards: two dots or two colons between digits stand inside strings only.
//! Rules: ours; docs/configuration.md, "Addresses in the archive". Sources of the forms: RFC 4291 2.2, RFC 3056 2.

mod address;
mod scanner;

use scanner::Scanner;

/// Bytes that are looked at together. Lines below this size are never divided.
const PIECE_BYTES: usize = 256 * 1024;

/// Cuts the addresses in a text that is in memory as a whole.
#[must_use]
pub fn cut(text: Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    if Scanner::default().cut(&text, &mut out) { out } else { text }
}

/// Cuts the addresses in a text that comes piece by piece, in bounded memory. How the text is divided does not show.
#[derive(Debug, Default)]
pub struct Cutter {
    /// What was fed and not given out. At most [`PIECE_BYTES`].
    pending: Vec<u8>,
    /// The piece that is given out, if anything in it was cut. Addresses get longer by two bytes at most, around a port.
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

    /// Gives out the first `len` bytes.
    fn give<E>(&mut self, len: usize, mut sink: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let piece = self.pending.get(..len).unwrap_or_default();
        self.out.clear();
        sink(if self.scanner.cut(piece, &mut self.out) { &self.out } else { piece })?;
        self.pending.drain(..len);
        Ok(())
    }
}

/// Where a full buffer is divided: behind its last line; in a longer line, behind the last byte that no address and no escape
/// holds. A quarter of a MiB without any of these is no text; it is divided where it is full.
fn end_of_piece(bytes: &[u8]) -> usize {
    let last = |wanted: &[u8]| bytes.iter().rposition(|byte| wanted.contains(byte)).map(|at| at + 1);
    last(b"\n").or_else(|| last(b"\r ,;{}")).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests;
