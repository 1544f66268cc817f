//! Layers: built-in file, files of the configuration folder, environment. Each is checked as it is read.
//!
//! The only file that names the toml crate, and the only part of the configuration that reads the disk: a few
//! small files at the start and at SIGHUP. Rules: our contract, section 2.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Warning, nearest};
use super::keys::{Allowed, KEYS, Key};
use super::value::{Quoted, Settings, Source, Value};
use super::{DEFAULT_TOML, Inputs};

/// What our environment variables begin with.
pub(super) const PREFIX: &str = "RTCSTATS_";

/// Chooses files, as the option `--env` does.
const ENV_VARIABLE: &str = "RTCSTATS_ENV";

/// The reference server's name of the installation; our own variable for the same key wins.
const ENVIRONMENT_VARIABLE: &str = "RTCSTATS_ENVIRONMENT";
const ENVIRONMENT_KEY: &str = "records.app_environment";

/// A value in an error is cut to this many characters.
const SHOWN_CHARS_MAX: usize = 100;

/// All layers on top of each other, what looked odd, and the files that were read.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) settings: Settings,
    pub(super) warnings: Vec<Warning>,
    pub(super) files: Vec<PathBuf>,
}

impl Layers {
    /// The built-in file alone.
    pub(super) fn built_in() -> Result<Self, ConfigError> {
        let mut layers = Self { settings: Settings::empty(), warnings: Vec::new(), files: Vec::new() };
        layers.document(DEFAULT_TOML, None)?;
        Ok(layers)
    }

    pub(super) fn read(inputs: &Inputs) -> Result<Self, ConfigError> {
        let env = environment_name(inputs)?;
        let folder = folder(inputs)?;
        let mut layers = Self::built_in()?;
        if let Some(folder) = &folder {
            layers.file(&folder.join("default.toml"))?;
        }
        if let Some(env) = env {
            let path = folder.as_ref().map(|folder| folder.join(format!("{env}.toml")));
            let found = match &path {
                Some(path) => layers.file(path)?,
                None => false,
            };
            if !found {
                layers.warnings.push(Warning::NoEnvironmentFile { env, path });
            }
        }
        if let Some(folder) = &folder {
            layers.file(&folder.join("local.toml"))?;
        }
        layers.environment(&inputs.variables)?;
        Ok(layers)
    }

    /// Lays a file on top, if it is there.
    fn file(&mut self, path: &Path) -> Result<bool, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                self.document(&text, Some(path))?;
                self.files.push(path.to_owned());
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    /// Lays a TOML document on top; without a path it is the built-in one.
    fn document(&mut self, text: &str, path: Option<&Path>) -> Result<(), ConfigError> {
        let place = |offset: usize| match path {
            None => Source::BuiltIn,
            Some(path) => Source::File { path: path.to_owned(), line: line_of(text, offset) },
        };
        let document = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            place: place(error.span().map_or(0, |span| span.start)),
            message: super::value::one_line(error.message()),
        })?;
        for (section, content) in document.get_ref() {
            let here = place(section.span().start);
            let known = KEYS.iter().any(|key| key.parts().0 == section.get_ref().as_ref());
            let DeValue::Table(entries) = content.get_ref() else {
                return Err(match known {
                    true => bad_value(here, section.get_ref(), &shown(content.get_ref()), "a section"),
                    false => unknown_key(here, section.get_ref()),
                });
            };
            if !known {
                return Err(unknown_key(here, section.get_ref()));
            }
            for (leaf, value) in entries {
                let name = format!("{}.{}", section.get_ref(), leaf.get_ref());
                self.entry(&name, value.get_ref(), place(leaf.span().start))?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, name: &str, found: &DeValue<'_>, place: Source) -> Result<(), ConfigError> {
        let Some(key) = Key::find(name) else {
            return Err(unknown_key(place, name));
        };
        match plain(found).and_then(|value| key.allowed.check(value)) {
            Some(value) => self.settings.set(key, value, place),
            None => return Err(bad_value(place, name, &shown(found), &key.allowed.to_string())),
        }
        Ok(())
    }

    /// Lays the variables on top, in the order of their names, so that warnings have one order.
    fn environment(&mut self, variables: &[(OsString, OsString)]) -> Result<(), ConfigError> {
        let mut ours: Vec<_> = variables
            .iter()
            .map(|(name, value)| (name.to_string_lossy(), value))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        ours.sort();
        // First, so that the key's own variable comes later and wins.
        if let Some((_, value)) = ours.iter().find(|(name, _)| name == ENVIRONMENT_VARIABLE)
            && let Some(key) = Key::find(ENVIRONMENT_KEY)
        {
            self.variable(ENVIRONMENT_VARIABLE, key, value)?;
        }
        for (name, value) in ours {
            if name == ENV_VARIABLE || name == ENVIRONMENT_VARIABLE {
                continue;
            }
            match KEYS.iter().find(|key| key.variable() == name) {
                Some(key) if is_service_link(key, &value.to_string_lossy()) => {
                    self.warnings.push(Warning::ServiceLink { name: name.into_owned() });
                }
                Some(key) => self.variable(&name, key, value)?,
                None if is_service_name(&name) => {
                    self.warnings.push(Warning::ServiceLink { name: name.into_owned() });
                }
                None => {
                    let suggestion = nearest(&name, KEYS.iter().map(Key::variable));
                    self.warnings.push(Warning::UnknownVariable { name: name.into_owned(), suggestion });
                }
            }
        }
        Ok(())
    }

    fn variable(&mut self, name: &str, key: &'static Key, found: &OsStr) -> Result<(), ConfigError> {
        let place = Source::Variable(name.to_owned());
        let shown = || shown_text(&found.to_string_lossy());
        let Some(text) = found.to_str() else {
            return Err(bad_value(place, key.name, &shown(), "UTF-8"));
        };
        match key.allowed.parse(text) {
            Some(value) => self.settings.set(key, value, place),
            None => return Err(bad_value(place, key.name, &shown(), &key.allowed.to_string())),
        }
        Ok(())
    }
}

