//! rtcstats-server: collects what WebRTC clients stream, one dump per session.
pub mod cli;
pub mod client;
pub mod config;
pub mod descriptors;
pub mod extract;
pub mod jobs;
pub mod logging;
pub mod reasons;
pub mod reload;
pub mod serve;
pub mod signals;
pub mod systemd;
