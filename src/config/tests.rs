//! Each rule of the loader and the text of each error, against real files in a temporary folder.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::keys::{Allowed, KEYS, Key};
use super::value::Value;
use super::*;

/// A configuration folder and an environment.
struct Fixture {
    root: TempDir,
    inputs: Inputs,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("config")).unwrap();
        let inputs = Inputs {
            config_dir: None,
            env: None,
            variables: Vec::new(),
            usual_dirs: vec![root.path().join("config"), root.path().join("etc")],
            working_dir: root.path().to_owned(),
            cores: 4,
        };
        Self { root, inputs }
    }

    fn file(self, name: &str, text: &str) -> Self {
        fs::write(self.path(name), text).unwrap();
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.inputs.variables.push((name.into(), value.into()));
        self
    }

    fn env(mut self, name: &str) -> Self {
        self.inputs.env = Some(name.into());
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("config").join(name)
    }

    fn load(&self) -> Loaded {
        load(&self.inputs).unwrap()
    }

    /// The error as it is printed, with the temporary folder taken out.
    fn error(&self) -> String {
        let text = load(&self.inputs).unwrap_err().to_string();
        assert_eq!(text.lines().count(), 1, "{text}");
        text.replace(&format!("{}/", self.root.path().display()), "")
    }

    fn warnings(&self) -> Vec<String> {
        let root = format!("{}/", self.root.path().display());
        self.load().warnings.iter().map(|warning| warning.to_string().replace(&root, "")).collect()
    }
}

/// The defaults that our contract fixes.
#[test]
fn the_built_in_configuration_is_the_contract() {
    let config = Config::built_in();
    assert_eq!(config.server.ingest, "[::]:3000".parse().unwrap());
    assert_eq!(config.server.metrics, "[::]:8095".parse().unwrap());
    assert_eq!(config.server.temp_path, Path::new("temp"));
    assert_eq!(config.server.trusted_proxies, []);
    assert_eq!(config.server.shutdown_timeout, Duration::from_secs(20));
    assert_eq!(config.log, LogConfig { level: log::LevelFilter::Info, format: LogFormat::Text });
    assert_eq!(config.dump.flush_interval, Duration::from_millis(1000));
    assert_eq!(config.dump.flush_bytes, 262_144);
    assert_eq!(config.dump.flush_total_bytes, 48 << 20);
    assert_eq!(config.dump.durability, Durability::Process);
    assert_eq!(config.dump.open_files_max, None);
    assert_eq!(config.dump.min_free_bytes, 1 << 30);
    assert!(config.archive.enabled);
    assert_eq!(config.archive.path, Path::new("archive"));
    assert_eq!((config.archive.max_age_days, config.archive.max_bytes), (0, 0));
    assert!(config.records.enabled);
    assert_eq!(config.sessions.reconnect_grace, Duration::from_secs(660));
    assert_eq!(config.sessions.idle, Duration::ZERO);
    assert!(config.sessions.join_by_number);
    assert_eq!((config.limits.head_bytes_max, config.limits.head_headers_max), (8192, 64));
    assert_eq!(config.limits.head_timeout, Duration::from_secs(10));
    assert_eq!(config.limits.idle, Duration::from_secs(60));
    assert_eq!(config.limits.message_bytes_max, 4 << 20);
    assert_eq!(config.limits.sessions_per_connection_max, 256);
    assert_eq!(config.limits.sessions_per_backend_connection_max, 4096);
    assert_eq!(config.limits.bad_requests_per_minute_max, 100);
    assert_eq!(config.limits.handshakes_per_s_max, 5000);
    assert_eq!(config.reactor.coalesce, Duration::from_millis(20));
    assert_eq!(config.tls, TlsConfig::default());
    assert_eq!(config.auth, AuthConfig::default());
    assert_eq!(config.privacy, PrivacyConfig::default());
}

