//! Numbers of four parts that are versions, not addresses.
//!
//! Owns what is spared: products in user agents, and values of keys that say so. Looks at a bounded part of the view before the
//! number. Rules: ours, see [`super`].

use super::escapes::BORDER;
use super::looked_at;

/// How far the start of a user agent is looked for.
const USER_AGENT_BYTES_MAX: usize = 1024;
/// Blanks and backslashes beside the colon behind a key, at most: JSON in a string of JSON, six times over, has 63.
const GAP_BYTES_MAX: usize = 64;

/// Whether the number at `start` is a version: a product's in a user agent, or the value of a key that says so.
pub(super) fn is_version(view: &[u8], start: usize) -> bool {
    let Some(head) = view.get(..start) else { return false };
    if let [.., b'"'] = head {
        return key_ends_in(head, &[b"version", b"Version"]);
    }
    let [.., name, b'/'] = head else { return false };
    let window = head.get(start.saturating_sub(USER_AGENT_BYTES_MAX)..).unwrap_or_default();
    looked_at(window.len());
    // In its line: a text of JSON holds no line feed.
    let Some(quote) = memchr::memrchr2(b'"', b'\n', window) else { return false };
    let value_len = window.len() - quote - 1;
    let until_quote = head.get(..start - value_len).unwrap_or_default();
    name.is_ascii_alphanumeric() && key_ends_in(until_quote, &[b"userAgent"])
}

/// Whether `head`, which ends in the opening quote of a text, has a key before it with one of these ends. At any depth of JSON
/// inside strings.
fn key_ends_in(head: &[u8], ends: &[&[u8]]) -> bool {
    let is_border = |byte| byte == BORDER;
    let is_gap = |byte| byte == b' ' || byte == BORDER;
    let key = without_end(head.strip_suffix(b"\"").unwrap_or(head), is_gap);
    let Some(key) = key.strip_suffix(b":") else { return false };
    let Some(key) = without_end(key, is_gap).strip_suffix(b"\"") else { return false };
    let key = without_end(key, is_border);
    ends.iter().any(|end| key.ends_with(end))
}

/// `text` without the bytes of a kind at its end, of which [`GAP_BYTES_MAX`] are taken off.
fn without_end(text: &[u8], is_of_kind: impl Fn(u8) -> bool) -> &[u8] {
    let last = text.iter().rev().take(GAP_BYTES_MAX).take_while(|byte| is_of_kind(**byte)).count();
    looked_at(last + 1);
    text.get(..text.len() - last).unwrap_or_default()
}
