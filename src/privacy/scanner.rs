//! Finds addresses in a text and writes the text without them.
//!
//! Owns the borders of words. Works on the view of the text (see `escapes`), which is as long as the text, so that a place in one
//! is a place in the other. What is an address is decided in `address`. Time grows with the text, whatever is in it: a run of
//! digits and separators is read once, however many addresses are in it.

use std::fmt;
use std::io::Write as _;
use std::ops::Range;

use super::address;
use super::escapes::{self, FILLER};
use super::version::is_version;
use super::{end_of, looked_at};

/// Digits of an octet at most.
const OCTET_DIGITS_MAX: usize = 3;

/// The pass over one piece of text, and the memory that it uses again.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// The text with its escapes masked; only filled for texts that have any. As long as the text.
    view: Vec<u8>,
    /// A run without its fillers. At most as long as the text.
    run: Vec<u8>,
}

impl Scanner {
    /// Appends `text` with its addresses cut to `out`, and says `true`; or says `false`, when there is nothing to be cut.
    pub(super) fn cut(&mut self, text: &[u8], out: &mut Vec<u8>) -> bool {
        let Self { view, run } = self;
        let view = escapes::masked(text, view);
        looked_at(text.len());
        let mut pass = Pass { text, view, out, done: 0 };
        // Where the runs end that were looked at.
        let (mut v6_end, mut v4_end) = (0, 0);
        for at in memchr::memchr2_iter(b':', b'.', view) {
            // The colon of a JSON member, or the dot of a fraction, nearly always: no second one follows.
            if view.get(at) == Some(&b':') {
                if at >= v6_end {
                    v6_end = end_of(view, at + 1, is_v6_digit);
                    if view.get(v6_end) == Some(&b':') {
                        v6_end = end_of_v6(view, v6_end);
                        pass.cut_v6(at..v6_end, run);
                    }
                }
            } else if at >= v4_end.max(pass.done) {
                v4_end = end_of(view, at + 1, is_v4_digit);
                if view.get(v4_end) == Some(&b'.') {
                    v4_end = end_of(view, v4_end, is_v4_byte);
                    pass.cut_v4(at..v4_end, run);
                }
            }
        }
        pass.finish()
    }

    /// Bytes of memory that are held.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.view.capacity() + self.run.capacity()
    }
}

/// A text on its way out.
struct Pass<'a> {
    text: &'a [u8],
    view: &'a [u8],
    out: &'a mut Vec<u8>,
    /// Up to here the text was written. What was cut ends a word: what follows it may be the next address.
    done: usize,
}

impl Pass<'_> {
    /// Cuts the IPv6 addresses of the run that has its first colon, and its end, where `tail` has them. There is a second colon.
    fn cut_v6(&mut self, tail: Range<usize>, run: &mut Vec<u8>) {
        let start = self.start_of(tail.start, is_v6_digit);
        let mut places = Places::read(self.view, start..tail.end, run);
        let Some(body) = body_of_v6(run, self.byte_before(start), self.view.get(tail.end)) else { return };
        let text = run.get(..body.end).unwrap_or_default();
        let mut from = body.start;
        while let Some((range, address)) = address::first_v6(text, from) {
            from = range.end;
            let has_colon_beside = run.get(..range.start).is_some_and(|before| before.ends_with(b":"))
                || run.get(range.end) == Some(&b':');
            let place = places.of(range.start)..places.of(range.end);
            // With a colon or digits beside it, a port for instance, it gets brackets, to begin and end where it does.
            if range != body || has_colon_beside {
                self.replace(place, format_args!("[{address}]"));
            } else {
                self.replace(place, format_args!("{address}"));
            }
        }
    }

    /// Cuts the IPv4 addresses of the run that has its first dot, and its end, where `tail` has them.
    fn cut_v4(&mut self, tail: Range<usize>, run: &mut Vec<u8>) {
        let behind = self.view.get(tail.clone()).unwrap_or_default();
        looked_at(behind.len());
        if behind.iter().filter(|byte| **byte == b'.').count() < 3 {
            return;
        }
        let start = self.start_of(tail.start, is_v4_byte);
        let mut places = Places::read(self.view, start..tail.end, run);
        let is_alphanumeric = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let is_begun_before = is_alphanumeric(self.byte_before(start));
        let goes_on_behind = is_alphanumeric(self.view.get(tail.end));
        for number in numbers(run) {
            // Digits of a word are no octet; a dot ends a word: `1.2.3.4.example.org`, `It is 1.2.3.4.`
            if (number.start == 0 && is_begun_before) || (number.end == run.len() && goes_on_behind) {
                continue;
            }
            let text = run.get(number.clone()).unwrap_or_default();
            let Some(dot) = text.iter().rposition(|byte| *byte == b'.') else { continue };
            if address::is_v4_of_somebody(text) && !is_version(self.view, places.of(number.start)) {
                let last_octet = places.of(number.start + dot + 1)..places.of(number.end);
                self.replace(last_octet, format_args!("0"));
            }
        }
    }

    /// Writes what lies before `range`, and `with` instead of what is in it.
    fn replace(&mut self, range: Range<usize>, with: fmt::Arguments<'_>) {
        self.out.extend_from_slice(self.text.get(self.done..range.start).unwrap_or_default());
        // Writing to memory cannot fail.
        let _ = self.out.write_fmt(with);
        self.done = range.end;
    }

    /// Writes what is left, if anything was replaced; whether it was.
    fn finish(self) -> bool {
        if self.done > 0 {
            self.out.extend_from_slice(self.text.get(self.done..).unwrap_or_default());
        }
        self.done > 0
    }

    /// Where the bytes of a kind begin that end before `end`.
    fn start_of(&self, end: usize, is_of_kind: impl Fn(u8) -> bool) -> usize {
        let before = self.view.get(self.done..end).unwrap_or_default();
        let len = before.iter().rev().take_while(|byte| is_of_kind(**byte)).count();
        looked_at(len);
        end - len
    }

    /// The byte before `start`, of what is not written yet.
    fn byte_before(&self, start: usize) -> Option<&u8> {
        self.view.get(self.done..start)?.last()
    }
}