/// The default file and the table of keys list the same keys in the same order, and the default file is what
/// the folder of a checkout holds.
#[test]
fn the_default_file_holds_every_key() {
    let mut section = String::new();
    let mut names = Vec::new();
    for line in DEFAULT_TOML.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            names.push(format!("{section}.{key}"));
        }
    }
    assert_eq!(names, KEYS.iter().map(|key| key.name).collect::<Vec<_>>());

    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    assert_eq!(fs::read_to_string(checkout.join("default.toml")).unwrap(), DEFAULT_TOML);
    for file in fs::read_dir(checkout).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let env = name.strip_suffix(".toml").unwrap();
        let mut fixture = Fixture::new();
        fixture.inputs.usual_dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("config")];
        if env != "default" {
            fixture = fixture.env(env);
        }
        assert_eq!(fixture.warnings(), Vec::<String>::new(), "{name}");
    }
}

/// Every key reaches the field of its name: changing it changes that field and no other.
#[test]
fn every_key_is_read() {
    for key in KEYS {
        // Certificate and key are possible only together: the other one is set before and after.
        let fixture = || match key.name {
            "tls.cert_path" => Fixture::new().variable("RTCSTATS_TLS_KEY_PATH", "k"),
            "tls.key_path" => Fixture::new().variable("RTCSTATS_TLS_CERT_PATH", "c"),
            _ => Fixture::new(),
        };
        let changed = |value| fixture().variable(&key.variable(), value).load().config;
        let before = match key.name {
            "tls.cert_path" | "tls.key_path" => changed("before"),
            _ => fixture().load().config,
        };
        assert_eq!(changed_fields(&before, &changed(another(key))), [field_of(key)], "{}", key.name);
    }
}

/// The fields, as `section.field`, in which two configurations differ.
fn changed_fields(before: &Config, after: &Config) -> Vec<String> {
    let fields = |config: &Config| {
        let mut section = String::new();
        let mut fields = std::collections::BTreeMap::<String, String>::new();
        let mut field = String::new();
        for line in format!("{config:#?}").lines() {
            let depth = line.len() - line.trim_start().len();
            match (depth, line.trim().split_once(": ")) {
                (4, Some((name, _))) => section = name.to_owned(),
                (8, Some((name, _))) => field = format!("{section}.{name}"),
                _ => {}
            }
            *fields.entry(field.clone()).or_default() += line;
        }
        fields
    };
    let (before, after) = (fields(before), fields(after));
    before.into_iter().filter(|(name, text)| after[name] != *text).map(|(name, _)| name).collect()
}

fn field_of(key: &Key) -> String {
    match key.name {
        "server.address" | "server.port" => "server.ingest".to_owned(),
        "server.metrics_address" | "server.metrics_port" => "server.metrics".to_owned(),
        "limits.bad_requests" => "limits.bad_requests_per_minute_max".to_owned(),
        name if name.starts_with("limits.") && !name.ends_with("_s") || name == "limits.handshakes_per_s" => {
            format!("{name}_max")
        }
        name => name.strip_suffix("_ms").or(name.strip_suffix("_s")).unwrap_or(name).to_owned(),
    }
}

/// A value that is allowed and not the default.
fn another(key: &Key) -> &'static str {
    match (key.name, key.allowed) {
        ("archive.enabled" | "records.enabled" | "sessions.join_by_number", _) => "false",
        ("archive.gzip_level", _) => "3",
        (
            "limits.line_bytes"
            | "limits.session_bytes"
            | "limits.incomplete_bytes"
            | "dump.flush_total_bytes",
            _,
        ) => "5000000",
        ("limits.sessions", _) => "70000",
        ("reactor.coalesce_ms" | "workers.queue_jobs_max" | "limits.head_headers", _) => "40",
        ("limits.nesting", _) => "100",
        ("log.level", _) => "trace",
        ("log.format", _) => "json",
        ("dump.durability", _) => "power",
        (_, Allowed::Bool) => "true",
        (_, Allowed::Integer { .. }) => "1024",
        (_, Allowed::Address) => "192.0.2.1",
        (_, Allowed::Networks) => "192.0.2.0/24",
        (
            _,
            Allowed::Word(_) | Allowed::Path | Allowed::OptionalPath | Allowed::Text(_) | Allowed::Origins,
        ) => "other",
    }
}

