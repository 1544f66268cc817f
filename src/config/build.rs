//! Settings -> [`Config`], and what must hold between two settings. Pure.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;

use super::error::{ConfigError, Named};
use super::network::Network;
use super::value::{Settings, Value};
use super::{
    ArchiveConfig, AuthConfig, Config, DumpConfig, Durability, LimitsConfig, LogConfig, LogFormat,
    PrivacyConfig, ReactorConfig, RecordsConfig, ServerConfig, SessionsConfig, TlsConfig, WorkersConfig,
};

/// What the machine contributes.
#[derive(Debug, Clone)]
pub(super) struct Machine<'a> {
    pub(super) cores: usize,
    pub(super) working_dir: &'a Path,
}

/// Checks the settings against each other and makes the configuration of them.
pub(super) fn build(settings: &Settings, machine: &Machine<'_>) -> Result<Config, ConfigError> {
    let read = Reader(settings);
    read.check(machine)?;
    Ok(Config {
        server: read.server(),
        log: read.log(),
        dump: read.dump(),
        archive: read.archive(),
        records: read.records(),
        workers: read.workers(machine.cores),
        sessions: read.sessions(),
        limits: read.limits(),
        reactor: ReactorConfig { coalesce: read.milliseconds("reactor.coalesce_ms") },
        tls: TlsConfig {
            cert_path: read.optional_path("tls.cert_path"),
            key_path: read.optional_path("tls.key_path"),
        },
        auth: AuthConfig {
            allowed_origins: read.list("auth.allowed_origins").to_vec(),
            jwt_secret_path: read.optional_path("auth.jwt_secret_path"),
            jwt_public_key_path: read.optional_path("auth.jwt_public_key_path"),
        },
        privacy: PrivacyConfig { obfuscate_ip: read.bool("privacy.obfuscate_ip") },
    })
}

/// Typed access. Types and ranges were checked by the table of keys when the value was set; where one does
/// not fit here, the table and this file disagree, and the first start of any test says so.
struct Reader<'a>(&'a Settings);

