//! Escapes of JSON, of URLs and of terminals, masked for the scanner.
//!
//! Owns what an escape is and what it stands for. Never changes the text: it makes a copy, as long as the text, in which each
//! escape of a character of an address is this character, and every other one ends a word.
//! Rules: RFC 8259 7, RFC 3986 2.1, ECMA-48 5.4; ours for escapes of escapes, which JSON inside strings and URLs inside URLs
//! have.

use super::address::{self, V4_BYTES_MAX};
use super::{end_of, looked_at};

/// In the view: the rest of an escape that stands for a character of an address, which stands before it. No byte of UTF-8.
pub(super) const FILLER: u8 = 0xff;
/// In the view: part of another escape, or a byte that looks like a filler and is none. Ends a word. No byte of UTF-8.
pub(super) const BORDER: u8 = 0xfe;

/// As an escape has it.
const BACKSLASH: u16 = 0x5c;
/// What the sequences of terminals begin with.
const ESC: u8 = 0x1b;
/// Digits and semicolons in such a sequence, at most: `38;2;255;255;255` has as many.
const SEQUENCE_BYTES_MAX: usize = 16;

/// The view of `text`: itself, or a copy in `memory` when it has escapes.
pub(super) fn masked<'a>(text: &'a [u8], memory: &'a mut Vec<u8>) -> &'a [u8] {
    if memchr::memchr3(b'\\', b'%', FILLER, text).is_none() && memchr::memchr(ESC, text).is_none() {
        return text;
    }
    memory.clear();
    memory.extend_from_slice(text);
    looked_at(text.len());
    let mut next = 0;
    for at in memchr::memchr3_iter(b'\\', b'%', FILLER, text) {
        if at < next {
            continue;
        }
        let (end, meant) = match text.get(at) {
            Some(b'%') => url_escape(text, at),
            Some(b'\\') => json_escape(text, at),
            Some(_) | None => (at + 1, None),
        };
        next = end;
        looked_at(end - at);
        let Some([first, rest @ ..]) = memory.get_mut(at..end) else { continue };
        *first = meant.unwrap_or(BORDER);
        rest.fill(if meant.is_some() { FILLER } else { BORDER });
    }
    // Such a sequence shares no byte with the escapes above.
    for at in memchr::memchr_iter(ESC, text) {
        let end = end_of_sequence(text, at + 1);
        memory.get_mut(at..end).unwrap_or_default().fill(BORDER);
    }
    memory
}

/// Where the sequence of a terminal ends, a colour mostly, that has its ESC before `start`: `start`, if there is none.
fn end_of_sequence(text: &[u8], start: usize) -> usize {
    let Some(rest) = text.get(start..).and_then(|rest| rest.strip_prefix(b"[")) else { return start };
    let is_parameter = |byte: &&u8| byte.is_ascii_digit() || **byte == b';';
    let len = rest.iter().take(SEQUENCE_BYTES_MAX).take_while(is_parameter).count();
    looked_at(len + 2);
    if rest.get(len).is_some_and(u8::is_ascii_alphabetic) { start + len + 2 } else { start }
}

/// Where the escape with the `%` at `start` ends, and the character of an address that it stands for. The percent sign may be
/// escaped itself, once or more often: `%253A`. Behind a backslash, `%5C`, it goes on as an escape of JSON.
///
/// An address may stand directly behind a `%` that escapes nothing. Digits that would be divided by an escape in front of them
/// are left to it where only then they begin an address: `%10.1.2.3`, `%2001:db8::1`. Letters and digits are never escaped in a
/// URL, so what looks like that is the zone of an address, `fe80::1%31`, and ends it.
fn url_escape(text: &[u8], start: usize) -> (usize, Option<u8>) {
    let mut digits = start + 1;
    let last = digits + escaped_percents(text.get(digits..).unwrap_or_default());
    let pair = text.get(last..last + 2).and_then(hexadecimal);
    let meant = pair.and_then(|pair| u8::try_from(pair).ok()).filter(|byte| is_separator(*byte));
    if meant.is_some() {
        return (last + 2, meant);
    }
    let end = if pair.is_some() { last + 2 } else { last };
    while digits < end && !begins_address(text, digits) {
        digits += 2;
    }
    if digits == last + 2 && pair == Some(BACKSLASH) {
        behind_backslash(text, digits)
    } else {
        (digits, None)
    }
}

/// Length of the `25` that `text` begins with: a percent sign that is escaped once for each.
fn escaped_percents(text: &[u8]) -> usize {
    let len = 2 * text.chunks_exact(2).take_while(|pair| *pair == b"25").count();
    looked_at(len);
    len
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b'.' | b':')
}

/// Whether an address begins with the digits at `start`, rather than two of them being an escape's.
fn begins_address(text: &[u8], start: usize) -> bool {
    let rest = text.get(start..).unwrap_or_default();
    begins_with_v4(rest) || begins_with_first_group(rest)
}

/// Behind an escape there would be three numbers.
fn begins_with_v4(text: &[u8]) -> bool {
    let window = text.get(..text.len().min(V4_BYTES_MAX + 2)).unwrap_or_default();
    let number = window.split(|byte| !(byte.is_ascii_digit() || *byte == b'.')).next().unwrap_or_default();
    looked_at(number.len());
    // Two dots, or one at the end, are none of a number.
    let len = number.windows(2).position(|pair| pair == b"..").unwrap_or(number.len());
    let number = number.get(..len).unwrap_or_default();
    address::v4(number.strip_suffix(b".").unwrap_or(number)).is_some()
}

/// Behind an escape the first group would have one digit or two, and no address of somebody begins like that.
fn begins_with_first_group(text: &[u8]) -> bool {
    let count = text.iter().take(5).take_while(|byte| byte.is_ascii_hexdigit()).count();
    looked_at(count);
    matches!(count, 3 | 4) && text.get(count..).is_some_and(begins_with_colon)
}

/// Also one that is escaped as in a URL.
fn begins_with_colon(text: &[u8]) -> bool {
    let Some(escape) = text.strip_prefix(b"%") else { return text.starts_with(b":") };
    let pair = escape.get(escaped_percents(escape)..).and_then(|rest| rest.get(..2));
    pair.is_some_and(|pair| pair.eq_ignore_ascii_case(b"3a"))
}

/// Where the escape that begins at `start` ends, and the character of an address that it stands for. Before a quote, a slash or
/// nothing that is known, it is only its backslashes.
fn json_escape(text: &[u8], start: usize) -> (usize, Option<u8>) {
    behind_backslash(text, end_of(text, start, |byte| byte == b'\\'))
}

/// The same for an escape with a backslash, which may be escaped itself, before `letter`.
fn behind_backslash(text: &[u8], mut letter: usize) -> (usize, Option<u8>) {
    loop {
        match text.get(letter) {
            Some(b'b' | b'f' | b'n' | b'r' | b't') => return (letter + 1, None),
            Some(b'u') => {}
            Some(_) | None => return (letter, None),
        }
        let Some(unit) = text.get(letter + 1..letter + 5).and_then(hexadecimal) else {
            return (letter, None);
        };
        letter += 5;
        if unit == u16::from(ESC) {
            return (end_of_sequence(text, letter), None);
        }
        if unit != BACKSLASH {
            let is_of_address = |byte: &u8| byte.is_ascii_hexdigit() || is_separator(*byte);
            return (letter, u8::try_from(unit).ok().filter(is_of_address));
        }
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0, |number: u16, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        number.checked_mul(16)?.checked_add(u16::try_from(digit).ok()?)
    })
}
