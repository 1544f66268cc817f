//! User agents: the stats format that a browser's reports have, and what the result says of browser and system.
//!
//! Two rule sets that do not agree with each other, because the reference uses two libraries. Where a rule set is
//! a list of names it is a table (`format`, `tables`); the corrections behind the tables are in `platform`.
//! Rules: browser detection, sections 1 to 3; feature extraction 3, 5.1.

mod format;
mod platform;
mod system;
mod tables;
mod text;
mod version;

use std::collections::HashMap;

use serde::Serialize;

use text::AgentText;

/// What a React Native user agent begins with.
const REACT_NATIVE: &str = "react-native";
/// User agents that are remembered, by each worker: less than 2 MB with the longest.
const KNOWN_MAX: usize = 256;
/// Longer ones are not remembered; those of browsers have 100 to 200 bytes.
const KNOWN_BYTES_MAX: usize = 512;

/// How a client's statistics look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatsFormat {
    /// Chrome and its relatives.
    ChromeStandard,
    /// Firefox.
    Firefox,
    /// Safari; read by the same rules as Chrome's.
    Safari,
    /// Everything else: statistics are counted, nothing is taken from them.
    Unsupported,
}

impl StatsFormat {
    /// The format of a user agent's statistics.
    #[must_use]
    pub fn of(user_agent: &str) -> Self {
        if user_agent.starts_with(REACT_NATIVE) {
            return Self::ChromeStandard;
        }
        format::stats_format(user_agent)
    }

    /// The name as it stands in dumps and results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ChromeStandard => "chrome_standard",
            Self::Firefox => "firefox",
            Self::Safari => "safari",
            Self::Unsupported => "unsupported",
        }
    }

    /// The format that a browser's name stands for, by prefix.
    fn of_browser(name: &str) -> Self {
        const PREFIXES: [(&str, StatsFormat); 7] = [
            ("Chrome", StatsFormat::ChromeStandard),
            ("ReactNative", StatsFormat::ChromeStandard),
            ("Electron", StatsFormat::ChromeStandard),
            ("Edge", StatsFormat::ChromeStandard),
            ("Firefox", StatsFormat::Firefox),
            ("Safari", StatsFormat::Safari),
            ("Mobile Safari", StatsFormat::Safari),
        ];
        PREFIXES
            .iter()
            .find(|(prefix, _)| name.starts_with(prefix))
            .map_or(Self::Unsupported, |(_, format)| *format)
    }
}

/// Browser and system of a user agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BrowserInfo {
    /// Name of the browser, `unknown` if it is.
    pub name: String,
    /// Its version, `-1` if unknown.
    pub version: String,
    /// The operating system, the text `null` if unknown.
    pub os: String,
    /// The user agent.
    pub user_agent: String,
    /// Name and version, `null` for what is unknown.
    pub name_version: String,
    /// Name and system.
    pub name_os: String,
    /// Name, version and system.
    pub name_version_os: String,
    /// The version up to its first point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major_version: Option<String>,
}

/// What was found out about user agents. Many clients have the same few, and to look into one costs as much as to read
/// some entries. Bounded: when it is full it begins anew.
#[derive(Debug, Default)]
pub struct KnownAgents(HashMap<Box<str>, Agent>);

/// A user agent, looked into.
#[derive(Debug, Clone)]
pub(super) struct Agent {
    pub(super) format: StatsFormat,
    /// `None` for an empty one.
    pub(super) browser: Option<BrowserInfo>,
}

impl KnownAgents {
    /// What can be told of a user agent.
    pub(super) fn look(&mut self, user_agent: &str) -> Agent {
        if let Some(agent) = self.0.get(user_agent) {
            return agent.clone();
        }
        let agent = Agent { format: StatsFormat::of(user_agent), browser: BrowserInfo::of(user_agent) };
        if user_agent.len() <= KNOWN_BYTES_MAX {
            if self.0.len() >= KNOWN_MAX {
                self.0.clear();
            }
            self.0.insert(user_agent.into(), agent.clone());
        }
        agent
    }
}

/// Name, version and system as they were found.
#[derive(Debug, Default)]
struct Found {
    name: Option<String>,
    version: Option<String>,
    os: Option<String>,
}

