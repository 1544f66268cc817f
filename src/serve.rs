//! Wires the server together: sockets, folders, workers, loop.

use crate::config::{Config, ReloadSource};

/// The server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no loop to run yet.
    #[error("this build has no server")]
    NotBuilt,
}

/// Runs the server until it is asked to stop.
///
/// # Errors
///
/// When it cannot start.
pub fn run(_config: Config, _reload: ReloadSource) -> Result<(), StartError> {
    Err(StartError::NotBuilt)
}
