//! rtcstats-server: collects what WebRTC clients stream, one dump per session.
pub mod archive;
pub mod beneath;
pub mod cli;
pub mod client;
pub mod config;
pub mod dump_folder;
pub mod extract;
pub mod handshake;
pub mod http;
pub mod jobs;
pub mod metrics;
pub mod reasons;
pub mod records_store;
pub mod recovery;
pub mod websocket;
pub mod workers;
