//! Versions: where a browser's stands, and what its parts mean.
//!
//! Rules: browser detection 3.3, and the numbers that 3.4 compares.

use super::tables::{LAST_VERSION_PREFIXES, VERSION_PREFIXES};
use super::text::{AgentText, is_word};

/// 3.3: the version behind the first prefix that has one.
pub(super) fn version(agent: &AgentText<'_>, name: Option<&str>) -> Option<String> {
    version_behind(agent, VERSION_PREFIXES)
        .or_else(|| version_behind(agent, &["Version"]))
        .or_else(|| version_behind(agent, &[name.unwrap_or("null")]))
        .or_else(|| version_behind(agent, LAST_VERSION_PREFIXES))
}

/// The version at the first place where one of the prefixes has one behind it.
pub(super) fn version_behind(agent: &AgentText<'_>, prefixes: &[&str]) -> Option<String> {
    let at_place = |at: usize, prefix: &&str| {
        let end = agent.match_name(at, prefix)?;
        if *prefix == "Silk" && is_silk_at_the_end(agent, end) {
            return None;
        }
        version_at(agent, end)
    };
    let starts: Vec<u8> = prefixes.iter().filter_map(|prefix| prefix.bytes().next()).collect();
    let starts = |at: &usize| starts.iter().any(|start| start.to_ascii_lowercase() == agent.at(*at));
    (0..agent.lower().len())
        .filter(starts)
        .find_map(|at| prefixes.iter().find_map(|prefix| at_place(at, prefix)))
}

fn is_silk_at_the_end(agent: &AgentText<'_>, end: usize) -> bool {
    let length = agent.run(end + 1, |byte| byte.is_ascii_digit() || byte == b'.');
    agent.at(end) == b'/' && length > 0 && end + 1 + length == agent.lower().len()
}

/// The version behind a prefix: after `-N/`, or after a space, `/` or `-` with perhaps ` for X` before it.
fn version_at(agent: &AgentText<'_>, end: usize) -> Option<String> {
    let is_number = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    let number = |at: usize| {
        let digits = agent.run(at, is_number);
        let rest =
            agent.run(at + digits, |byte| !matches!(byte, b' ' | b'(' | b')' | b';' | b'/' | b'_' | b'-'));
        let text = agent.text().get(at..at + digits + rest)?;
        (digits > 0).then(|| text.to_owned())
    };
    if agent.at(end) == b'-' {
        let length = agent.run(end + 1, is_number);
        if length > 0
            && agent.at(end + 1 + length) == b'/'
            && let Some(version) = number(end + length + 2)
        {
            return Some(version);
        }
    }
    let separated =
        |at: usize| if matches!(agent.at(at), b' ' | b'/' | b'-') { number(at + 1) } else { None };
    if agent.lower().get(end..).is_some_and(|rest| rest.starts_with(" for ")) {
        let word = agent.run(end + 5, |byte| is_word(byte) || byte == b'-');
        // The word may itself contain the separator, so shorter ones are tried, too.
        if let Some(version) = (1..=word).rev().find_map(|length| separated(end + 5 + length)) {
            return Some(version);
        }
    }
    separated(end)
}

/// The number behind `rv:`.
pub(super) fn revision(agent: &AgentText<'_>) -> Option<String> {
    let end = agent.ends_of("rv:").find(|end| {
        agent.is_word_start(end - 3) && agent.run(*end, |byte| byte.is_ascii_digit() || byte == b'.') > 0
    })?;
    let length = agent.run(end, |byte| byte.is_ascii_digit() || byte == b'.');
    agent.text().get(end..end + length).map(str::to_owned)
}

/// The ending of a version that tells a pre-release: `a1`, `b`, `dp`, `pre`.
pub(super) fn prerelease_ending(version: &str) -> Option<&str> {
    let is_count = |text: &str| {
        let digits = text.strip_suffix('+').unwrap_or(text);
        text.is_empty() || (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let is_ending = |ending: &str| {
        let lower = ending.to_ascii_lowercase();
        let letter = lower.strip_prefix(['a', 'b']);
        let before_pre = letter.map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
        let has_digits = letter.zip(before_pre).is_some_and(|(rest, trimmed)| trimmed.len() < rest.len());
        let pre_behind = before_pre.filter(|_| has_digits).and_then(|rest| rest.strip_prefix("pre"));
        [letter, lower.strip_prefix("dp"), lower.strip_prefix("pre"), pre_behind]
            .into_iter()
            .flatten()
            .any(is_count)
    };
    version.char_indices().filter_map(|(at, _)| version.get(at..)).find(|ending| is_ending(ending))
}

/// `alpha` or `beta` in the user agent, with a digit behind it where there is one.
pub(super) fn prerelease_word(agent: &AgentText<'_>) -> Option<String> {
    let (start, end) = ["alpha", "beta"]
        .iter()
        .filter_map(|word| agent.ends_of(word).next().map(|end| (end - word.len(), end)))
        .min()?;
    let gap = usize::from(agent.at(end) == b' ');
    let end = if agent.at(end + gap).is_ascii_digit() { end + gap + 1 } else { end };
    agent.text().get(start..end).map(str::to_owned)
}

/// Digits and points, perhaps with `+` behind, that follow a prefix at the start of a word.
pub(super) fn number_behind<'a>(agent: &AgentText<'a>, prefix: &str) -> Option<&'a str> {
    let lower = prefix.to_ascii_lowercase();
    agent.ends_of(&lower).find_map(|end| {
        let length = agent.run(end, |byte| byte.is_ascii_digit() || byte == b'.');
        let plus = usize::from(agent.at(end + length) == b'+');
        let is_there = agent.is_word_start(end - prefix.len()) && length > 0;
        agent.text().get(end..end + length + plus).filter(|_| is_there)
    })
}

/// The number of an engine: `537.36` as it is, `532.5` as 532.05.
pub(super) fn engine_number(build: &str) -> f64 {
    let digits = build.trim_end_matches('+');
    let corrected = match digits.rsplit_once('.') {
        Some((before, last)) if last.len() == 1 && !build.ends_with('+') => format!("{before}.0{last}"),
        _ => digits.to_owned(),
    };
    // Only what comes before a second point is read.
    let mut parts = corrected.splitn(3, '.');
    let (whole, fraction) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("{whole}.{fraction}").trim_end_matches('.').parse().unwrap_or(f64::NAN)
}

/// The integer that a text starts with.
pub(super) fn leading_integer(text: &str) -> Option<u64> {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    text.get(..length)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_stand_behind_their_prefix() {
        let cases = [
            ("Opera Mini/12.0.1987/37.7327", "Opera Mini", Some("12.0.1987")),
            ("Name for Some-Thing-1.2b;", "Name", Some("1.2b")),
            ("Name-5/7.0)", "Name", Some("7.0")),
            ("Name/ 7.0", "Name", None),
            ("JitsiMeetName/2023.9.2 Name/25", "Name", Some("2023.9.2")),
        ];
        for (agent, prefix, version) in cases {
            assert_eq!(version_behind(&AgentText::new(agent), &[prefix]).as_deref(), version, "{agent}");
        }
    }
}
