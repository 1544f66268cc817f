//! Tests of the whole program: the real binary, real sockets, real files.
//!
//! One test binary, so that it is linked once and everything in it runs side by side. Each module is one promise
//! of the server; `support` holds what they share.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]
#![allow(clippy::disallowed_methods, reason = "deadlines need the clock")]
#![allow(clippy::wildcard_enum_match_arm, reason = "whatever else comes is what the test reports")]
#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

#[path = "../support/mod.rs"]
mod support;

mod abuse;
mod auth;
mod crash;
mod http;
mod ingest;
mod limits;
mod limits_table;
mod lines;
mod messages;
mod metrics;
mod privacy;
mod retention;
mod shutdown;
mod systemd;
mod tls;
mod websocket;
mod worker_limits;