#[test]
fn later_layers_win_and_say_so() {
    let fixture = Fixture::new()
        .file(
            "default.toml",
            "[server]\nport = 1\nmetrics_port = 1001\nshutdown_timeout_s = 1\n[log]\nlevel = 'warn'\n",
        )
        .file("blue.toml", "server.port = 2\nserver.metrics_port = 1002\n[log]\nlevel = 'error'")
        .file("local.toml", "# local\n\nserver = { port = 3 }\n")
        .env("blue")
        .variable("RTCSTATS_SERVER_PORT", "4");
    let loaded = fixture.load();
    assert_eq!(loaded.config.server.ingest.port(), 4);
    assert_eq!(loaded.config.server.metrics.port(), 1002);
    assert_eq!(loaded.config.server.shutdown_timeout, Duration::from_secs(1));
    assert_eq!(loaded.config.log.level, log::LevelFilter::Error);
    let file = |name: &str, line| Source::File { path: fixture.path(name), line };
    assert_eq!(loaded.settings.source("server.port"), Some(&Source::Variable("RTCSTATS_SERVER_PORT".into())));
    assert_eq!(loaded.settings.source("server.metrics_port"), Some(&file("blue.toml", 2)));
    assert_eq!(loaded.settings.source("server.shutdown_timeout_s"), Some(&file("default.toml", 4)));
    assert_eq!(loaded.settings.source("log.level"), Some(&file("blue.toml", 4)));
    assert_eq!(loaded.settings.source("dump.flush_bytes"), Some(&Source::BuiltIn));
    assert_eq!(loaded.files, ["default.toml", "blue.toml", "local.toml"].map(|name| fixture.path(name)));
}

#[test]
fn the_folder_is_the_one_asked_for_or_the_first_that_exists() {
    let mut fixture = Fixture::new().file("local.toml", "server.port = 1");
    let etc = fixture.root.path().join("etc");
    let own = fixture.root.path().join("own");
    for (folder, port) in [(&etc, 2), (&own, 3)] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("local.toml"), format!("server.port = {port}")).unwrap();
    }
    let port = |fixture: &Fixture| fixture.load().config.server.ingest.port();
    assert_eq!(port(&fixture), 1);
    fs::remove_dir_all(fixture.root.path().join("config")).unwrap();
    assert_eq!(port(&fixture), 2);
    fixture.inputs.config_dir = Some(own);
    assert_eq!(port(&fixture), 3);
    fixture.inputs.config_dir = None;
    fs::remove_dir_all(etc).unwrap();
    assert_eq!(port(&fixture), 3000);
}

#[test]
fn the_environment_is_chosen_by_option_then_variable() {
    let fixture = || {
        Fixture::new()
            .file("blue.toml", "server.port = 1")
            .file("green.toml", "server.port = 2")
            .variable("RTCSTATS_ENV", "blue")
    };
    assert_eq!(fixture().load().config.server.ingest.port(), 1);
    assert_eq!(fixture().env("green").load().config.server.ingest.port(), 2);
    assert_eq!(
        Fixture::new().variable("RTCSTATS_ENV", "").load().config,
        Config { ..Fixture::new().load().config }
    );
    assert_eq!(fixture().env("gren").warnings(), ["environment gren: there is no config/gren.toml"]);
    let mut nowhere = fixture();
    nowhere.inputs.usual_dirs.clear();
    assert_eq!(nowhere.warnings(), ["environment blue: there is no configuration folder"]);
}

