//! The table of all keys: name, what is allowed, when a change takes effect. Defaults are in
//! `config/default.toml`.
//!
//! Pure. A new setting is one line here, one in the default file and one in [`super::build`]; tests hold the
//! three together.

use std::fmt;
use std::net::IpAddr;

use super::network::Network;
use super::value::Value;

/// One setting.
#[derive(Debug)]
pub(super) struct Key {
    /// `section.key`
    pub(super) name: &'static str,
    pub(super) allowed: Allowed,
    pub(super) effect: Effect,
    /// A value that is printed as `***`. No key is one today: secrets are in files, keys name their paths.
    pub(super) secret: bool,
}

/// When a changed setting takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// At once, with SIGHUP.
    Reload,
    /// At the next start.
    Restart,
}

/// What a key may be set to. Its `Display` completes the sentence "`value` is not ...".
#[derive(Debug, Clone, Copy)]
pub(super) enum Allowed {
    Bool,
    Integer {
        min: u64,
        max: u64,
    },
    /// One of these words; case is ignored.
    Word(&'static [&'static str]),
    Address,
    Path,
    OptionalPath,
    /// A text of at most so many bytes.
    Text(usize),
    Networks,
    Origins,
}

use Allowed::{Address, Bool, Networks, OptionalPath, Origins, Path, Text, Word};
use Effect::{Reload, Restart};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const HOUR_S: u64 = 3600;
const YEAR_S: u64 = 366 * 24 * HOUR_S;
/// TOML's integers end here.
const INTEGER_MAX: u64 = i64::MAX.unsigned_abs();
/// Above any number of connections, sessions or files that one process can have.
const COUNT_MAX: u64 = 100_000_000;

/// All keys, in the order of the default file.
///
/// `Reload` is what the loop itself looks up when it needs it, or tells a thread that waits for it. What is handed to
/// threads, sockets and folders at the start is `Restart`.
pub(super) const KEYS: &[Key] = &[
    key("server.address", Address, Restart),
    key("server.port", integer(0, 65535), Restart),
    key("server.metrics_address", Address, Restart),
    key("server.metrics_port", integer(0, 65535), Restart),
    key("server.temp_path", Path, Restart),
    key("server.trusted_proxies", Networks, Reload),
    key("server.shutdown_timeout_s", integer(0, HOUR_S), Reload),
    key("log.level", Word(&["off", "error", "warn", "info", "debug", "trace"]), Reload),
    key("log.format", Word(&["text", "json"]), Restart),
    key("dump.flush_interval_ms", integer(0, 60_000), Reload),
    key("dump.flush_bytes", integer(KIB, 16 * MIB), Reload),
    key("dump.flush_total_bytes", integer(MIB, INTEGER_MAX), Reload),
    key("dump.durability", Word(&["process", "power"]), Restart),
    key("dump.open_files_max", integer(0, COUNT_MAX), Restart),
    key("dump.min_free_bytes", integer(0, INTEGER_MAX), Reload),
    key("archive.enabled", Bool, Restart),
    key("archive.path", Path, Restart),
    key("archive.gzip_level", integer(0, 9), Restart),
    key("archive.max_age_days", integer(0, 36_500), Reload),
    key("archive.max_bytes", integer(0, INTEGER_MAX), Reload),
    key("records.enabled", Bool, Restart),
    key("records.app_environment", Text(128), Restart),
    key("workers.threads", integer(0, 1024), Restart),
    key("workers.queue_jobs_max", integer(1, 1_000_000), Restart),
    key("sessions.reconnect_grace_s", integer(0, 24 * HOUR_S), Reload),
    key("sessions.idle_s", integer(0, YEAR_S), Reload),
    key("sessions.join_by_number", Bool, Reload),
    key("limits.connections", integer(1, COUNT_MAX), Reload),
    key("limits.connections_per_address", integer(0, COUNT_MAX), Reload),
    key("limits.handshakes_per_s", integer(1, 1_000_000), Reload),
    key("limits.head_bytes", integer(KIB, MIB), Reload),
    key("limits.head_headers", integer(8, 256), Reload),
    key("limits.head_timeout_s", integer(1, HOUR_S), Reload),
    key("limits.idle_s", integer(1, 24 * HOUR_S), Reload),
    key("limits.message_bytes", integer(KIB, GIB), Reload),
    key("limits.message_fragments", integer(1, 1_000_000), Reload),
    key("limits.incomplete_bytes", integer(KIB, INTEGER_MAX), Reload),
    key("limits.outgoing_bytes", integer(KIB, GIB), Reload),
    key("limits.sessions_per_connection", integer(1, COUNT_MAX), Reload),
    key("limits.sessions_per_backend_connection", integer(1, COUNT_MAX), Reload),
    key("limits.sessions", integer(1, COUNT_MAX), Reload),
    key("limits.waiting_sessions", integer(0, COUNT_MAX), Reload),
    key("limits.session_bytes", integer(KIB, INTEGER_MAX), Reload),
    key("limits.bad_requests", integer(0, 1_000_000), Reload),
    key("limits.line_bytes", integer(KIB, 4 * GIB), Restart),
    key("limits.nesting", integer(16, 512), Restart),
    key("limits.peer_connections", integer(1, 1_000_000), Restart),
    key("limits.tracks", integer(1, 1_000_000), Restart),
    key("limits.reports", integer(1, 10_000_000), Restart),
    key("reactor.coalesce_ms", integer(0, 1000), Reload),
    key("tls.cert_path", OptionalPath, Restart),
    key("tls.key_path", OptionalPath, Restart),
    key("auth.allowed_origins", Origins, Reload),
    key("auth.jwt_secret_path", OptionalPath, Reload),
    key("auth.jwt_public_key_path", OptionalPath, Reload),
    key("privacy.obfuscate_ip", Bool, Restart),
];

