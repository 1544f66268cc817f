//! rtcstats-server: collects what WebRTC clients stream, one dump per session.
pub mod cli;
pub mod client;
pub mod config;
pub mod extract;
pub mod jobs;
pub mod reasons;
pub mod records;