impl BrowserInfo {
    /// What can be told of a user agent; `None` for an empty one.
    #[must_use]
    pub fn of(user_agent: &str) -> Option<Self> {
        if user_agent.is_empty() {
            return None;
        }
        let found = if user_agent.starts_with(REACT_NATIVE) {
            react_native(user_agent)
        } else {
            platform::find(&AgentText::new(user_agent))
        };
        let or_null = |text: &Option<String>| text.clone().unwrap_or_else(|| "null".to_owned());
        let (name, version, os) = (or_null(&found.name), or_null(&found.version), or_null(&found.os));
        let known = |text: Option<String>| text.filter(|text| !text.is_empty());
        let known_version = known(found.version);
        Some(Self {
            name: known(found.name).unwrap_or_else(|| "unknown".to_owned()),
            version: known_version.clone().unwrap_or_else(|| "-1".to_owned()),
            user_agent: user_agent.to_owned(),
            name_version: format!("{name}/{version}"),
            name_os: format!("{name}/{os}"),
            name_version_os: format!("{name}/{version}/{os}"),
            os,
            major_version: known_version
                .map(|version| version.split('.').next().unwrap_or_default().to_owned()),
        })
    }
}

/// `react-native/<version> (<system>)`, cut at fixed distances from the first `/`, `(` and `)`.
fn react_native(user_agent: &str) -> Found {
    let units: Vec<u16> = user_agent.encode_utf16().collect();
    let first = |c: char| units.iter().position(|unit| *unit == c as u16).map_or(-1, |at| at as isize);
    let cut = |from: isize, to: isize| {
        let bound = |at: isize| usize::try_from(at).unwrap_or(0).min(units.len());
        let (from, to) = (bound(from), bound(to));
        String::from_utf16_lossy(units.get(from.min(to)..from.max(to)).unwrap_or_default())
    };
    let (slash, open, close) = (first('/'), first('('), first(')'));
    Found {
        name: Some("ReactNative".to_owned()),
        version: Some(cut(slash + 1, open - 1)),
        os: Some(cut(open + 1, close)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_what_would_be_found_and_is_bounded() {
        let mut known = KnownAgents::default();
        let long = format!("Mozilla/5.0 {} Firefox/118.0", "x".repeat(KNOWN_BYTES_MAX));
        let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/118.0";
        for agent in ["", firefox, &long, "react-native/22.3.0 (Android 12)", firefox, ""] {
            let Agent { format, browser } = known.look(agent);
            assert_eq!((format, browser), (StatsFormat::of(agent), BrowserInfo::of(agent)), "{agent}");
        }
        assert_eq!(known.0.len(), 3, "not the long one");
        (0..KNOWN_MAX * 2).for_each(|n| drop(known.look(&format!("curl/{n}"))));
        assert!(known.0.len() <= KNOWN_MAX);
    }

    #[test]
    fn react_native_is_cut_by_position() {
        let cases = [
            ("react-native/22.3.0 (Android 12)", "22.3.0", "Android 12", Some("22")),
            ("react-native", "-1", "", None),
            ("react-native/1.0", "react-native/", "", Some("react-native/")),
            ("react-native(x)/1.2", "e(x)/", "x", Some("e(x)/")),
            ("react-native/2.3(Android 12)", "2.", "Android 12", Some("2")),
        ];
        for (agent, version, os, major) in cases {
            let info = BrowserInfo::of(agent).unwrap();
            assert_eq!((&*info.name, &*info.version, &*info.os), ("ReactNative", version, os), "{agent}");
            assert_eq!(info.major_version.as_deref(), major);
        }
    }

    #[test]
    fn unknown_parts_have_two_spellings() {
        let info = BrowserInfo::of("curl/8.4.0").unwrap();
        assert_eq!((&*info.name, &*info.version, &*info.os), ("unknown", "-1", "null"));
        assert_eq!(info.name_version_os, "null/null/null");
        assert_eq!(BrowserInfo::of(""), None);
    }

    #[test]
    fn the_prefix_of_the_name_decides() {
        let cases = [
            ("Chrome Headless", StatsFormat::ChromeStandard),
            ("Chromium", StatsFormat::Unsupported),
            ("chrome", StatsFormat::Unsupported),
            ("Firefox Focus", StatsFormat::Firefox),
            ("Mobile Safari", StatsFormat::Safari),
            ("MobileSafari", StatsFormat::Unsupported),
            ("", StatsFormat::Unsupported),
        ];
        for (name, format) in cases {
            assert_eq!(StatsFormat::of_browser(name), format, "{name}");
        }
    }
}
