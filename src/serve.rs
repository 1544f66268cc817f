//! Starts the server: sockets, folders, threads, and the loop that owns the rest.
//!
//! Everything that can fail at a start fails here, with one message, before the ready line. Order: the folder lock
//! (so that a second server does no harm), sockets, threads, loop.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::SystemTime;

use log::{error, info, warn};
use mio::{Poll, Waker};

use crate::auth::KeyError;
use crate::beneath;
use crate::collector::{Collector, Now};
use crate::config::{self, Config, ReloadSource};
use crate::descriptors::{self, Shares};
use crate::dump::DumpStore;
use crate::dump_folder::{DumpFolder, FolderError};
use crate::durability::Durability;
use crate::jobs::Wake;
use crate::leftovers::Leftovers;
use crate::metrics::{self, Metrics, MetricsError};
use crate::moment::Moment;
use crate::reactor::desk::Desk;
use crate::reactor::{self, Parts, Reactor, ReactorError};
use crate::recovery::Scan;
use crate::reload;
use crate::signals::Signals;
use crate::systemd::{self, PassedSocketError, Supervisor};
use crate::tls::{Tls, TlsError};
use crate::workers::{WorkerSettings, Workers};

/// Connections that the kernel holds for us while the loop is busy or starting. The kernel cuts it to its own limit
/// (net.core.somaxconn).
const BACKLOG: i32 = 4096;

/// Why the server did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The dump folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A socket that systemd passed.
    #[error(transparent)]
    PassedSocket(#[from] PassedSocketError),
    /// A socket of ours.
    #[error("cannot listen on {address} for {what}")]
    Bind {
        /// `ingest` or `metrics`.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something of the system that a server needs.
    #[error("cannot set up {what}")]
    System {
        /// Which thing.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A key for tokens.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A defect in the table of metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The loop.
    #[error(transparent)]
    Reactor(#[from] ReactorError),
}

/// Runs the server until a signal stops it.
///
/// # Errors
/// When it cannot start, or the loop cannot go on.
pub fn run(config: Config, mut reload: ReloadSource) -> Result<(), StartError> {
    beneath::set_mask();
    let failed = |what| move |source| StartError::System { what, source };
    let mut supervisor = Supervisor::from_env().map_err(failed("the notification socket"))?;
    let descriptors = descriptors::raise_limit().map_err(failed("the descriptor limit"))?;
    let (folder, last_heartbeat) = DumpFolder::open(&config.server.temp_path)?;
    let folder = Arc::new(folder);
    let auth = reload::load_keys(&config.auth)?;
    let tls = Tls::load(&config.tls)?;
    let signals = Signals::new().map_err(failed("the signal handlers"))?;
    let Sockets { ingest, is_ingest_passed: is_listener_passed, metrics: metrics_listener } =
        Sockets::open(&config)?;

    let (instant, wall) = clocks();
    let metrics = Arc::new(Metrics::new(instant, wall)?);
    let poll = Poll::new().map_err(failed("the event queue"))?;
    let waker = Waker::new(poll.registry(), reactor::inbox_token()).map_err(failed("the inbox"))?;
    let wake: Wake = Arc::new(move || {
        if let Err(cause) = waker.wake() {
            error!("loop.wake err={cause:?}");
        }
    });
    let line_bytes_max = config.limits.line_bytes_max;
    let scan = Scan::start(Arc::clone(&folder), line_bytes_max, Arc::clone(&wake))
        .map_err(failed("the look at the dump folder"))?;
    let leftovers = Leftovers::new(scan, Arc::clone(&folder), line_bytes_max);
    let durability = match config.dump.durability {
        config::Durability::Process => None,
        config::Durability::Power => {
            let started = Durability::start(Arc::clone(&folder), Arc::clone(&wake));
            Some(started.map_err(failed("the thread that syncs"))?)
        }
    };
    let workers =
        Workers::start(&worker_settings(&config, &folder, last_heartbeat), Arc::clone(&metrics), wake)
            .map_err(failed("the workers"))?;

    let open_files_max = config.dump.open_files_max.unwrap_or_else(|| to_usize(descriptors.soft / 4));
    let shares = shares(&config, descriptors.soft);
    let dumps = DumpStore::new(folder, open_files_max, Some(leftovers));
    let mut collector = Collector::new(reactor::collector_settings(&config), dumps, last_heartbeat);
    if let Some(durability) = durability {
        collector = collector.with_durability(durability);
    }
    collector.remember_ended(Now { instant, wall });
    let exporter =
        metrics::http::serve(metrics_listener, Arc::clone(&metrics)).map_err(failed("the metrics thread"))?;
    let ingest_address = ingest.local_addr().map_err(failed("the ingest socket"))?;
    let metrics_address = exporter.address();
    let status =
        format!("ingest={ingest_address} metrics={metrics_address} version={}", env!("CARGO_PKG_VERSION"));
    supervisor.set_status(&status);

    let reactor = Reactor::new(Parts {
        auth,
        tls,
        config,
        shares,
        open_files_max,
        poll,
        listener: ingest,
        is_listener_passed,
        signals,
        supervisor,
        collector,
        desk: Desk::new(workers),
        metrics,
        reload: Box::new(move || reload::reload(&mut reload)),
    })?;
    info!("server.ready {status}");
    let ended = reactor.run();
    exporter.stop();
    Ok(ended?)
}

fn worker_settings(
    config: &Config,
    folder: &Arc<DumpFolder>,
    last_heartbeat: Option<SystemTime>,
) -> WorkerSettings {
    WorkerSettings {
        workers: config.workers.clone(),
        folder: Arc::clone(folder),
        archive: config.archive.clone(),
        records: config.records.clone(),
        privacy: config.privacy.clone(),
        limits: config.limits.clone(),
        last_heartbeat,
    }
}

/// The listening sockets: passed by systemd, which wins over the configuration, or our own.
struct Sockets {
    ingest: TcpListener,
    is_ingest_passed: bool,
    metrics: TcpListener,
}

impl Sockets {
    fn open(config: &Config) -> Result<Self, StartError> {
        let passed = systemd::passed_sockets()?;
        let choose = |passed: Option<TcpListener>, what, address| match passed {
            Some(socket) => {
                info!("socket.passed name={what} configured={address}: the passed one is used");
                Ok(socket)
            }
            None => listen(address).map_err(|source| StartError::Bind { what, address, source }),
        };
        Ok(Self {
            is_ingest_passed: passed.ingest.is_some(),
            ingest: choose(passed.ingest, "ingest", config.server.ingest)?,
            metrics: choose(passed.metrics, "metrics", config.server.metrics)?,
        })
    }
}

/// A listening socket that can be bound again at once after a restart, and takes IPv4 on the IPv6 wildcard, too.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket =
        rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Shares the descriptors. Cached descriptors of dumps make room for connections, so they are not counted.
fn shares(config: &Config, descriptors: u64) -> Shares {
    let wanted = config.limits.connections_max;
    let shares = Shares::divide(descriptors, wanted);
    if shares.connections_max < wanted {
        warn!(
            "limit.descriptors connections={wanted} possible={} descriptors={descriptors}: raise LimitNOFILE or lower \
             limits.connections",
            shares.connections_max
        );
    }
    shares
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn clocks() -> (Moment, SystemTime) {
    #[expect(clippy::disallowed_methods, reason = "the start of the process is read once, here")]
    (Moment::now(), SystemTime::now())
}
