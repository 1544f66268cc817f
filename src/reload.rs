//! What SIGHUP does to the configuration: read it again, say what became of it, change the log level.
//!
//! Wiring between configuration and log. The caller applies what is returned to its own parts.

use crate::auth::{Auth, KeyError};
use crate::config::{AuthConfig, Config, Effect, Reload, ReloadSource};
use crate::logging::{self, value};
use crate::tls::Tls;

/// Reads the configuration again. `None`: it is wrong, which is logged, and the old one stays in effect.
///
/// Blocking: reads at most three small files.
pub fn reload(source: &mut ReloadSource) -> Option<Config> {
    let Reload { config, changes, warnings } = match source.reload() {
        Ok(reload) => reload,
        Err(error) => {
            log::error!("config.bad err={} kept=running", value(logging::chain(&error)));
            return None;
        }
    };
    for warning in warnings {
        log::warn!("config.warning text={}", value(warning));
    }
    logging::set_level(config.log.level);
    for change in &changes {
        let (key, old, new) = (change.key, value(&change.old), value(&change.new));
        match change.effect {
            Effect::Reload => log::info!("config.changed key={key} old={old} new={new}"),
            Effect::Restart => log::warn!("config.needs_restart key={key} running={old} new={new}"),
        }
    }
    log::info!("config.reloaded changes={}", changes.len());
    Some(config)
}

/// Reads the key files again. `None`: one is of no use, which is logged, and the old ones stay in effect.
#[must_use]
pub fn keys(config: &AuthConfig) -> Option<Auth> {
    load_keys(config)
        .inspect_err(|error| log::error!("auth.bad err={} kept=running", value(logging::chain(error))))
        .ok()
}

/// Reads the key files, and says so when there are any.
///
/// # Errors
/// One is of no use.
pub fn load_keys(config: &AuthConfig) -> Result<Auth, KeyError> {
    let auth = Auth::load(config)?;
    if auth.keys() > 0 {
        log::info!("auth.loaded keys={}", auth.keys());
    }
    if auth.has_weak_secret() {
        log::warn!("auth.weak_secret: RFC 7518 demands at least 32 bytes for HS256");
    }
    Ok(auth)
}

/// Reads certificate and key again. What is of no use is logged, and the old ones stay in effect.
pub fn certificate(tls: &mut Tls) {
    match tls.reload() {
        Ok(()) => log::info!("tls.reloaded"),
        Err(error) => log::error!("tls.bad err={} kept=running", value(logging::chain(&error))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{self, Inputs};

    /// A changed level is in effect, a wrong file changes nothing.
    #[test]
    fn a_good_file_is_taken_and_a_bad_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("local.toml");
        let inputs = Inputs {
            config_dir: Some(folder.path().to_owned()),
            env: None,
            variables: Vec::new(),
            usual_dirs: Vec::new(),
            working_dir: "/".into(),
            cores: 1,
        };
        let mut source = ReloadSource::new(inputs.clone(), config::load(&inputs).unwrap().settings);
        fs::write(&file, "[log]\nlevel = 'error'\n[limits]\nidle_s = 5\n").unwrap();
        let config = reload(&mut source).unwrap();
        assert_eq!(config.limits.idle.as_secs(), 5);
        assert_eq!(log::max_level(), log::LevelFilter::Error);
        fs::write(&file, "[log]\nlevel = 'debug'\n[limits]\nidle_s = 0\n").unwrap();
        assert_eq!(reload(&mut source), None);
        assert_eq!(log::max_level(), log::LevelFilter::Error);
    }
}