/// The environment whose file is read: `--env`, else `RTCSTATS_ENV`; an empty variable is none.
fn environment_name(inputs: &Inputs) -> Result<Option<String>, ConfigError> {
    let variable = inputs.variables.iter().find(|(name, _)| name == ENV_VARIABLE);
    let (origin, env) = match (&inputs.env, variable) {
        (Some(env), _) => ("--env", env.clone()),
        (None, Some((_, value))) if !value.is_empty() => (ENV_VARIABLE, value.to_string_lossy().into_owned()),
        (None, _) => return Ok(None),
    };
    let is_name = !env.is_empty()
        && env.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        && env != "default"
        && env != "local";
    if is_name { Ok(Some(env)) } else { Err(ConfigError::EnvName { origin, env: cut(&env) }) }
}

/// `--config-dir`, which must exist, else the first of the usual folders that does.
fn folder(inputs: &Inputs) -> Result<Option<PathBuf>, ConfigError> {
    match &inputs.config_dir {
        Some(path) if path.is_dir() => Ok(Some(path.clone())),
        Some(path) => Err(ConfigError::NoFolder { path: path.clone() }),
        None => Ok(inputs.usual_dirs.iter().find(|path| path.is_dir()).cloned()),
    }
}

/// `RTCSTATS_SERVER_PORT=tcp://10.0.0.7:3000` is what Kubernetes tells every pod about a service
/// `rtcstats-server`.
fn is_service_link(key: &Key, value: &str) -> bool {
    matches!(key.allowed, Allowed::Integer { .. })
        && ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
}

/// Its other variables end in `_SERVICE_HOST`, `_SERVICE_PORT`, `_SERVICE_PORT_<name>`, `_PORT_<n>_TCP...`.
fn is_service_name(name: &str) -> bool {
    let after_port = name.rsplit_once("_PORT_").map_or("", |(_, rest)| rest);
    let (digits, rest) = after_port.split_once('_').unwrap_or(("", ""));
    let is_port = !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && ["TCP", "UDP", "SCTP"].iter().any(|protocol| rest.starts_with(protocol));
    is_port
        || name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
}

/// The value without spans; `None` for what no key takes: floats, dates, tables, lists of anything but
/// strings, integers below zero or above TOML's.
fn plain(found: &DeValue<'_>) -> Option<Value> {
    match found {
        DeValue::Boolean(value) => Some(Value::Bool(*value)),
        DeValue::Integer(digits) => {
            u64::from_str_radix(digits.as_str(), digits.radix()).ok().map(Value::Integer)
        }
        DeValue::String(text) => Some(Value::Text(text.clone().into_owned())),
        DeValue::Array(items) => {
            let texts = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>().map(Value::List)
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

/// A value as it is shown in an error.
fn shown(found: &DeValue<'_>) -> String {
    match found {
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Integer(digits) => cut(&digits.to_string()),
        DeValue::Float(digits) => cut(&digits.to_string()),
        DeValue::Datetime(date) => date.to_string(),
        DeValue::String(text) => shown_text(text),
        DeValue::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| shown(item.get_ref())).collect();
            cut(&format!("[{}]", items.join(", ")))
        }
        DeValue::Table(_) => "a section".to_owned(),
    }
}

fn shown_text(text: &str) -> String {
    Quoted(&cut(text)).to_string()
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The line of a byte offset, from 1.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

fn unknown_key(place: Source, name: &str) -> ConfigError {
    let suggestion = match name.contains('.') {
        true => nearest(name, KEYS.iter().map(|key| key.name.to_owned())),
        false => nearest(name, KEYS.iter().map(|key| key.parts().0.to_owned())),
    };
    ConfigError::UnknownKey { place, key: super::value::one_line(&cut(name)), suggestion }
}

fn bad_value(place: Source, name: &str, value: &str, allowed: &str) -> ConfigError {
    ConfigError::BadValue {
        place,
        key: name.to_owned(),
        value: value.to_owned(),
        allowed: allowed.to_owned(),
    }
}
