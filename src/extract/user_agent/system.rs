//! The operating system's text, found and cleaned.
//!
//! Rules: browser detection 3.1, "OS".

use super::tables::{SYSTEMS, WINDOWS};
use super::text::{AgentText, is_word};

/// The operating system's text (3.1), cleaned.
pub(super) fn system(agent: &AgentText<'_>) -> Option<String> {
    SYSTEMS.iter().find_map(|named| {
        let pattern = named.patterns.first()?;
        let (start, end) = agent.find_at_word_start(pattern)?;
        let is_number = |byte: u8| byte.is_ascii_digit() || byte == b'.';
        let numbers = if agent.at(end) == b'/' { agent.run(end + 1, is_number) } else { 0 };
        let behind = if numbers > 0 {
            end + 1 + numbers
        } else {
            end + agent.run(end, |byte| is_word(byte) || matches!(byte, b' ' | b'.'))
        };
        let text = agent.text();
        Some(clean_system(text.get(start..end)?, text.get(end..behind)?, named.label))
    })
}

/// Cleans a system's text: the part that the pattern found, what follows it, and what it is called.
fn clean_system(found: &str, behind: &str, label: &str) -> String {
    let whole = format!("{found}{behind}");
    let is_windows =
        starts_with_ignoring_case(&whole, "win") && !starts_with_ignoring_case(&whole, "windows phone ");
    let number = trailing_number(&whole);
    let windows = WINDOWS.iter().find(|(known, _)| is_windows && *known == number);
    let os = match windows {
        // The pattern is replaced in what the table says, which changes nothing there.
        Some((_, name)) => format!("Windows {name}"),
        None => format!("{label}{behind}"),
    };
    let mut os = replace_end_ignoring_case(&os, " ce", " CE");
    if starts_with_ignoring_case(&os, "hpw") {
        os = format!("web{}", os.get(3..).unwrap_or_default());
    }
    os = replace_word(&os, "Macintosh", "Mac OS").replacen("_PowerPC", " OS", 1);
    os = drop_word_after_os_x(&os);
    os = replace_word(&os, "Mac OS X", "OS X");
    let before_digit = os.as_bytes().windows(2).position(|pair| matches!(pair, [b'/', b'0'..=b'9']));
    if let Some(at) = before_digit {
        os.replace_range(at..=at, " ");
    }
    os = os.replace('_', ".");
    os = drop_fedora_build(&replace_end_ignoring_case(&os, " bepc", ""));
    os = os.replace("x86.64", "x86_64").replacen("Windows Phone OS", "Windows Phone", 1);
    os = drop_version_of_chrome_os(&os);
    let os = os.split(" on ").next().unwrap_or_default().trim();
    if ["webOS", "iOS", "iP"].iter().any(|prefix| os.starts_with(prefix)) {
        return os.to_owned();
    }
    let mut chars = os.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}

/// Digits and points at the end.
pub(super) fn trailing_number(text: &str) -> &str {
    let before = text.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    text.get(before.len()..).unwrap_or_default()
}

/// Whether a text contains a word; case matters.
pub(super) fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let bytes = text.as_bytes();
        let before = at.checked_sub(1).and_then(|at| bytes.get(at));
        let behind = bytes.get(at + word.len());
        before.is_none_or(|byte| !is_word(*byte)) && behind.is_none_or(|byte| !is_word(*byte))
    })
}

fn starts_with_ignoring_case(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|text| text.eq_ignore_ascii_case(start))
}

fn replace_end_ignoring_case(text: &str, end: &str, with: &str) -> String {
    let at = text.len().checked_sub(end.len());
    match at.and_then(|at| Some((text.get(..at)?, text.get(at..)?))) {
        Some((before, found)) if found.eq_ignore_ascii_case(end) => format!("{before}{with}"),
        _ => text.to_owned(),
    }
}

fn replace_word(text: &str, word: &str, with: &str) -> String {
    if has_word(text, word) { text.replacen(word, with, 1) } else { text.to_owned() }
}

/// `OS X Mach ...` -> `OS X ...`
fn drop_word_after_os_x(os: &str) -> String {
    let Some(at) = os.find("OS X ") else { return os.to_owned() };
    let (before, rest) = os.split_at(at + "OS X ".len());
    let length = rest.find(|c: char| c == ' ' || c.is_ascii_digit()).unwrap_or(rest.len());
    if length == 0 {
        return os.to_owned();
    }
    format!("{}{}", before.trim_end_matches(' '), rest.get(length..).unwrap_or_default())
}

/// `Linux 2.6.fc12` -> `Linux 2.6`
fn drop_fedora_build(os: &str) -> String {
    let before = os.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, ' ' | '.'));
    let length = before.len().checked_sub(2).filter(|_| before.len() < os.len());
    match length.and_then(|length| Some((before.get(..length)?, before.get(length..)?))) {
        Some((kept, build)) if build.eq_ignore_ascii_case("fc") => {
            kept.trim_end_matches([' ', '.']).to_owned()
        }
        _ => os.to_owned(),
    }
}

/// `Chrome OS x86_64 14541.0.0` -> `Chrome OS x86_64`
fn drop_version_of_chrome_os(os: &str) -> String {
    let Some(rest) = os.strip_prefix("Chrome OS ") else { return os.to_owned() };
    let Some((word, number)) = rest.split_once(' ') else { return os.to_owned() };
    let length = number.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    if length == 0 || !word.bytes().all(is_word) {
        return os.to_owned();
    }
    format!("Chrome OS {word}{}", number.get(length..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_are_cleaned() {
        let cases = [
            ("Mac OS X", " 10_15_7", "Mac OS X", "OS X 10.15.7"),
            ("Macintosh", "", "Macintosh", "Mac OS"),
            ("Windows ", "NT 5.01", "Windows ", "Windows 2000 SP1"),
            ("Linux", " 2.6.fc12", "Linux", "Linux 2.6"),
            ("tizen", " 6.0", "Tizen", "Tizen 6.0"),
            ("Symbian OS", "/9.1 on x", "Symbian OS", "Symbian OS 9.1"),
            ("webOS", "/2.1", "webOS", "webOS 2.1"),
        ];
        for (found, behind, label, clean) in cases {
            assert_eq!(clean_system(found, behind, label), clean);
        }
    }
}
