//! Bytes -> lines: `\n`, `\r\n` or a lone `\r` ends one.
//!
//! Owns the only buffer that may grow to the longest line; a line that lies within the reader's own buffer is
//! handed over from there without copying. How the input is split into reads never shows.
//! Rules: feature extraction 2.

use std::io::{self, BufRead};

/// A line without its terminator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RawLine<'a> {
    /// Its bytes.
    Bytes(&'a [u8]),
    /// It was longer than allowed and its bytes are gone.
    TooLong {
        /// How long it was.
        bytes: u64,
    },
}

/// Calls `each` for every line of `input`; lines above `bytes_max` are passed over without being kept.
///
/// # Errors
///
/// Those of reading, and the first of `each`.
pub(super) fn for_each_line<R: BufRead, E: From<io::Error>>(
    mut input: R,
    bytes_max: usize,
    mut each: impl FnMut(RawLine<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut started = Started { kept: Vec::new(), bytes: 0, bytes_max };
    // A `\r` was the last byte: a `\n` that follows belongs to the same terminator.
    let mut after_cr = false;
    loop {
        let buffer = match input.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        let Some(first) = buffer.first() else { break };
        if std::mem::take(&mut after_cr) && *first == b'\n' {
            input.consume(1);
            continue;
        }
        let Some(end) = memchr::memchr2(b'\n', b'\r', buffer) else {
            let length = buffer.len();
            started.extend(buffer);
            input.consume(length);
            continue;
        };
        let (line, rest) = buffer.split_at(end);
        after_cr = rest.first() == Some(&b'\r');
        if started.bytes == 0 && line.len() <= bytes_max {
            each(RawLine::Bytes(line))?;
        } else {
            started.extend(line);
            each(started.line())?;
            started.clear();
        }
        input.consume(end + 1);
    }
    if started.bytes > 0 { each(started.line()) } else { Ok(()) }
}

/// A line whose end has not been seen.
struct Started {
    kept: Vec<u8>,
    bytes: u64,
    bytes_max: usize,
}

impl Started {
    fn extend(&mut self, part: &[u8]) {
        self.bytes += part.len() as u64;
        if self.bytes <= self.bytes_max as u64 {
            self.kept.extend_from_slice(part);
        } else {
            self.kept = Vec::new();
        }
    }

    fn line(&self) -> RawLine<'_> {
        if self.bytes <= self.bytes_max as u64 {
            RawLine::Bytes(&self.kept)
        } else {
            RawLine::TooLong { bytes: self.bytes }
        }
    }

    fn clear(&mut self) {
        self.kept.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: impl BufRead, bytes_max: usize) -> Vec<String> {
        let mut out = Vec::new();
        for_each_line(input, bytes_max, |line| {
            out.push(match line {
                RawLine::Bytes(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
                RawLine::TooLong { bytes } => format!("<{bytes}>"),
            });
            Ok::<(), io::Error>(())
        })
        .unwrap();
        out
    }

    /// Gives the bytes in pieces of `size`.
    struct Pieces<'a>(&'a [u8], usize);

    impl io::Read for Pieces<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(self.0.len()).min(buf.len());
            let (head, tail) = self.0.split_at(length);
            buf[..length].copy_from_slice(head);
            self.0 = tail;
            Ok(length)
        }
    }

    #[test]
    fn lines_end_at_three_terminators_however_the_input_is_split() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            ("a", &["a"]),
            ("a\n", &["a"]),
            ("a\r\nb\rc\nd", &["a", "b", "c", "d"]),
            ("\n", &[""]),
            ("a\n\nb", &["a", "", "b"]),
            ("a\r\r\nb\n\r\n", &["a", "", "b", ""]),
            ("a\u{2028}b\u{85}\u{b}\u{c}c\n", &["a\u{2028}b\u{85}\u{b}\u{c}c"]),
            ("0123456789a\nb\n", &["<11>", "b"]),
            ("0123456789\r\n", &["0123456789"]),
        ];
        for (text, expected) in cases {
            for size in 1..=text.len().max(1) {
                let input = io::BufReader::with_capacity(size, Pieces(text.as_bytes(), size));
                assert_eq!(lines(input, 10), *expected, "{text:?} in pieces of {size}");
            }
            assert_eq!(lines(text.as_bytes(), 10), *expected, "{text:?}");
        }
    }
}
