//! Configuration: layers of TOML and environment -> one checked [`Config`].
//!
//! Owns every key, its default, what it may be, and where its value came from. Nothing downstream checks a
//! setting again. Never reads the process's own environment, arguments or working folder: they are
//! [`Inputs`], so that a start can be tried without one. Rules: our contract, section 2.
//!
//! `keys` is the table of what is allowed, `layers` reads the sources, `value` keeps them apart and prints
//! them, `build` makes the structs below and checks settings against each other.

mod build;
mod error;
mod keys;
mod layers;
mod network;
#[cfg(test)]
mod tests;
mod value;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use error::{ConfigError, Named, Warning};
pub use keys::Effect;
pub use network::{Network, NotANetwork};
pub use value::{Change, Settings, Source};

/// The lowest layer.
const DEFAULT_TOML: &str = include_str!("../config/default.toml");

/// Everything outside the configuration files that decides what is loaded.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// `--config-dir`
    pub config_dir: Option<PathBuf>,
    /// `--env`
    pub env: Option<String>,
    /// Environment variables.
    pub variables: Vec<(OsString, OsString)>,
    /// Folders that are tried, in this order, without `--config-dir`.
    pub usual_dirs: Vec<PathBuf>,
    /// Where relative paths start.
    pub working_dir: PathBuf,
    /// Processor cores that this process may use.
    pub cores: usize,
}

/// What a load gives.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The effective configuration.
    pub config: Config,
    /// Every value with its origin.
    pub settings: Settings,
    /// What looks like a mistake.
    pub warnings: Vec<Warning>,
    /// The files that were read, lowest layer first.
    pub files: Vec<PathBuf>,
}

/// Reads and checks all layers.
///
/// # Errors
///
/// The first thing that is wrong, in the order of the layers; what two settings mean together comes last.
pub fn load(inputs: &Inputs) -> Result<Loaded, ConfigError> {
    let layers::Layers { settings, warnings, files } = layers::Layers::read(inputs)?;
    let config = build::build(&settings, &inputs.machine())?;
    Ok(Loaded { config, settings, warnings, files })
}

impl Inputs {
    fn machine(&self) -> build::Machine<'_> {
        build::Machine { cores: self.cores, working_dir: &self.working_dir }
    }
}

/// Reads the configuration again (SIGHUP) and says what became of it.
#[derive(Debug)]
pub struct ReloadSource {
    inputs: Inputs,
    running: Settings,
}

/// A configuration that was read again.
#[derive(Debug)]
pub struct Reload {
    /// What is in effect from now on: new values where [`Effect::Reload`] allows it, running ones elsewhere.
    pub config: Config,
    /// What differs from before; those with [`Effect::Restart`] are not in `config`, and are listed again at
    /// the next reload.
    pub changes: Vec<Change>,
    /// What looks like a mistake.
    pub warnings: Vec<Warning>,
}

impl ReloadSource {
    /// Continues from what was loaded at the start.
    #[must_use]
    pub fn new(inputs: Inputs, running: Settings) -> Self {
        Self { inputs, running }
    }

    /// Reads all files again. The environment is that of the start.
    ///
    /// Blocking: reads at most three small files.
    ///
    /// # Errors
    ///
    /// As [`load`]; also when the new values do not fit to those that only a restart changes. Then nothing
    /// has changed, and the next call compares with the same running configuration.
    pub fn reload(&mut self) -> Result<Reload, ConfigError> {
        let loaded = load(&self.inputs)?;
        let changes = self.running.changes(&loaded.settings);
        let mixed = self.running.with_reloadable(&loaded.settings);
        let config = build::build(&mixed, &self.inputs.machine())?;
        self.running = mixed;
        Ok(Reload { config, changes, warnings: loaded.warnings })
    }
}

impl Config {
    /// The built-in configuration on a machine with one core: what tests and examples start from.
    ///
    /// # Panics
    ///
    /// Panics when `config/default.toml` is wrong, which a test of this module excludes.
    #[must_use]
    pub fn built_in() -> Self {
        let machine = build::Machine { cores: 1, working_dir: std::path::Path::new("/") };
        match layers::Layers::built_in().and_then(|layers| build::build(&layers.settings, &machine)) {
            Ok(config) => config,
            Err(error) => panic!("the built-in configuration is believed to be right, but: {error}"),
        }
    }
}

/// The effective, checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Sockets, dump folder, shutdown.
    pub server: ServerConfig,
    /// What is logged and how.
    pub log: LogConfig,
    /// Dumps in progress.
    pub dump: DumpConfig,
    /// Where finished dumps end up.
    pub archive: ArchiveConfig,
    /// Feature rows beside the archive.
    pub records: RecordsConfig,
    /// The worker pool.
    pub workers: WorkersConfig,
    /// Lifetime of sessions.
    pub sessions: SessionsConfig,
    /// What bounds peers and memory.
    pub limits: LimitsConfig,
    /// The event loop.
    pub reactor: ReactorConfig,
    /// Optional TLS on the ingest port.
    pub tls: TlsConfig,
    /// Optional authorisation of senders.
    pub auth: AuthConfig,
    /// What is hidden from the archive and the records.
    pub privacy: PrivacyConfig,
}

