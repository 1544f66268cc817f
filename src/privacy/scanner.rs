//! Finds addresses in a text and writes the text without them.
//!
//! Owns the borders of words and the view: the text with its escapes masked, byte for byte as long as the text, so that a place in
//! one is a place in the other. What is an address is decided in `address`. Time grows with the text, whatever is in it: a run of
//! digits and separators is looked at once.

use std::io::Write as _;
use std::net::Ipv6Addr;
use std::ops::Range;

use super::address;

/// In the view: the rest of an escape that stands for a character of an address, which stands before it. No byte of UTF-8.
const FILLER: u8 = 0xff;
/// In the view: part of another escape. Ends a word. No byte of UTF-8.
const BORDER: u8 = 0xfe;
/// How far the start of a user agent is looked for.
const USER_AGENT_BYTES_MAX: usize = 1024;

/// The pass over one piece of text, and the memory that it uses again.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// The text with its escapes masked; only filled for texts that have any. As long as the text.
    view: Vec<u8>,
    run: Run,
}

/// Digits and separators without fillers. At most as long as the text.
#[derive(Debug, Default)]
struct Run {
    text: Vec<u8>,
    /// Where each byte stands in the view.
    places: Vec<usize>,
    /// Where the run ends in the view.
    end: usize,
}

impl Scanner {
    /// Appends `text` with its addresses cut to `out`, and says `true`; or says `false`, when there is nothing to be cut.
    pub(super) fn cut(&mut self, text: &[u8], out: &mut Vec<u8>) -> bool {
        let Self { view, run } = self;
        let view = if memchr::memchr3(b'\\', b'%', FILLER, text).is_some() {
            mask_escapes(text, view);
            &**view
        } else {
            text
        };
        let mut written = 0;
        // Where the runs end that were looked at.
        let (mut v6_end, mut v4_end) = (0, 0);
        for at in memchr::memchr2_iter(b':', b'.', view) {
            let is_colon = view.get(at) == Some(&b':');
            let end = if is_colon { &mut v6_end } else { &mut v4_end };
            if at < *end {
                continue;
            }
            *end = if is_colon { end_of_v6(view, at) } else { end_of(view, at, is_v4_byte) };
            // What was cut ends a word: what follows it may be the next address.
            let rest = Rest { view, from: written };
            let found = if is_colon { find_v6(rest, at, *end, run) } else { find_v4(rest, at, *end, run) };
            let Some(found) = found else { continue };
            out.extend_from_slice(text.get(written..found.range.start).unwrap_or_default());
            found.becomes.write(out);
            written = found.range.end;
            (v6_end, v4_end) = (written, written);
        }
        if written > 0 {
            out.extend_from_slice(text.get(written..).unwrap_or_default());
        }
        written > 0
    }
}

/// A place where something is to be cut.
struct Found {
    range: Range<usize>,
    becomes: Becomes,
}

/// What stands there instead.
enum Becomes {
    /// The last octet of an IPv4 address.
    Octet,
    /// An IPv6 address.
    Address(Ipv6Addr),
    /// One that has a colon or digits beside it, a port for instance: it gets brackets, to begin and end where it does.
    Bracketed(Ipv6Addr),
}

impl Becomes {
    fn write(&self, out: &mut Vec<u8>) {
        // Writing to memory cannot fail.
        let _ = match self {
            Self::Octet => out.write_all(b"0"),
            Self::Address(address) => write!(out, "{address}"),
            Self::Bracketed(address) => write!(out, "[{address}]"),
        };
    }
}

impl Run {
    /// Takes the run that lies in `range` of the view.
    fn read(&mut self, view: &[u8], range: Range<usize>) {
        self.text.clear();
        self.places.clear();
        self.end = range.end;
        for (byte, place) in view.get(range.clone()).unwrap_or_default().iter().zip(range) {
            if *byte != FILLER {
                self.text.push(*byte);
                self.places.push(place);
            }
        }
    }

    /// Where the bytes from `range.start` to before `range.end` of the run stand, the fillers behind the last one included.
    fn place(&self, range: Range<usize>) -> Range<usize> {
        let place = |at: usize| self.places.get(at).copied().unwrap_or(self.end);
        place(range.start)..place(range.end)
    }
}

/// The view, of which everything before a place is done with.
#[derive(Debug, Clone, Copy)]
struct Rest<'a> {
    view: &'a [u8],
    from: usize,
}