impl Reader<'_> {
    fn server(&self) -> ServerConfig {
        ServerConfig {
            ingest: self.socket("server.address", "server.port"),
            metrics: self.socket("server.metrics_address", "server.metrics_port"),
            temp_path: self.path("server.temp_path"),
            trusted_proxies: self.parsed_list::<Network>("server.trusted_proxies"),
            shutdown_timeout: self.seconds("server.shutdown_timeout_s"),
        }
    }

    fn log(&self) -> LogConfig {
        LogConfig {
            level: self.parsed::<LevelFilter>("log.level"),
            format: match self.text("log.format") {
                "json" => LogFormat::Json,
                _ => LogFormat::Text,
            },
        }
    }

    fn dump(&self) -> DumpConfig {
        DumpConfig {
            flush_interval: self.milliseconds("dump.flush_interval_ms"),
            flush_bytes: self.integer("dump.flush_bytes"),
            flush_total_bytes: self.integer("dump.flush_total_bytes"),
            durability: match self.text("dump.durability") {
                "power" => Durability::Power,
                _ => Durability::Process,
            },
            open_files_max: Some(self.integer("dump.open_files_max")).filter(|files| *files > 0),
            min_free_bytes: self.integer("dump.min_free_bytes"),
        }
    }

    fn archive(&self) -> ArchiveConfig {
        ArchiveConfig {
            enabled: self.bool("archive.enabled"),
            path: self.path("archive.path"),
            gzip_level: self.integer("archive.gzip_level"),
            max_age_days: self.integer("archive.max_age_days"),
            max_bytes: self.integer("archive.max_bytes"),
        }
    }

    fn records(&self) -> RecordsConfig {
        RecordsConfig {
            enabled: self.bool("records.enabled"),
            app_environment: self.text("records.app_environment").to_owned(),
        }
    }

    fn workers(&self, cores: usize) -> WorkersConfig {
        let threads = match self.integer::<usize>("workers.threads") {
            0 => cores.saturating_sub(1).max(1),
            threads => threads,
        };
        WorkersConfig { threads, queue_jobs_max: self.integer("workers.queue_jobs_max") }
    }

    fn sessions(&self) -> SessionsConfig {
        SessionsConfig {
            reconnect_grace: self.seconds("sessions.reconnect_grace_s"),
            idle: self.seconds("sessions.idle_s"),
            join_by_number: self.bool("sessions.join_by_number"),
        }
    }

    fn limits(&self) -> LimitsConfig {
        LimitsConfig {
            connections_max: self.integer("limits.connections"),
            connections_per_address_max: self.integer("limits.connections_per_address"),
            handshakes_per_s_max: self.integer("limits.handshakes_per_s"),
            head_bytes_max: self.integer("limits.head_bytes"),
            head_headers_max: self.integer("limits.head_headers"),
            head_timeout: self.seconds("limits.head_timeout_s"),
            idle: self.seconds("limits.idle_s"),
            message_bytes_max: self.integer("limits.message_bytes"),
            message_fragments_max: self.integer("limits.message_fragments"),
            incomplete_bytes_max: self.integer("limits.incomplete_bytes"),
            outgoing_bytes_max: self.integer("limits.outgoing_bytes"),
            sessions_per_connection_max: self.integer("limits.sessions_per_connection"),
            sessions_per_backend_connection_max: self.integer("limits.sessions_per_backend_connection"),
            sessions_max: self.integer("limits.sessions"),
            waiting_sessions_max: self.integer("limits.waiting_sessions"),
            session_bytes_max: self.integer("limits.session_bytes"),
            bad_requests_per_minute_max: self.integer("limits.bad_requests"),
            line_bytes_max: self.integer("limits.line_bytes"),
            nesting_max: self.integer("limits.nesting"),
            peer_connections_max: self.integer("limits.peer_connections"),
            tracks_max: self.integer("limits.tracks"),
            reports_max: self.integer("limits.reports"),
        }
    }

    fn check(&self, machine: &Machine<'_>) -> Result<(), ConfigError> {
        self.check_ports()?;
        self.check_folders(machine.working_dir)?;
        if self.text("tls.cert_path").is_empty() != self.text("tls.key_path").is_empty() {
            return Err(self.conflict("tls.cert_path", "tls.key_path", "set both, or none"));
        }
        const AT_MOST: [(&str, &str, &str); 7] = [
            (
                "limits.message_bytes",
                "limits.incomplete_bytes",
                "the first must not be above the second, or the largest message could never be received",
            ),
            (
                "limits.message_bytes",
                "limits.line_bytes",
                "the first must not be above the second, or a recorded line could not be extracted",
            ),
            (
                "limits.message_bytes",
                "limits.session_bytes",
                "the first must not be above the second, or one message could exceed a whole session",
            ),
            ("dump.flush_bytes", "limits.session_bytes", "the first must not be above the second"),
            ("dump.flush_bytes", "dump.flush_total_bytes", "the first must not be above the second"),
            (
                "limits.connections_per_address",
                "limits.connections",
                "the first must not be above the second, or it would never be reached",
            ),
            (
                "limits.sessions_per_connection",
                "limits.sessions",
                "the first must not be above the second, or it would never be reached",
            ),
        ];
        for (small, large, rule) in AT_MOST {
            if self.integer::<u64>(small) > self.integer::<u64>(large) {
                return Err(self.conflict(small, large, rule));
            }
        }
        Ok(())
    }

    /// Two listeners on one port: equal addresses collide, and so does one that listens on all addresses.
    fn check_ports(&self) -> Result<(), ConfigError> {
        let ingest = self.socket("server.address", "server.port");
        let metrics = self.socket("server.metrics_address", "server.metrics_port");
        let (one, other) = (ingest.ip(), metrics.ip());
        let overlap = one == other || covers(one, other) || covers(other, one);
        if ingest.port() == metrics.port() && ingest.port() != 0 && overlap {
            return Err(self.conflict("server.port", "server.metrics_port", "must differ on one address"));
        }
        Ok(())
    }

    /// Dumps are found by listing one folder and old days by listing the other: neither may see the other's
    /// files.
    fn check_folders(&self, working_dir: &Path) -> Result<(), ConfigError> {
        let temp = plain_path(working_dir, &self.path("server.temp_path"));
        let archive = plain_path(working_dir, &self.path("archive.path"));
        if temp.starts_with(&archive) || archive.starts_with(&temp) {
            let rule = "must be two folders, neither inside the other";
            return Err(self.conflict("server.temp_path", "archive.path", rule));
        }
        Ok(())
    }

    fn conflict(&self, first: &'static str, second: &'static str, rule: &'static str) -> ConfigError {
        let named = |key: &'static str| {
            let setting = self.0.get(key);
            Named { key, value: setting.value.to_string(), source: setting.source.clone() }
        };
        ConfigError::Conflict { pair: Box::new((named(first), named(second))), rule }
    }

    fn socket(&self, address: &str, port: &str) -> SocketAddr {
        SocketAddr::new(self.parsed(address), self.integer(port))
    }

    fn bool(&self, key: &str) -> bool {
        match &self.0.get(key).value {
            Value::Bool(value) => *value,
            other @ (Value::Integer(_) | Value::Text(_) | Value::List(_)) => mismatch(key, other),
        }
    }

    fn integer<T: TryFrom<u64>>(&self, key: &str) -> T {
        match &self.0.get(key).value {
            value @ Value::Integer(number) => T::try_from(*number).unwrap_or_else(|_| mismatch(key, value)),
            other @ (Value::Bool(_) | Value::Text(_) | Value::List(_)) => mismatch(key, other),
        }
    }

    fn text(&self, key: &str) -> &str {
        match &self.0.get(key).value {
            Value::Text(text) => text,
            other @ (Value::Bool(_) | Value::Integer(_) | Value::List(_)) => mismatch(key, other),
        }
    }

    fn list(&self, key: &str) -> &[String] {
        match &self.0.get(key).value {
            Value::List(items) => items,
            other @ (Value::Bool(_) | Value::Integer(_) | Value::Text(_)) => mismatch(key, other),
        }
    }

    fn parsed<T: std::str::FromStr>(&self, key: &str) -> T {
        self.text(key).parse().unwrap_or_else(|_| mismatch(key, &self.0.get(key).value))
    }

    fn parsed_list<T: std::str::FromStr>(&self, key: &str) -> Vec<T> {
        let parsed = self.list(key).iter().map(|item| item.parse().ok());
        parsed.collect::<Option<_>>().unwrap_or_else(|| mismatch(key, &self.0.get(key).value))
    }

    fn path(&self, key: &str) -> PathBuf {
        PathBuf::from(self.text(key))
    }

    fn optional_path(&self, key: &str) -> Option<PathBuf> {
        Some(self.path(key)).filter(|path| !path.as_os_str().is_empty())
    }

    fn seconds(&self, key: &str) -> Duration {
        Duration::from_secs(self.integer(key))
    }

    fn milliseconds(&self, key: &str) -> Duration {
        Duration::from_millis(self.integer(key))
    }
}

fn mismatch(key: &str, value: &Value) -> ! {
    panic!("{key} = {value} is believed to have passed the table of keys, but is read as another type");
}

/// Whether a listener on `wide` also takes connections to `narrow`. `::` is dual stack.
fn covers(wide: IpAddr, narrow: IpAddr) -> bool {
    wide == IpAddr::V6(Ipv6Addr::UNSPECIFIED) || (wide.is_unspecified() && narrow.is_ipv4())
}

/// The path without `.` and `..`, from the root. Links are not followed: the folders need not exist yet.
fn plain_path(working_dir: &Path, path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in working_dir.join(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => plain.push(component),
        }
    }
    plain
}