const fn key(name: &'static str, allowed: Allowed, effect: Effect) -> Key {
    Key { name, allowed, effect, secret: false }
}

const fn integer(min: u64, max: u64) -> Allowed {
    Allowed::Integer { min, max }
}

impl Key {
    /// The key of this name.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The environment variable that sets it.
    pub(super) fn variable(&self) -> String {
        format!("{}{}", super::layers::PREFIX, self.name.replace('.', "_").to_ascii_uppercase())
    }

    /// `section` and `key`.
    pub(super) fn parts(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').unwrap_or((self.name, ""))
    }
}

impl Allowed {
    /// Checks `value` and brings it into its one form; `None` when it is of another type or impossible.
    pub(super) fn check(self, value: Value) -> Option<Value> {
        match (self, value) {
            (Self::Bool, value @ Value::Bool(_)) => Some(value),
            (Self::Integer { min, max }, Value::Integer(number)) => {
                (min..=max).contains(&number).then_some(Value::Integer(number))
            }
            (Self::Word(words), Value::Text(text)) => words
                .iter()
                .find(|word| word.eq_ignore_ascii_case(&text))
                .map(|word| Value::Text((*word).into())),
            (Self::Address, Value::Text(text)) => {
                text.parse::<IpAddr>().ok().map(|address| Value::Text(address.to_string()))
            }
            (Self::Path, Value::Text(text)) => {
                (is_plain(&text) && !text.is_empty()).then_some(Value::Text(text))
            }
            (Self::OptionalPath, Value::Text(text)) => is_plain(&text).then_some(Value::Text(text)),
            (Self::Text(bytes_max), Value::Text(text)) => {
                (is_plain(&text) && text.len() <= bytes_max).then_some(Value::Text(text))
            }
            (Self::Networks, Value::List(items)) => {
                items.iter().all(|item| item.parse::<Network>().is_ok()).then_some(Value::List(items))
            }
            (Self::Origins, Value::List(items)) => {
                items.iter().all(|item| is_origin(item)).then_some(Value::List(items))
            }
            (
                Self::Bool
                | Self::Integer { .. }
                | Self::Word(_)
                | Self::Address
                | Self::Path
                | Self::OptionalPath
                | Self::Text(_)
                | Self::Networks
                | Self::Origins,
                _,
            ) => None,
        }
    }

    /// Reads the value of an environment variable. A list is separated by commas.
    pub(super) fn parse(self, text: &str) -> Option<Value> {
        let value = match self {
            Self::Bool => Value::Bool(text.parse().ok()?),
            Self::Integer { .. } => Value::Integer(text.parse().ok()?),
            Self::Word(_) | Self::Address | Self::Path | Self::OptionalPath | Self::Text(_) => {
                Value::Text(text.into())
            }
            Self::Networks | Self::Origins if text.trim().is_empty() => Value::List(Vec::new()),
            Self::Networks | Self::Origins => {
                Value::List(text.split(',').map(|item| item.trim().to_owned()).collect())
            }
        };
        self.check(value)
    }
}

/// No control characters: they would break the lines in which a value is shown.
fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

fn is_origin(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("true or false"),
            Self::Integer { min, max } => write!(f, "an integer from {min} to {max}"),
            Self::Word(words) => {
                for (index, word) in words.iter().enumerate() {
                    let before = match index {
                        0 => "",
                        _ if index + 1 == words.len() => " or ",
                        _ => ", ",
                    };
                    write!(f, "{before}{word:?}")?;
                }
                Ok(())
            }
            Self::Address => f.write_str("an IPv4 or IPv6 address"),
            Self::Path => f.write_str("a path"),
            Self::OptionalPath => f.write_str("a path, or \"\" for none"),
            Self::Text(bytes_max) => {
                write!(f, "a text of at most {bytes_max} bytes without control characters")
            }
            Self::Networks => {
                f.write_str("a list of networks with zero host bits, such as \"10.0.0.0/8\" or \"::1\"")
            }
            Self::Origins => f.write_str("a list of origins, such as \"https://*.example.org\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two keys must never share a variable: `a.b_c` and `a_b.c` would.
    #[test]
    fn every_key_has_a_variable_of_its_own() {
        let mut variables: Vec<_> = KEYS.iter().map(Key::variable).collect();
        variables.sort();
        variables.dedup();
        assert_eq!(variables.len(), KEYS.len());
        assert!(!variables.iter().any(|name| name == "RTCSTATS_ENV" || name == "RTCSTATS_ENVIRONMENT"));
    }

    #[test]
    fn sections_are_contiguous() {
        let mut sections: Vec<_> = KEYS.iter().map(|key| key.parts().0).collect();
        sections.dedup();
        let runs = sections.len();
        sections.sort_unstable();
        sections.dedup();
        assert_eq!(sections.len(), runs);
    }
}