impl<'a> Rest<'a> {
    /// What lies before `end`.
    fn before(self, end: usize) -> &'a [u8] {
        self.view.get(self.from..end).unwrap_or_default()
    }

    /// Where the bytes of a kind begin that end before `end`.
    fn start_of(self, end: usize, is_of_kind: impl Fn(u8) -> bool) -> usize {
        self.from + self.before(end).iter().rposition(|byte| !is_of_kind(*byte)).map_or(0, |at| at + 1)
    }
}

/// The IPv6 address of which the first colon is at `colon` and after which the run ends at `end`.
fn find_v6(rest: Rest<'_>, colon: usize, end: usize, run: &mut Run) -> Option<Found> {
    let view = rest.view;
    // The colon of a JSON member, nearly always.
    if end - colon < 2 || memchr::memchr(b':', view.get(colon + 1..end)?).is_none() {
        return None;
    }
    let start = rest.start_of(colon, |byte| byte.is_ascii_hexdigit() || byte == FILLER);
    run.read(view, start..end);
    let mut range = 0..run.text.len();
    // Digits of a word are no group: `candidate:`, `host:`, `1.2.3.4:`.
    if rest.before(start).last().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'.') {
        range.start = run.text.iter().position(|byte| *byte == b':')? + 1;
    }
    let dots = run.text.iter().rev().take_while(|byte| **byte == b'.').count();
    range.end -= dots;
    if dots == 0 && view.get(end).is_some_and(u8::is_ascii_alphanumeric) {
        range.end = run.text.iter().rposition(|byte| *byte == b':')?;
    }
    // A colon beside the address, `address:2001:db8::1: refused`, that is none of a `::`.
    let text = run.text.get(range.clone())?;
    if text.starts_with(b":") && !text.starts_with(b"::") {
        range.start += 1;
    }
    if text.ends_with(b":") && (!text.ends_with(b"::") || text.ends_with(b":::")) {
        range.end -= 1;
    }
    let text = run.text.get(range.clone())?;
    let (cut, address) = address::v6(text)?;
    let place = run.place(range.start + cut.start..range.start + cut.end);
    let is_glued = cut != (0..text.len())
        || rest.before(place.start).last() == Some(&b':')
        || view.get(place.end) == Some(&b':');
    let becomes = if is_glued { Becomes::Bracketed(address) } else { Becomes::Address(address) };
    Some(Found { range: place, becomes })
}

/// The IPv4 address of which a dot is at `dot` and after which the run of digits and dots ends at `end`.
fn find_v4(rest: Rest<'_>, dot: usize, end: usize, run: &mut Run) -> Option<Found> {
    let view = rest.view;
    // A fraction, nearly always.
    if view.get(dot..end)?.iter().filter(|byte| **byte == b'.').count() < 3 {
        return None;
    }
    let start = rest.start_of(dot, is_v4_byte);
    run.read(view, start..end);
    let dots = run.text.iter().take_while(|byte| **byte == b'.').count();
    let text = run.text.get(dots..)?;
    let text = text.get(..=text.iter().rposition(|byte| *byte != b'.')?)?;
    let range = dots..dots + text.len();
    // Digits of a word are no octet; a dot ends a word: `1.2.3.4.example.org`, `It is 1.2.3.4.`
    let is_glued = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    if (range.start == 0 && is_glued(rest.before(start).last()))
        || (range.end == run.text.len() && is_glued(view.get(end)))
        || !address::is_v4(text)
    {
        return None;
    }
    if is_version(view, run.place(range.clone()).start) {
        return None;
    }
    let last = range.start + text.iter().rposition(|byte| *byte == b'.')? + 1;
    Some(Found { range: run.place(last..range.end), becomes: Becomes::Octet })
}

/// Whether the number at `start` is a version: a product's in a user agent, or the value of a key that says so.
fn is_version(view: &[u8], start: usize) -> bool {
    let Some(head) = view.get(..start) else { return false };
    if let [.., b'"'] = head {
        return key_ends_in(head, &[b"version", b"Version"]);
    }
    let [.., name, b'/'] = head else { return false };
    let window = head.get(start.saturating_sub(USER_AGENT_BYTES_MAX)..).unwrap_or_default();
    // In its line: a text of JSON holds no line feed.
    let Some(quote) = memchr::memrchr2(b'"', b'\n', window) else { return false };
    let value_len = window.len() - quote - 1;
    let until_quote = head.get(..start - value_len).unwrap_or_default();
    name.is_ascii_alphanumeric() && key_ends_in(until_quote, &[b"userAgent"])
}

