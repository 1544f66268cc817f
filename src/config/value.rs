//! Values and where they came from. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::keys::{Effect, KEYS, Key};

/// The value of a key, in its one form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Bool(bool),
    Integer(u64),
    Text(String),
    List(Vec<String>),
}

impl fmt::Display for Value {
    /// As TOML, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Text(text) => write!(f, "{}", Quoted(text)),
            Self::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{}", if index == 0 { "" } else { ", " }, Quoted(item))?;
                }
                f.write_str("]")
            }
        }
    }
}

/// A basic string of TOML: nothing in it can end the line or the string.
#[derive(Debug)]
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for character in self.0.chars() {
            match character {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                _ if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') => {
                    write!(f, "\\u{:04X}", u32::from(character))?;
                }
                _ => write!(f, "{character}")?,
            }
        }
        f.write_str("\"")
    }
}

/// Which layer a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `config/default.toml` as it was when the binary was built.
    BuiltIn,
    /// A file of the configuration folder.
    File {
        /// The file.
        path: PathBuf,
        /// The line of the key, from 1.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in default"),
            Self::File { path, line } => write!(f, "{}:{line}", one_line(&path.to_string_lossy())),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// The text without anything that could end a line.
pub(super) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { '?' } else { c })
        .collect()
}

/// A value with its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) value: Value,
    pub(super) source: Source,
}

/// The value and origin of every key.
#[derive(Debug, Clone)]
pub struct Settings(BTreeMap<&'static str, Setting>);

impl Settings {
    pub(super) fn empty() -> Self {
        Self(BTreeMap::new())
    }

    /// Sets a key; a later layer replaces an earlier one.
    pub(super) fn set(&mut self, key: &'static Key, value: Value, source: Source) {
        self.0.insert(key.name, Setting { value, source });
    }

    /// The setting of a key.
    ///
    /// # Panics
    ///
    /// Panics when there is no such key, or the default file lacks it: names come from our own code, and a
    /// test compares that file with the table of keys.
    pub(super) fn get(&self, name: &str) -> &Setting {
        match self.0.get(name) {
            Some(setting) => setting,
            None => panic!("the built-in configuration is believed to set {name}, but does not"),
        }
    }

    /// Where a key got its value; `None` when there is no such key.
    #[must_use]
    pub fn source(&self, name: &str) -> Option<&Source> {
        self.0.get(name).map(|setting| &setting.source)
    }

    /// What differs in `newer`, in the order of the default file. Only values count, not where they came
    /// from.
    #[must_use]
    pub fn changes(&self, newer: &Self) -> Vec<Change> {
        let changed = KEYS.iter().filter_map(|key| {
            let (old, new) = (&self.get(key.name).value, &newer.get(key.name).value);
            let shown = |value: &Value| if key.secret { "\"***\"".to_owned() } else { value.to_string() };
            (old != new).then(|| Change {
                key: key.name,
                old: shown(old),
                new: shown(new),
                effect: key.effect,
            })
        });
        changed.collect()
    }

    /// These settings, but with the values of `newer` where a change takes effect at run time.
    pub(super) fn with_reloadable(&self, newer: &Self) -> Self {
        let mut mixed = self.clone();
        for key in KEYS.iter().filter(|key| key.effect == Effect::Reload) {
            mixed.0.insert(key.name, newer.get(key.name).clone());
        }
        mixed
    }

    /// The effective configuration as a TOML document that can itself be loaded, each value with its origin.
    #[must_use]
    pub fn render(&self) -> String {
        render(KEYS, |key| self.get(key.name))
    }
}

fn render<'a>(keys: &'static [Key], setting: impl Fn(&Key) -> &'a Setting) -> String {
    let mut text = String::new();
    let mut open = "";
    for key in keys {
        let (section, leaf) = key.parts();
        if section != open {
            text += &format!("{}[{section}]\n", if open.is_empty() { "" } else { "\n" });
            open = section;
        }
        let Setting { value, source } = setting(key);
        let value = if key.secret { "\"***\"".to_owned() } else { value.to_string() };
        let assignment = format!("{leaf} = {value}");
        text += &format!("{assignment:<48} # {source}\n");
    }
    text
}

/// One changed key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `section.key`
    pub key: &'static str,
    /// The value before, as TOML; a secret is `"***"`.
    pub old: String,
    /// The value after.
    pub new: String,
    /// When it takes effect.
    pub effect: Effect,
}

#[cfg(test)]
mod tests {
    use super::super::keys::Allowed;
    use super::*;

    #[test]
    fn strings_stay_on_one_line_and_come_back_from_toml() {
        let texts = [
            "",
            "plain",
            "say \"hi\"",
            "C:\\temp",
            "a\nb\r\t\u{0}\u{7f}\u{85}\u{2028}",
            "\u{e4}\u{1f600} # x",
        ];
        for text in texts {
            let quoted = Quoted(text).to_string();
            assert!(!quoted.chars().any(char::is_control), "{quoted}");
            let document: toml::Table = format!("key = {quoted}").parse().unwrap();
            assert_eq!(document["key"].as_str(), Some(text));
        }
    }

    /// The rule for secrets is kept for the first key that will be one.
    #[test]
    fn a_secret_is_never_rendered() {
        const SECRETS: &[Key] = &[
            Key { name: "auth.token", allowed: Allowed::Text(9), effect: Effect::Reload, secret: true },
            Key { name: "auth.name", allowed: Allowed::Text(9), effect: Effect::Reload, secret: false },
        ];
        let setting = Setting { value: Value::Text("hunter2".into()), source: Source::BuiltIn };
        let text = render(SECRETS, |_| &setting);
        assert!(text.contains("token = \"***\""), "{text}");
        assert_eq!(text.matches("hunter2").count(), 1, "{text}");
    }
}
