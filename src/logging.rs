//! Log lines: where they go, how they look, and what may be in them.
//!
//! One event is one line, `area.event key=value ...`, written with the macros of the log crate. Owns the
//! shape of the line (terminal, plain, journal, JSON), the helpers that make a value safe ([`value`],
//! [`Peer`]) and the rate limit per call site. Whatever was logged, what reaches standard error is one line
//! without control characters; that no *key* can be forged needs [`value`] around everything that is not a
//! number or a word of our own. simplelog filters, locks, colours and writes; the line is made here.
//!
//! Lines gather in a buffer: the loop writes it out before it sleeps ([`flush`]), and a warning or worse takes along
//! all before it. So a turn with a hundred lines costs one system call, and a crash loses lines of one turn at most.
//! Blocking: a `write(2)` to standard error, on the thread that flushes. A reader that stalls stalls us. Reads the
//! clock, for the time of a line only.

mod json;
mod text;

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::io::{self, BufWriter, IsTerminal};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use simplelog::{
    ColorChoice, ConfigBuilder, LevelPadding, SharedLogger, TermLogger, TerminalMode, WriteLogger,
    format_description,
};
use time::OffsetDateTime;

use crate::config::{LogConfig, LogFormat};
use crate::moment::Moment;
pub use text::{Chain, Member, Value, chain, member, value};

/// Starts logging to standard error; from then on a panic is a log line, too.
///
/// # Errors
///
/// When logging was started before.
pub fn init(config: &LogConfig) -> Result<(), log::SetLoggerError> {
    let shape = Shape::choose(config.format, std::env::var_os("JOURNAL_STREAM").as_deref());
    log::set_boxed_logger(Box::new(Lines { shape, sink: shape.sink() }))?;
    set_level(config.level);
    log_panics();
    Ok(())
}

/// Changes the most verbose level that is written.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// Writes out what has gathered.
pub fn flush() {
    log::logger().flush();
}

/// Lines that gather at most; more are written at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Time, coloured level, text.
    Terminal,
    /// Time, level, text.
    Plain,
    /// Priority, text; the journal knows the time. `sd-daemon(3)`, "LOGGING".
    Journal,
    /// One JSON object.
    Json,
}

impl Shape {
    /// The shape for standard error as it is. `journal_stream` is systemd's `JOURNAL_STREAM`.
    fn choose(format: LogFormat, journal_stream: Option<&OsStr>) -> Self {
        match format {
            LogFormat::Json => Self::Json,
            LogFormat::Text if io::stderr().is_terminal() => Self::Terminal,
            LogFormat::Text if is_stderr(journal_stream) => Self::Journal,
            LogFormat::Text => Self::Plain,
        }
    }

    fn sink(self) -> Box<dyn SharedLogger> {
        let mut config = ConfigBuilder::new();
        // Both write whole payloads at their most verbose levels.
        config.add_filter_ignore_str("tungstenite").add_filter_ignore_str("mio");
        config.set_thread_level(LevelFilter::Off).set_target_level(LevelFilter::Off);
        config.set_location_level(LevelFilter::Off).set_level_padding(LevelPadding::Right);
        config.set_time_format_custom(format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        ));
        // The level is the log crate's maximum, which can change at run time.
        match self {
            Self::Terminal => {
                TermLogger::new(LevelFilter::Trace, config.build(), TerminalMode::Stderr, ColorChoice::Auto)
            }
            Self::Plain => WriteLogger::new(
                LevelFilter::Trace,
                config.build(),
                BufWriter::with_capacity(BUFFER_BYTES, io::stderr()),
            ),
            Self::Journal | Self::Json => {
                config.set_time_level(LevelFilter::Off).set_max_level(LevelFilter::Off);
                WriteLogger::new(
                    LevelFilter::Trace,
                    config.build(),
                    BufWriter::with_capacity(BUFFER_BYTES, io::stderr()),
                )
            }
        }
    }

    /// What simplelog is given to write.
    fn line(self, level: Level, text: String) -> String {
        match self {
            Self::Terminal | Self::Plain => text,
            Self::Journal => format!("<{}>{text}", priority(level)),
            Self::Json => json::line(&timestamp(OffsetDateTime::now_utc()), level, &text),
        }
    }
}

/// Whether `JOURNAL_STREAM`, `device:inode`, is the standard error that this process has now; it is
/// inherited, so that it may be a stale one.
fn is_stderr(journal_stream: Option<&OsStr>) -> bool {
    let Some((device, inode)) = journal_stream.and_then(OsStr::to_str).and_then(|pair| pair.split_once(':'))
    else {
        return false;
    };
    rustix::fs::fstat(io::stderr())
        .is_ok_and(|stat| device == stat.st_dev.to_string() && inode == stat.st_ino.to_string())
}