/// Whether `head`, which ends in the opening quote of a text, has a key before it with one of these ends. At any depth of JSON
/// inside strings.
fn key_ends_in(head: &[u8], ends: &[&[u8]]) -> bool {
    let without_end = |text: &mut &[u8], is_last: &dyn Fn(u8) -> bool| {
        while let Some((last, rest)) = text.split_last()
            && is_last(*last)
        {
            *text = rest;
        }
    };
    let is_border = |byte| byte == BORDER;
    let is_gap = |byte| byte == b' ' || byte == BORDER;
    let mut key = head.strip_suffix(b"\"").unwrap_or(head);
    without_end(&mut key, &is_gap);
    let Some(rest) = key.strip_suffix(b":") else { return false };
    key = rest;
    without_end(&mut key, &is_gap);
    let Some(rest) = key.strip_suffix(b"\"") else { return false };
    key = rest;
    without_end(&mut key, &is_border);
    ends.iter().any(|end| key.ends_with(end))
}

/// Where the bytes of a kind end that begin at `start`.
fn end_of(view: &[u8], start: usize, is_of_kind: impl Fn(u8) -> bool) -> usize {
    let tail = view.get(start..).unwrap_or_default();
    tail.iter().position(|byte| !is_of_kind(*byte)).map_or(view.len(), |len| start + len)
}

fn is_v4_byte(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b'.' || byte == FILLER
}

/// Where groups end that have a colon at `colon`, a dotted number behind them included.
fn end_of_v6(view: &[u8], colon: usize) -> usize {
    let groups = end_of(view, colon, |byte| byte.is_ascii_hexdigit() || byte == b':' || byte == FILLER);
    if view.get(groups) == Some(&b'.') { end_of(view, groups, is_v4_byte) } else { groups }
}

/// Makes `view` a copy of `text` in which escapes of characters of an address are these characters, and all others end a word.
/// Escapes of JSON, however many backslashes they have (JSON inside strings), and of URLs.
fn mask_escapes(text: &[u8], view: &mut Vec<u8>) {
    view.clear();
    view.extend_from_slice(text);
    let mut next = 0;
    for at in memchr::memchr3_iter(b'\\', b'%', FILLER, text) {
        if at < next {
            continue;
        }
        let (end, meant) =
            if text.get(at) == Some(&b'%') { url_escape(text, at) } else { json_escape(text, at) };
        next = end;
        let Some([first, rest @ ..]) = view.get_mut(at..end) else { continue };
        match meant {
            Meant::Address(byte) => {
                *first = byte;
                rest.fill(FILLER);
            }
            Meant::Other => {
                *first = BORDER;
                rest.fill(BORDER);
            }
            Meant::Itself => {}
        }
    }
}

/// What an escape stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meant {
    /// This character, which an address may have.
    Address(u8),
    /// Another character.
    Other,
    /// It is none.
    Itself,
}

/// Where the `%` at `start` ends with its digits. Digits and letters are never escaped in a URL, so that what looks like one is
/// the zone of an address, `fe80::1%31`, and ends it.
fn url_escape(text: &[u8], start: usize) -> (usize, Meant) {
    match text.get(start + 1..start + 3).and_then(hexadecimal) {
        Some(0x2e) => (start + 3, Meant::Address(b'.')),
        Some(0x3a) => (start + 3, Meant::Address(b':')),
        Some(_) => (start + 3, Meant::Other),
        None => (start + 1, Meant::Itself),
    }
}

/// Where the escape that begins at `start` ends, and what it stands for. Before a quote, a slash or nothing that is known,
/// only its backslashes.
fn json_escape(text: &[u8], start: usize) -> (usize, Meant) {
    let letter = end_of(text, start, |byte| byte == b'\\');
    match text.get(letter) {
        Some(b'b' | b'f' | b'n' | b'r' | b't') => (letter + 1, Meant::Other),
        Some(b'u') => match text.get(letter + 1..letter + 5).and_then(hexadecimal).map(u8::try_from) {
            Some(Ok(byte)) if byte.is_ascii_hexdigit() || byte == b'.' || byte == b':' => {
                (letter + 5, Meant::Address(byte))
            }
            Some(_) => (letter + 5, Meant::Other),
            None => (letter, Meant::Other),
        },
        Some(_) | None => (letter, Meant::Other),
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0, |number: u16, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        number.checked_mul(16)?.checked_add(u16::try_from(digit).ok()?)
    })
}
