//! What SIGHUP does to the configuration: read it again, say what became of it, change the log level.
//!
//! Wiring between configuration and log. The caller applies what is returned to its own parts.

use crate::config::{Config, Effect, Reload, ReloadSource};
use crate::logging::{self, value};

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
