//! rtcstats-server: collects what WebRTC clients stream, one dump per session. This page is the architecture.
//!
//! # The picture
//!
//! ```text
//!  browsers, JVB, Jicofo, Jigasi                                             Prometheus
//!        | WebSocket                                                             | HTTP
//!  ======|=======================================================      ==========|==========
//!  main thread: one turn of the loop, again and again                   metrics thread
//!                                                                         (metrics::http)
//!    Reactor  sleep_until_work -> dispatch -> accept -> run_ready              ^
//!       |       -> fire_timers -> collector.tick -> effects -> housekeep       | atomics
//!       |                                                                 +----+----+
//!       | bytes            one Connection per socket                      | Metrics |
//!       +--> Connection    http -> handshake -> websocket::Decoder        +----+----+
//!               |                                                              ^
//!               | requests                                                     |
//!               +--> Collector    protocol -> Sessions -> DumpStore -----------+
//!                        |  ^                        | append                  |
//!                        |  | dumps of earlier       v                         |
//!                        |  | servers          <temp_path>/<name>              |
//!                finished|  |                        | rename                  |
//!                  dumps |  +-- recovery thread      v                         |
//!                        v      (Scan)         <temp_path>/finished/<name>     |
//!                      Desk                          |                         |
//!  ======================|===========================|=========================|=============
//!                   jobs | bounded queue             | read                    |
//!                        v                           v                         |
//!  worker threads      Workers: extract + archive -> records -> unlink --------+
//!                        |                                                     |
//!                        +--> reports, bounded; a waker ends the loop's sleep  |
//!  ============================================================================|=============
//!  archive-keeper      what is too old, or too much, in the archive -> unlink -+
//! ```
//!
//! # Where a byte goes
//!
//! The [`reactor`] reads into one buffer that all sockets share. The [`connection`] decodes frames in that buffer
//! ([`websocket`]), [`protocol`] takes requests out of the messages, and the [`collector`] puts each entry's line
//! into [`slabs`], memory for the lines of all, where its [`session`] gathers. At latest `dump.flush_interval_ms` later, at
//! `dump.flush_bytes`, and when the session ends or changes hands, what it gathered is appended to the [`dump`] in one write;
//! only then is anything in it acknowledged; under `dump.durability = "power"` only once a thread of its own ([`durability`]) has synced it. A session
//! that ends moves its dump to `finished/`, by rename: from now on it is a job, also after a
//! crash. A [worker](workers) reads it once, derives the document ([`extract`]), writes document and compressed dump
//! ([`archive`]) and rows ([`records_store`]), and removes it. With `privacy.obfuscate_ip` all three pass [`privacy`] on their
//! way; the dump itself never does. One more thread removes the oldest days of the archive when that is limited
//! ([`archive::retention`], [`archive::contents`]).
//!
//! # Modules, in reading order
//!
//! | layer | modules | may name | never names |
//! |---|---|---|---|
//! | wiring | [`cli`], [`serve`], [`reload`] | everything | a rule of the business |
//! | loop | [`reactor`] with its slots, timers and desk | mio, all below | JSON, frames, file formats |
//! | one socket | [`connection`], [`http`], [`handshake`], [`websocket`], [`tls`] | any `Read + Write` | mio, threads, dumps |
//! | who may send | [`gate`], [`auth`], [`address`] | what a head says | sockets, dumps |
//! | one record | [`collector`], [`session`], [`slabs`], [`dump`], [`leftovers`], [`ended`], [`durability`] | descriptors of dumps | sockets |
//! | after the end | [`workers`], [`archive`], [`records_store`], [`recovery`], [`dump_folder`], [`beneath`] | files, threads | sockets |
//! | pure, of the wire | [`protocol`], [`numbering`], [`rooms`], [`blocks`], [`reasons`] | serde | files, sockets, clock |
//! | pure, of the dump | [`extract`], [`records`], [`privacy`], [`client`], [`jobs`] | serde | files, sockets, clock |
//! | edges | [`config`], [`metrics`], [`logging`], [`signals`], [`systemd`], [`descriptors`], [`whole_sync`] | their one crate | each other |
//! | all name it | [`moment`] | the clock | anything else |
//!
//! Arrows point down only; a lower module tells the upper one what happened through what it returns. The collector,
//! which must tell of things that happen to other connections, returns them as
//! [`Effect`](collector::Effect)s. `tests/tidy.rs` holds the homes of the outside crates.
//!
//! # Invariants
//!
//! - One thread owns all live state, as plain fields. No `Rc<RefCell>`, no thread-local, no lock on the loop but the
//!   short one of the workers' list of names. What is shared: metrics (atomics), and what workers share among
//!   themselves.
//! - Nothing on the loop blocks but what [`dump`] declares: appends into the page cache, one directory change at a
//!   session's first append and at its end.
//! - Time is a parameter, a [`Moment`](moment::Moment) or a date. Only the reactor (twice a turn), the start ([`serve`]) and
//!   the worker, keeper and metrics threads read a clock; nothing below them does.
//! - Every queue, buffer, map and loop has a bound, named where it stands, and an answer when it is reached.
//! - A peer's bytes never reach a panic, a path, a label or a log line unescaped. The one thing of a peer that names a
//!   file is a [`SessionId`](client::SessionId).
//! - Disk is the truth. `<temp_path>/<name>` is open or waits for its client, `finished/<name>` is a job,
//!   `quarantine/<name>` is a job that died twice. Queues only refer to files: losing one loses time.
//! - A dump holds whole lines. A short write is cut back before anything else happens to the file.
//! - What was acknowledged is in the dump; what is in the dump is there once, in order ([`session::Ledger`]).
//! - The loop does not catch panics: it dies and systemd restarts it. A job does, and becomes a failed outcome.
//! - Absent on purpose: an async runtime, permessage-deflate, a configuration format of our own, DNS.
//!
//! # What is prepared for
//!
//! - A job is a list of steps ([`jobs::Step`]), each durable once done and harmless when repeated: uploads, databases
//!   and webhooks are further steps.
//! - The dialect of a client is one enum, fixed at the upgrade: [`client::ClientType`].
//! - [`connection::Connection`] is generic over its transport.

pub mod address;
pub mod archive;
pub mod auth;
pub mod beneath;
pub mod blocks;
pub mod cli;
pub mod client;
pub mod collector;
pub mod config;
pub mod connection;
pub mod descriptors;
pub mod dump;
pub mod dump_folder;
pub mod durability;
pub mod ended;
pub mod extract;
pub mod gate;
pub mod handshake;
pub mod http;
pub mod jobs;
pub mod leftovers;
pub mod logging;
pub mod metrics;
pub mod moment;
pub mod numbering;
pub mod privacy;
pub mod protocol;
pub mod reactor;
pub mod reasons;
pub mod records;
pub mod records_store;
pub mod recovery;
pub mod reload;
pub mod rooms;
pub mod serve;
pub mod session;
pub mod signals;
pub mod slabs;
pub mod systemd;
pub mod tls;
pub mod websocket;
pub mod whole_sync;
pub mod workers;