/// syslog's priorities.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// RFC 3339, UTC, milliseconds.
fn timestamp(time: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    // Fails only for a date that does not fit the format; a line without its time is still a line.
    time.format(&format).unwrap_or_default()
}

/// Makes lines of records and hands them to simplelog.
struct Lines {
    shape: Shape,
    sink: Box<dyn SharedLogger>,
}

impl Log for Lines {
    /// All of ours; of other crates what is a warning or worse.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_ours(metadata.target()) || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = self.shape.line(record.level(), event(record));
        self.sink
            .log(&Record::builder().metadata(record.metadata().clone()).args(format_args!("{line}")).build());
        if record.level() <= Level::Warn {
            self.sink.flush();
        }
    }

    fn flush(&self) {
        self.sink.flush();
    }
}

fn is_ours(target: &str) -> bool {
    const CRATE: &str = env!("CARGO_CRATE_NAME");
    target.strip_prefix(CRATE).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The event in our form, without anything that could break or colour the line.
fn event(record: &Record<'_>) -> String {
    if is_ours(record.target()) {
        text::one_line(&record.args().to_string())
    } else {
        format!("library.message target={} text={}", value(record.target()), value(record.args()))
    }
}

/// Reports panics as a line of the log.
///
/// A panic's formatted text can quote what a peer sent (slicing a string does), so it is shown in debug
/// builds only; a literal text always is. With `RUST_BACKTRACE` the standard report, with all of it, comes in
/// addition.
fn log_panics() {
    let standard = std::panic::take_hook();
    let wants_backtrace = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let mut line = format!("server.panic thread={}", value(thread.name().unwrap_or("unnamed")));
        if let Some(location) = panic.location() {
            let _ = write!(line, " at={}", value(location));
        }
        let literal = panic.payload().downcast_ref::<&'static str>().copied();
        if let Some(text) = if cfg!(debug_assertions) { panic.payload_as_str() } else { literal } {
            let _ = write!(line, " err={}", value(text));
        }
        log::error!("{line}");
        if wants_backtrace {
            standard(panic);
        }
    }));
}

/// The address of a peer as it may be logged: its network, /24 or /48.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.to_canonical() {
            IpAddr::V4(address) => {
                write!(f, "{}/24", Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << 8)))
            }
            IpAddr::V6(address) => {
                write!(f, "{}/48", Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 80)))
            }
        }
    }
}

/// Bounds how often one call site logs: so many lines at once, then one window of silence that is counted.
///
/// One per call site, owned by whoever logs there; it is told the time. [`crate::limited!`] is the usual way
/// to ask it.
#[derive(Debug, Clone)]
pub struct RateLimit {
    lines_max: u32,
    window: Duration,
    /// Start of the current window; `None` before the first line.
    since: Option<Moment>,
    /// Lines admitted in the current window; at most `lines_max`.
    admitted: u32,
    /// Lines that were not written since the last one that was.
    held_back: u64,
}

impl RateLimit {
    /// At most `lines_max` lines per `window`.
    #[must_use]
    pub const fn new(lines_max: u32, window: Duration) -> Self {
        Self { lines_max, window, since: None, admitted: 0, held_back: 0 }
    }

    /// Asks to write a line now. `Some` admits it and says how many were held back before it: print that
    /// behind the line.
    #[must_use]
    pub fn admit(&mut self, now: Moment) -> Option<HeldBack> {
        self.turn(now);
        if self.admitted < self.lines_max {
            self.admitted += 1;
            Some(HeldBack(std::mem::take(&mut self.held_back)))
        } else {
            self.held_back = self.held_back.saturating_add(1);
            None
        }
    }

    /// What was held back in a window that is over and that no line has reported since; then it counts as
    /// reported. For a periodic look, so that the end of a flood is told even when nothing follows it.
    #[must_use]
    pub fn overdue(&mut self, now: Moment) -> Option<HeldBack> {
        let is_over = self.since.is_some_and(|since| now.saturating_duration_since(since) >= self.window);
        (is_over && self.held_back > 0).then(|| HeldBack(std::mem::take(&mut self.held_back)))
    }

    fn turn(&mut self, now: Moment) {
        let is_over = self.since.is_none_or(|since| now.saturating_duration_since(since) >= self.window);
        if is_over {
            self.since = Some(now);
            self.admitted = 0;
        }
    }
}

/// How many lines of a call site were not written; prints as ` held_back=N`, and as nothing for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldBack(pub u64);

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            lines => write!(f, " held_back={lines}"),
        }
    }
}