/// The reference's name of the installation is a label and picks no file; our name for it wins.
#[test]
fn the_installation_has_two_names() {
    let fixture =
        || Fixture::new().file("prod.toml", "server.port = 1").variable("RTCSTATS_ENVIRONMENT", "prod");
    let loaded = fixture().load();
    assert_eq!(loaded.config.records.app_environment, "prod");
    assert_eq!(loaded.config.server.ingest.port(), 3000);
    assert_eq!(
        loaded.settings.source("records.app_environment"),
        Some(&Source::Variable("RTCSTATS_ENVIRONMENT".into()))
    );
    let both = fixture().variable("RTCSTATS_RECORDS_APP_ENVIRONMENT", "ours").load();
    assert_eq!(both.config.records.app_environment, "ours");
    let long = Fixture::new().variable("RTCSTATS_ENVIRONMENT", &"x".repeat(129)).error();
    assert_eq!(
        long,
        format!(
            "RTCSTATS_ENVIRONMENT: records.app_environment = \"{}...\" is not a text of at most 128 bytes without \
             control characters",
            "x".repeat(100)
        )
    );
}

#[test]
fn variables_have_the_type_of_their_key() {
    let config = Fixture::new()
        .variable("RTCSTATS_LOG_LEVEL", "DEBUG")
        .variable("RTCSTATS_ARCHIVE_ENABLED", "false")
        .variable("RTCSTATS_SERVER_ADDRESS", "::1")
        .variable("RTCSTATS_SERVER_TRUSTED_PROXIES", "10.0.0.0/8, ::1")
        .variable("RTCSTATS_AUTH_ALLOWED_ORIGINS", "https://a.example,https://*.b.example")
        .variable("RTCSTATS_AUTH_JWT_SECRET_PATH", "/run/secret")
        .variable("RTCSTATS_DUMP_OPEN_FILES_MAX", "7")
        .load()
        .config;
    assert_eq!(config.log.level, log::LevelFilter::Debug);
    assert!(!config.archive.enabled);
    assert_eq!(config.server.ingest, "[::1]:3000".parse().unwrap());
    assert_eq!(config.server.trusted_proxies, ["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()]);
    assert_eq!(config.auth.allowed_origins, ["https://a.example", "https://*.b.example"]);
    assert_eq!(config.auth.jwt_secret_path.as_deref(), Some(Path::new("/run/secret")));
    assert_eq!(config.dump.open_files_max, Some(7));
    let empty = Fixture::new()
        .file("local.toml", "[server]\ntrusted_proxies = ['::1']\n[auth]\njwt_secret_path = 's'")
        .variable("RTCSTATS_SERVER_TRUSTED_PROXIES", "")
        .variable("RTCSTATS_AUTH_JWT_SECRET_PATH", "");
    assert_eq!(empty.load().config, Fixture::new().load().config);
}

#[test]
fn threads_follow_the_cores() {
    for (setting, cores, expected) in [("0", 1, 1), ("0", 2, 1), ("0", 8, 7), ("3", 8, 3), ("3", 1, 3)] {
        let mut fixture = Fixture::new().variable("RTCSTATS_WORKERS_THREADS", setting);
        fixture.inputs.cores = cores;
        assert_eq!(fixture.load().config.workers.threads, expected, "{setting} on {cores} cores");
    }
}

#[test]
fn odd_variables_are_warnings() {
    let fixture = Fixture::new()
        .variable("RTCSTATS_SERVER_PRT", "secret")
        .variable("RTCSTATS_WHATEVER", "secret")
        .variable("RTCSTATS_SERVER_PORT", "tcp://10.0.0.7:3000")
        .variable("RTCSTATS_SERVER_METRICS_PORT", "tcp://10.0.0.8:8095")
        .variable("RTCSTATS_SERVER_SERVICE_HOST", "10.0.0.7")
        .variable("RTCSTATS_SERVER_SERVICE_PORT_HTTP", "3000")
        .variable("RTCSTATS_SERVER_PORT_3000_TCP_ADDR", "10.0.0.7")
        .variable("RTCSTATS", "no prefix")
        .variable("rtcstats_server_port", "other case")
        .variable("HOME", "/");
    let link = |name: &str| format!("{name} is ignored: it is a service link of Kubernetes");
    assert_eq!(
        fixture.warnings(),
        [
            link("RTCSTATS_SERVER_METRICS_PORT"),
            link("RTCSTATS_SERVER_PORT"),
            link("RTCSTATS_SERVER_PORT_3000_TCP_ADDR"),
            "RTCSTATS_SERVER_PRT sets no key, did you mean RTCSTATS_SERVER_PORT?".to_owned(),
            link("RTCSTATS_SERVER_SERVICE_HOST"),
            link("RTCSTATS_SERVER_SERVICE_PORT_HTTP"),
            "RTCSTATS_WHATEVER sets no key".to_owned(),
        ]
    );
    assert_eq!(fixture.load().config, Fixture::new().load().config);
}

#[test]
fn a_bad_file_is_one_line() {
    let cases = [
        ("[server]\nport = 70000", "server.port = 70000 is not an integer from 0 to 65535", 2),
        ("[server]\nport = -1", "server.port = -1 is not an integer from 0 to 65535", 2),
        ("[server]\nport = 0x1_0000", "server.port = 0x10000 is not an integer from 0 to 65535", 2),
        ("[server]\nport = \"3000\"", "server.port = \"3000\" is not an integer from 0 to 65535", 2),
        ("[server]\nport = 3000.0", "server.port = 3000.0 is not an integer from 0 to 65535", 2),
        (
            "[server]\nport = 99999999999999999999",
            "server.port = 99999999999999999999 is not an integer from 0 to 65535",
            2,
        ),
        (
            "[server]\naddress = 'localhost'",
            "server.address = \"localhost\" is not an IPv4 or IPv6 address",
            2,
        ),
        ("[server]\ntemp_path = ''", "server.temp_path = \"\" is not a path", 2),
        ("[server]\ntemp_path = \"a\\nb\"", "server.temp_path = \"a\\u000Ab\" is not a path", 2),
        (
            "[server]\ntrusted_proxies = [\"10.0.0.1/8\"]",
            "server.trusted_proxies = [\"10.0.0.1/8\"] is not a list of networks with zero host bits, such as \
             \"10.0.0.0/8\" or \"::1\"",
            2,
        ),
        (
            "[server]\ntrusted_proxies = [1]",
            "server.trusted_proxies = [1] is not a list of networks with zero host bits, such as \"10.0.0.0/8\" or \
             \"::1\"",
            2,
        ),
        ("[archive]\nenabled = 'yes'", "archive.enabled = \"yes\" is not true or false", 2),
        ("[archive]\ngzip_level = 10", "archive.gzip_level = 10 is not an integer from 0 to 9", 2),
        ("[dump]\ndurability = 'disk'", "dump.durability = \"disk\" is not \"process\" or \"power\"", 2),
        ("[dump]\nflush_bytes = 0", "dump.flush_bytes = 0 is not an integer from 1024 to 16777216", 2),
        (
            "\n\nlog.level = 'verbose'",
            "log.level = \"verbose\" is not \"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
            3,
        ),
        ("[tls]\ncert_path = 1979-05-27", "tls.cert_path = 1979-05-27 is not a path, or \"\" for none", 2),
        ("[tls]\ncert_path.x = 1", "tls.cert_path = a section is not a path, or \"\" for none", 2),
        (
            "[auth]\nallowed_origins = ['']",
            "auth.allowed_origins = [\"\"] is not a list of origins, such as \"https://*.example.org\"",
            2,
        ),
        ("server = 5", "server = 5 is not a section", 1),
        ("[server]\nprot = 1", "server.prot is not a known key, did you mean server.port?", 2),
        ("[server]\nuseHTTPS = true", "server.useHTTPS is not a known key", 2),
        ("[serve]\nport = 1", "serve is not a known key, did you mean server?", 1),
        ("\nport = 1", "port is not a known key", 2),
        ("[amqp]\nurl = 'x'", "amqp is not a known key", 1),
    ];
    for (text, message, line) in cases {
        let error = Fixture::new().file("local.toml", text).error();
        assert_eq!(error, format!("config/local.toml:{line}: {message}"), "{text}");
    }
}

/// The wording is the parser's; place and shape are ours.
#[test]
fn broken_toml_is_one_line() {
    for (text, line) in
        [("[server\nport = 1", 1), ("[log]\nlevel = \"a\n", 2), ("[log]\nlevel = 'a'\nlevel = 'b'", 3)]
    {
        let error = Fixture::new().file("blue.toml", text).env("blue").error();
        assert!(error.starts_with(&format!("config/blue.toml:{line}: not TOML: ")), "{error}");
    }
}

#[test]
fn a_bad_variable_is_named() {
    let cases = [
        ("RTCSTATS_SERVER_PORT", "abc", "server.port = \"abc\" is not an integer from 0 to 65535"),
        ("RTCSTATS_SERVER_PORT", "", "server.port = \"\" is not an integer from 0 to 65535"),
        ("RTCSTATS_SERVER_PORT", "65536", "server.port = \"65536\" is not an integer from 0 to 65535"),
        ("RTCSTATS_ARCHIVE_ENABLED", "1", "archive.enabled = \"1\" is not true or false"),
        ("RTCSTATS_ARCHIVE_PATH", "", "archive.path = \"\" is not a path"),
        ("RTCSTATS_LOG_FORMAT", "xml", "log.format = \"xml\" is not \"text\" or \"json\""),
    ];
    for (name, value, message) in cases {
        assert_eq!(Fixture::new().variable(name, value).error(), format!("{name}: {message}"));
    }
    use std::os::unix::ffi::OsStringExt;
    let mut fixture = Fixture::new();
    fixture.inputs.variables.push(("RTCSTATS_ARCHIVE_PATH".into(), OsString::from_vec(vec![b'a', 0xff])));
    assert_eq!(fixture.error(), "RTCSTATS_ARCHIVE_PATH: archive.path = \"a\u{fffd}\" is not UTF-8");
}

#[test]
fn folders_and_environments_must_make_sense() {
    let mut fixture = Fixture::new();
    fixture.inputs.config_dir = Some(fixture.root.path().join("nowhere"));
    assert_eq!(fixture.error(), "--config-dir nowhere: not a folder");
    for name in ["", "../secret", "a/b", "a.b", "default", "local"] {
        let text = "is not a name of letters, digits, \"-\" and \"_\" other than \"default\" and \"local\"";
        assert_eq!(Fixture::new().env(name).error(), format!("--env: {name:?} {text}"));
        if !name.is_empty() {
            let error = Fixture::new().variable("RTCSTATS_ENV", name).error();
            assert_eq!(error, format!("RTCSTATS_ENV: {name:?} {text}"));
        }
    }
    // A folder in the place of a file cannot be read, whoever asks.
    let fixture = Fixture::new();
    fs::create_dir(fixture.path("local.toml")).unwrap();
    assert_eq!(fixture.error(), "config/local.toml: cannot be read");
    let error = load(&fixture.inputs).unwrap_err();
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn settings_are_checked_against_each_other() {
    let cases = [
        (
            "[tls]\ncert_path = 'c'",
            "tls.cert_path = \"c\" (config/local.toml:2) and tls.key_path = \"\" (built-in default): set both, or none",
        ),
        (
            "[server]\nmetrics_port = 3000",
            "server.port = 3000 (built-in default) and server.metrics_port = 3000 (config/local.toml:2): must differ \
             on one address",
        ),
        (
            "[server]\nport = 1\naddress = '0.0.0.0'\nmetrics_port = 1\nmetrics_address = '127.0.0.1'",
            "server.port = 1 (config/local.toml:2) and server.metrics_port = 1 (config/local.toml:4): must differ on \
             one address",
        ),
        (
            "[archive]\npath = './temp/../temp/archive'",
            "server.temp_path = \"temp\" (built-in default) and archive.path = \"./temp/../temp/archive\" \
             (config/local.toml:2): must be two folders, neither inside the other",
        ),
        (
            "[archive]\npath = '/'",
            "server.temp_path = \"temp\" (built-in default) and archive.path = \"/\" (config/local.toml:2): must be \
             two folders, neither inside the other",
        ),
        (
            "[limits]\nline_bytes = 4194303",
            "limits.message_bytes = 4194304 (built-in default) and limits.line_bytes = 4194303 \
             (config/local.toml:2): the first must not be above the second, or a recorded line could not be extracted",
        ),
        (
            "[limits]\nsessions = 10",
            "limits.sessions_per_connection = 256 (built-in default) and limits.sessions = 10 \
             (config/local.toml:2): the first must not be above the second, or it would never be reached",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(Fixture::new().file("local.toml", text).error(), message);
    }
}

#[test]
fn what_does_not_collide_is_allowed() {
    let cases = [
        "[server]\nport = 0\nmetrics_port = 0",
        "[server]\naddress = '127.0.0.1'\nport = 1\nmetrics_address = '127.0.0.2'\nmetrics_port = 1",
        "[server]\naddress = '0.0.0.0'\nport = 1\nmetrics_address = '::1'\nmetrics_port = 1",
        "[tls]\ncert_path = 'c'\nkey_path = 'k'",
        "[archive]\npath = 'temp2'",
        "[archive]\npath = 'temp/../archive'",
    ];
    for text in cases {
        Fixture::new().file("local.toml", text).load();
    }
}

/// The output of check-config is a configuration with the same effect.
#[test]
fn what_is_rendered_can_be_loaded() {
    let fixture = Fixture::new()
        .file(
            "local.toml",
            "[server]\ntrusted_proxies = ['10.0.0.0/8', '::1']\ntemp_path = '\u{e4} \"# \\'\n",
        )
        .variable("RTCSTATS_LOG_LEVEL", "debug");
    let loaded = fixture.load();
    let text = loaded.settings.render();
    let path = fixture.path("local.toml").display().to_string();
    for (start, source) in [
        ("level = \"debug\"", "RTCSTATS_LOG_LEVEL"),
        ("temp_path = \"\u{e4} \\\"# \\\\\"", &format!("{path}:3")),
        ("trusted_proxies = [\"10.0.0.0/8\", \"::1\"]", &format!("{path}:2")),
        ("port = 3000", "built-in default"),
    ] {
        let line =
            text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {text}"));
        assert!(line.ends_with(&format!(" # {source}")), "{line}");
    }
    let again = Fixture::new().file("local.toml", &text).load();
    assert_eq!(again.config, loaded.config);
    assert_eq!(again.settings.changes(&loaded.settings), []);
}

#[test]
fn a_reload_applies_what_can_change_and_names_the_rest() {
    let fixture = Fixture::new().file("local.toml", "[log]\nlevel = 'info'\n");
    let loaded = fixture.load();
    let mut source = ReloadSource::new(fixture.inputs.clone(), loaded.settings.clone());
    assert_eq!(source.reload().unwrap().changes, []);

    fs::write(fixture.path("local.toml"), "[log]\nlevel = 'debug'\n[server]\nport = 9\n").unwrap();
    let reload = source.reload().unwrap();
    let port = Change { key: "server.port", old: "3000".into(), new: "9".into(), effect: Effect::Restart };
    let level =
        Change { key: "log.level", old: "\"info\"".into(), new: "\"debug\"".into(), effect: Effect::Reload };
    assert_eq!(reload.changes, [port.clone(), level]);
    assert_eq!(reload.config.log.level, log::LevelFilter::Debug);
    assert_eq!(reload.config.server, loaded.config.server);

    // A bad file changes nothing, and is forgotten when it is mended.
    fs::write(fixture.path("local.toml"), "[log]\nlevel = 'loud'\n").unwrap();
    assert!(matches!(source.reload(), Err(ConfigError::BadValue { .. })));
    fs::write(fixture.path("local.toml"), "[log]\nlevel = 'debug'\n[server]\nport = 9\n").unwrap();
    assert_eq!(source.reload().unwrap().changes, [port]);
}

/// New values may fit to each other but not to a running one that only a restart changes.
#[test]
fn a_reload_that_needs_a_restart_as_a_whole_is_refused() {
    let fixture = Fixture::new();
    let mut source = ReloadSource::new(fixture.inputs.clone(), fixture.load().settings);
    let text = "[limits]\nmessage_bytes = 10000000\nline_bytes = 10000000\n";
    fs::write(fixture.path("local.toml"), text).unwrap();
    assert!(matches!(source.reload(), Err(ConfigError::Conflict { .. })));
    assert_eq!(fixture.load().config.limits.message_bytes_max, 10_000_000);
}

/// No value, whatever its type, makes the loader panic or the error longer than a line.
#[test]
fn every_key_refuses_every_wrong_type() {
    let literals =
        ["true", "-5", "1.5", "\"\\n\"", "[[]]", "{ a = 1 }", "1979-05-27", "18446744073709551616"];
    for key in KEYS {
        for literal in literals {
            let fits = matches!((key.allowed, literal), (Allowed::Bool, "true"));
            let fixture = Fixture::new().file("local.toml", &format!("{} = {literal}", key.name));
            match load(&fixture.inputs) {
                Ok(_) => assert!(fits, "{} = {literal}", key.name),
                Err(error) => {
                    let text = error.to_string();
                    assert!(!fits && text.contains(key.name) && text.lines().count() == 1, "{text}");
                }
            }
        }
    }
}

/// docs/configuration.md is made of the default file and the table of keys. After a change, run this test
/// with `UPDATE_DOCS=1`.
#[test]
fn the_documentation_lists_every_key() {
    const BEGIN: &str = "<!-- keys: begin -->\n";
    const END: &str = "<!-- keys: end -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    let expected = documentation();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
    } else {
        assert_eq!(found, expected);
    }
}

fn documentation() -> String {
    let defaults = layers::Layers::built_in().unwrap().settings;
    let mut text = String::new();
    let mut open = "";
    for key in KEYS {
        let (section, leaf) = key.parts();
        if section != open {
            text += &format!(
                "\n### {section}\n\n| key | default | allowed | new value taken | |\n|---|---|---|---|---|\n"
            );
            open = section;
        }
        let default = match &defaults.get(key.name).value {
            value @ (Value::Bool(_) | Value::Integer(_) | Value::Text(_) | Value::List(_)) => {
                value.to_string()
            }
        };
        let effect = match key.effect {
            Effect::Reload => "SIGHUP",
            Effect::Restart => "restart",
        };
        let allowed = key.allowed.to_string().replace('*', "\\*");
        text += &format!("| `{leaf}` | `{default}` | {allowed} | {effect} | {} |\n", comment_of(key.name));
    }
    text + "\n"
}

/// The comment above a key of the default file.
fn comment_of(name: &str) -> String {
    let (section, leaf) = name.split_once('.').unwrap();
    let body = DEFAULT_TOML.split_once(&format!("[{section}]\n")).unwrap().1;
    let mut comment = Vec::new();
    for line in body.lines() {
        match line.strip_prefix("# ") {
            Some(text) => comment.push(text.replace('*', "\\*")),
            None if line.starts_with(&format!("{leaf} = ")) => break,
            None => comment.clear(),
        }
    }
    assert!(!comment.is_empty(), "{name} has no comment");
    comment.join(" ")
}
