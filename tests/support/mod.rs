//! What the tests of the whole program stand on: the real binary, a client that can misbehave, scripted
//! sessions, and a reader of the archive.
//!
//! Nothing here imitates the server, and the client shares no framing code with it. Every wait has a
//! deadline; every random choice comes from a seed that is printed when a test fails.

#![allow(dead_code, unused_imports, reason = "each test binary uses its part of this")]

pub(crate) mod archive;
pub(crate) mod client;
pub(crate) mod frames;
pub(crate) mod http;
pub(crate) mod process;
pub(crate) mod rng;
pub(crate) mod script;
pub(crate) mod server;

use std::time::Duration;

pub(crate) use {
    archive::Archive,
    client::{Upgrade, WsClient},
    rng::Rng,
    server::{Settings, TestServer},
};

/// How long anything may take before a test gives up: generous, because the machine may be busy with
/// other things, and never waited for when all is well.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