/// `server.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Address and port of the WebSocket listener; `[::]` is dual stack, port 0 = any.
    pub ingest: SocketAddr,
    /// Address and port of the metrics listener.
    pub metrics: SocketAddr,
    /// Folder of the dumps in progress.
    pub temp_path: PathBuf,
    /// Networks (CIDR) whose `X-Forwarded-For` / `Forwarded` is believed.
    pub trusted_proxies: Vec<Network>,
    /// How long workers may go on after a stop signal.
    pub shutdown_timeout: Duration,
}

/// `log.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// Most verbose level that is written.
    pub level: log::LevelFilter,
    /// Text or JSON lines.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `LEVEL area.event key=value ...`
    Text,
    /// One JSON object per line.
    Json,
}

/// `dump.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpConfig {
    /// An entry is appended at latest after this time.
    pub flush_interval: Duration,
    /// A session's gathered entries are appended at latest at this size.
    pub flush_bytes: usize,
    /// Memory in use for the gathered entries of all sessions, over which those are appended that gather longest.
    pub flush_total_bytes: usize,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// Open dump descriptors kept; `None` = a quarter of the descriptor limit.
    pub open_files_max: Option<usize>,
    /// Free space of the dump file system below which new sessions are refused.
    pub min_free_bytes: u64,
}

/// `dump.durability`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Survives the end of the process: written to the kernel.
    Process,
    /// Survives a power cut: synced to the device.
    Power,
}

/// `archive.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveConfig {
    /// Off: a processed dump is removed, as the reference does.
    pub enabled: bool,
    /// Root of the archive.
    pub path: PathBuf,
    /// gzip level, 0 to 9.
    pub gzip_level: u32,
    /// Days after which archived dumps are removed; 0 = never.
    pub max_age_days: u32,
    /// Size above which the oldest days are removed; 0 = never.
    pub max_bytes: u64,
}

/// `records.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordsConfig {
    /// Whether feature rows are written.
    pub enabled: bool,
    /// `appEnv` of the meeting rows.
    pub app_environment: String,
}

/// `workers.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkersConfig {
    /// Number of worker threads, already resolved (at least 1).
    pub threads: usize,
    /// Jobs that wait in the channel at most; the rest waits on disk.
    pub queue_jobs_max: usize,
}

/// `sessions.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionsConfig {
    /// How long a numbered session waits for its client after an unclean end.
    pub reconnect_grace: Duration,
    /// A session without an entry for this long is finished; zero = never.
    pub idle: Duration,
    /// Whether a client in a breakout room is joined to its dump by its number alone, without a proof.
    pub join_by_number: bool,
}

/// `limits.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Open connections in all.
    pub connections_max: usize,
    /// Open connections per client address; 0 = no limit.
    pub connections_per_address_max: usize,
    /// Upgrades per second (token bucket, burst of one second).
    pub handshakes_per_s_max: u32,
    /// Bytes of a request head.
    pub head_bytes_max: usize,
    /// Header fields of a request head.
    pub head_headers_max: usize,
    /// Time for a whole request head.
    pub head_timeout: Duration,
    /// Silence after which a connection is closed.
    pub idle: Duration,
    /// Bytes of one WebSocket message, summed over its fragments.
    pub message_bytes_max: usize,
    /// Fragments of one WebSocket message.
    pub message_fragments_max: u32,
    /// Bytes held for incomplete messages of all connections.
    pub incomplete_bytes_max: usize,
    /// Bytes queued towards a peer that does not read.
    pub outgoing_bytes_max: usize,
    /// Sessions on one connection of a browser client.
    pub sessions_per_connection_max: usize,
    /// Sessions on one connection of any other client.
    pub sessions_per_backend_connection_max: usize,
    /// Open sessions in all.
    pub sessions_max: usize,
    /// Sessions that wait for a reconnect; over it the oldest is finished early.
    pub waiting_sessions_max: usize,
    /// Bytes of one dump.
    pub session_bytes_max: u64,
    /// Bad requests per minute and connection.
    pub bad_requests_per_minute_max: u32,
    /// Extraction: bytes of one line.
    pub line_bytes_max: usize,
    /// Extraction: nesting depth of one line.
    pub nesting_max: usize,
    /// Extraction: peer connections of one dump.
    pub peer_connections_max: usize,
    /// Extraction: tracks of one peer connection.
    pub tracks_max: usize,
    /// Extraction: reports of one stats entry.
    pub reports_max: usize,
}

/// `reactor.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReactorConfig {
    /// Longest pause that gathers readiness.
    pub coalesce: Duration,
}

/// `tls.*`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsConfig {
    /// PEM file with the certificate chain.
    pub cert_path: Option<PathBuf>,
    /// PEM file with the private key.
    pub key_path: Option<PathBuf>,
}

/// `auth.*`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuthConfig {
    /// Origins that may send; empty = all.
    pub allowed_origins: Vec<String>,
    /// File with the HS256 secret.
    pub jwt_secret_path: Option<PathBuf>,
    /// PEM file with the RS256 or ES256 public key.
    pub jwt_public_key_path: Option<PathBuf>,
}

/// `privacy.*`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PrivacyConfig {
    /// Whether IP addresses, whoever has them, are cut in what is archived and published.
    pub obfuscate_ip: bool,
}
