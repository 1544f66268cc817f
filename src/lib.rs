//! rtcstats-server: collects what WebRTC clients stream, one dump per session.
pub mod cli;
pub mod client;
pub mod config;
pub mod extract;
pub mod handshake;
pub mod http;
pub mod jobs;
pub mod metrics;
pub mod reasons;
pub mod websocket;