/// Logs a line that a peer can cause at will, unless its [`RateLimit`](crate::logging::RateLimit) holds it
/// back: `limited!(self.limits.bad_request, now, Level::Warn, "request.bad conn={conn}")`.
///
/// A level that is not written is not counted either.
#[macro_export]
macro_rules! limited {
    ($limit:expr, $now:expr, $level:expr, $($line:tt)+) => {
        if ::log::log_enabled!($level)
            && let Some(held_back) = $crate::logging::RateLimit::admit(&mut $limit, $now)
        {
            ::log::log!($level, "{}{held_back}", ::std::format_args!($($line)+));
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_cut_to_their_network() {
        let cases = [
            ("203.0.113.77", "203.0.113.0/24"),
            ("::ffff:203.0.113.77", "203.0.113.0/24"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
            ("::1", "::/48"),
            ("127.0.0.1", "127.0.0.0/24"),
        ];
        for (address, expected) in cases {
            assert_eq!(Peer(address.parse().unwrap()).to_string(), expected);
        }
    }

    #[test]
    fn a_flood_is_counted_and_reported() {
        let start = Moment::at(1 << 40);
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut limit = RateLimit::new(2, Duration::from_secs(10));
        assert_eq!(limit.overdue(at(0)), None);
        assert_eq!(limit.admit(at(0)), Some(HeldBack(0)));
        assert_eq!(limit.admit(at(5)), Some(HeldBack(0)));
        for second in 5..10 {
            assert_eq!(limit.admit(at(second)), None);
        }
        assert_eq!(limit.overdue(at(9)), None, "the window is still open");
        assert_eq!(limit.admit(at(10)), Some(HeldBack(5)));
        assert_eq!(limit.admit(at(10)), Some(HeldBack(0)));
        assert_eq!(limit.admit(at(19)), None);
        assert_eq!(limit.overdue(at(20)), Some(HeldBack(1)));
        assert_eq!(limit.overdue(at(21)), None, "reported once");
        assert_eq!(limit.admit(at(100)), Some(HeldBack(0)));
        assert_eq!(
            limit.admit(at(50)),
            Some(HeldBack(0)),
            "a clock that steps back admits, and does not panic"
        );
    }

    #[test]
    fn held_back_prints_as_a_key() {
        assert_eq!(format!("a.b{}", HeldBack(0)), "a.b");
        assert_eq!(format!("a.b{}", HeldBack(3)), "a.b held_back=3");
    }

    #[test]
    fn only_our_own_targets_are_ours() {
        for (target, expected) in [
            ("rtcstats_server", true),
            ("rtcstats_server::reactor", true),
            ("rtcstats_server_other", false),
            ("mio::poll", false),
            ("", false),
        ] {
            assert_eq!(is_ours(target), expected, "{target}");
        }
    }

    /// The line of a record in each shape, as simplelog gets it.
    fn lines_of(target: &str, level: Level, text: &str) -> [String; 3] {
        let metadata = Metadata::builder().target(target).level(level).build();
        let event = event(&Record::builder().metadata(metadata).args(format_args!("{text}")).build());
        [Shape::Plain, Shape::Journal, Shape::Json].map(|shape| shape.line(level, event.clone()))
    }

    #[test]
    fn a_record_is_one_line_in_every_shape() {
        let [plain, journal, json] =
            lines_of("rtcstats_server::a", Level::Warn, "a.b x=1\nWARN forged\u{1b}[31m");
        assert_eq!(plain, "a.b x=1\\nWARN forged\\u001b[31m");
        assert_eq!(journal, "<4>a.b x=1\\nWARN forged\\u001b[31m");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["event"], "a.b");
        assert_eq!(json["level"], "warn");
        let [plain, ..] = lines_of("rustls::server", Level::Warn, "said \"no\"\nx=1");
        assert_eq!(plain, r#"library.message target=rustls::server text="said \"no\"\nx=1""#);
    }

    #[test]
    fn times_are_utc_with_milliseconds() {
        let time = OffsetDateTime::from_unix_timestamp_nanos(1_795_443_787_125_999_999).unwrap();
        assert_eq!(timestamp(time), "2026-11-23T14:23:07.125Z");
    }

    #[test]
    fn only_a_journal_stream_that_is_stderr_counts() {
        let stat = rustix::fs::fstat(io::stderr()).unwrap();
        let own = format!("{}:{}", stat.st_dev, stat.st_ino);
        let other = format!("{}:{}", stat.st_dev, stat.st_ino + 1);
        for (stream, expected) in [(own.as_str(), true), (other.as_str(), false), ("1", false), ("", false)] {
            assert_eq!(is_stderr(Some(OsStr::new(stream))), expected, "{stream}");
        }
        assert!(!is_stderr(None));
        assert_eq!(Shape::choose(LogFormat::Json, Some(OsStr::new(&own))), Shape::Json);
    }
}