/// Where the bytes of a run stand in the view. To be asked from front to back.
struct Places<'a> {
    view: &'a [u8],
    /// Where the run ends.
    end: usize,
    /// The byte of the run that was asked for last.
    at: usize,
    /// Where it stands.
    place: usize,
}

impl<'a> Places<'a> {
    /// Puts the run that lies in `range` of the view into `run`, without its fillers.
    fn read(view: &'a [u8], range: Range<usize>, run: &mut Vec<u8>) -> Self {
        looked_at(2 * range.len());
        run.clear();
        let bytes = view.get(range.clone()).unwrap_or_default();
        run.extend(bytes.iter().copied().filter(|byte| *byte != FILLER));
        let mut places = Self { view, end: range.end, at: 0, place: range.start };
        places.skip_fillers();
        places
    }

    /// Where the byte `at` of the run stands, or where the run ends. Not before what was asked for last.
    fn of(&mut self, at: usize) -> usize {
        debug_assert!(self.at <= at, "asked for {at} behind {}", self.at);
        while self.at < at && self.place < self.end {
            self.at += 1;
            self.place += 1;
            self.skip_fillers();
        }
        self.place
    }

    fn skip_fillers(&mut self) {
        while self.place < self.end && self.view.get(self.place) == Some(&FILLER) {
            self.place += 1;
        }
    }
}

/// The part of a run of groups in which addresses may be, given the bytes beside the run: without groups that belong to a word,
/// and without what ends a sentence.
fn body_of_v6(run: &[u8], before: Option<&u8>, after: Option<&u8>) -> Option<Range<usize>> {
    let mut body = 0..run.len();
    let first_len = memchr::memchr(b':', run)?;
    let is_octet = before == Some(&b'.') && (1..=OCTET_DIGITS_MAX).contains(&first_len);
    // Digits of a word are no group: `candidate:`, `host:`; an octet is none: `1.2.3.4:`. A dot else ends a word.
    if before.is_some_and(u8::is_ascii_alphanumeric) || is_octet {
        body.start = first_len + 1;
    }
    let dots = run.iter().rev().take_while(|byte| **byte == b'.').count();
    body.end -= dots;
    if dots == 0 && after.is_some_and(u8::is_ascii_alphanumeric) {
        body.end = memchr::memrchr(b':', run)?;
    }
    // A colon beside the address, `address:2001:db8::1: refused`, that is none of a `::`.
    let text = run.get(body.clone())?;
    if text.starts_with(b":") && !text.starts_with(b"::") {
        body.start += 1;
    }
    if text.ends_with(b":") && (!text.ends_with(b"::") || text.ends_with(b":::")) {
        body.end -= 1;
    }
    Some(body)
}

/// The dotted numbers in a run of digits and dots. Two dots are none of a number: `10.1.2.3..10.1.2.9` is two.
fn numbers(run: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let rest = run.get(next..)?;
        let start = next + rest.iter().position(|byte| *byte != b'.')?;
        let rest = run.get(start..)?;
        let len = rest.windows(2).position(|pair| pair == b"..").unwrap_or(rest.len());
        next = start + len;
        let is_dot_last = rest.get(..len).is_some_and(|number| number.ends_with(b"."));
        looked_at(len);
        Some(start..next - usize::from(is_dot_last))
    })
}

fn is_v4_digit(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == FILLER
}

fn is_v4_byte(byte: u8) -> bool {
    is_v4_digit(byte) || byte == b'.'
}

fn is_v6_digit(byte: u8) -> bool {
    byte.is_ascii_hexdigit() || byte == FILLER
}

/// Where groups end that have a colon at `colon`, a dotted number behind them included.
fn end_of_v6(view: &[u8], colon: usize) -> usize {
    let groups = end_of(view, colon, |byte| is_v6_digit(byte) || byte == b':');
    if view.get(groups) == Some(&b'.') { end_of(view, groups, is_v4_byte) } else { groups }
}
