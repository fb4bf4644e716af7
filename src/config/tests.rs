use std::{fs, path::PathBuf, time::Duration};

use tempfile::TempDir;

use super::{units::MIB, *};
use crate::delta::RoomName;

mod manual;

/// The sources of one configuration, apart from those of the machine that runs the test.
#[derive(Default)]
struct Sources {
    flags: ServeFlags,
    environment: Vec<(OsString, OsString)>,
    directory: Option<TempDir>,
}

impl Sources {
    fn file(mut self, text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("roomwire.toml"), text).unwrap();
        self.directory = Some(directory);
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    fn flags(mut self, flags: ServeFlags) -> Self {
        self.flags = flags;
        self
    }

    fn file_path(&self) -> PathBuf {
        self.directory
            .as_ref()
            .map_or_else(PathBuf::new, |directory| {
                directory.path().join("roomwire.toml")
            })
    }

    fn load(&self) -> Result<Config, ConfigError> {
        Config::from_sources(&self.flags, self.environment.clone(), &self.file_path())
    }

    /// What the user is told, the directory of the file left out.
    fn mistakes(&self) -> String {
        let directory = self.file_path().with_file_name("").display().to_string();
        let told = self.load().unwrap_err().to_string();
        if directory.is_empty() {
            told
        } else {
            told.replace(&directory, "")
        }
    }
}

fn file(text: &str) -> Sources {
    Sources::default().file(text)
}

fn variable(name: &str, value: &str) -> Sources {
    Sources::default().variable(name, value)
}

#[test]
fn without_any_source_there_are_the_defaults() {
    let config = Sources::default().load().unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert!(config.server.workers >= 1);
    assert!(!config.server.dev);
    assert_eq!(config.limits.max_outbox_bytes, 1 << 20);
    assert_eq!(config.publish.idempotency_window, Duration::from_secs(300));
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let sources =
        file("workers = 1\nlisten = \"127.0.0.1:1\"\ndata = \"/file\"\n[limits]\nmax_sessions = 5")
            .variable("ROOMWIRE_WORKERS", "2")
            .variable("ROOMWIRE_LISTEN", "127.0.0.1:2")
            .variable("ROOMWIRE_LIMITS__PING_INTERVAL", "20s")
            .flags(ServeFlags {
                workers: Some("3".to_owned()),
                ..ServeFlags::default()
            });
    let config = sources.load().unwrap();
    assert_eq!(config.server.workers, 3);
    assert_eq!(config.server.listen.port(), 2);
    assert_eq!(config.server.data, PathBuf::from("/file"));
    // One section may be put together from several sources.
    assert_eq!(config.limits.max_sessions, 5);
    assert_eq!(config.limits.ping_interval, Duration::from_secs(20));
}

#[test]
fn the_environment_sets_every_kind_of_value() {
    let config = variable("ROOMWIRE_DATA", "123")
        .variable("ROOMWIRE_LISTEN", "[::1]:0")
        .variable("ROOMWIRE_DEV", "true")
        .variable("ROOMWIRE_LOG__FORMAT", "json")
        .variable("ROOMWIRE_STORAGE__RESERVE", "1048576")
        .variable(
            "ROOMWIRE_HTTP__ALLOWED_ORIGINS",
            "https://a.example, https://b.example",
        )
        .variable("ROOMWIRE_NAMESPACES__CHAT__PRESENCE", "true")
        .load()
        .unwrap();
    assert_eq!(config.server.data, PathBuf::from("123"));
    assert!(config.server.dev && config.server.listen.is_ipv6());
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.storage.reserve, MIB);
    assert!(config.http.allows("https://a.example") && config.http.allows("https://b.example"));
    let room = RoomName::new("chat:1").unwrap();
    assert!(config.namespaces.of(&room).unwrap().presence);
}

#[test]
fn variables_that_are_not_for_the_server_do_not_stop_it() {
    let sources = variable("ROOMWIRE_URL", "http://127.0.0.1:8080")
        .variable("ROOMWIRE_SERVICE_HOST", "10.0.0.1")
        .variable("ROOMWIRE_SERVICE_PORT", "8080")
        .variable("ROOMWIRE_SERVICE_PORT_HTTP", "8080")
        .variable("ROOMWIRE_PORT", "tcp://10.0.0.1:8080")
        .variable("ROOMWIRE_PORT_8080_TCP_ADDR", "10.0.0.1")
        .variable("PATH", "/bin");
    assert_eq!(sources.load().unwrap(), Config::default());
}

#[test]
fn a_wrong_value_is_told_with_its_source_its_key_and_what_fits() {
    assert_eq!(
        file("[limits]\nmax_sessions = 0").mistakes(),
        "roomwire.toml: limits.max_sessions is 0; it takes a whole number from 1 to 1000000"
    );
    assert_eq!(
        variable("ROOMWIRE_LIMITS__MAX_COMMAND_BYTES", "64MB").mistakes(),
        "ROOMWIRE_LIMITS__MAX_COMMAND_BYTES: limits.max_command_bytes is \"64MB\"; \
         it takes a size from 1KiB to 16MiB"
    );
    let flags = ServeFlags {
        log_format: Some("xml".to_owned()),
        ..ServeFlags::default()
    };
    assert_eq!(
        Sources::default().flags(flags).mistakes(),
        "--log-format: log.format is \"xml\"; it takes \"human\" or \"json\""
    );
    assert_eq!(
        file("[rooms]\nlinger = 10").mistakes(),
        "roomwire.toml: rooms.linger is 10; it takes a duration from 0s to 1h"
    );
    assert_eq!(
        file("[http]\nallowed_origins = [\"https://a.example/\"]").mistakes(),
        "roomwire.toml: http.allowed_origins is [\"https://a.example/\"]; it takes origins as \
         browsers send them, such as \"https://app.example.com\": a scheme, a host in lower case \
         and, where it is not the scheme's own, a port"
    );
}

#[test]
fn values_of_another_type_are_mistakes() {
    for wrong in [
        "listen = 8080",
        "listen = \"localhost\"",
        "data = \"\"",
        "workers = -1",
        "workers = 1.0",
        "workers = 1025",
        "dev = \"yes\"",
        "[log]\nlevel = \"inof\"",
        "[limits]\nping_interval = \"500ms\"",
        "[limits]\nmax_sessions = { a = 1 }",
        "[http]\nallowed_origins = [1]",
        "[storage]\ncache = 2024-01-01",
    ] {
        let mistakes = file(wrong).mistakes();
        assert!(mistakes.contains("; it takes "), "{wrong:?}: {mistakes}");
        assert_eq!(mistakes.lines().count(), 1, "{mistakes}");
    }
}

#[test]
fn a_brokers_address_is_never_shown() {
    let wrong = ["http://guest:hunter2@host", "amqp://guest:hunter2@host:x"];
    for sources in [
        variable("ROOMWIRE_AMQP__URL", wrong[0]),
        file(&format!("[amqp]\nurl = [\"amqp://a\", \"{}\"]", wrong[1])),
    ] {
        let mistakes = sources.mistakes();
        assert!(
            mistakes.contains("amqp.url is (not shown); it takes addresses"),
            "{mistakes}"
        );
        assert!(!mistakes.contains("hunter2"));
    }
    let right = variable("ROOMWIRE_AMQP__URL", "amqp://guest:hunter2@a,amqps://b");
    let config = right.load().unwrap();
    assert_eq!(config.amqp.url.len(), 2);
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn a_secret_is_never_shown_and_never_a_public_key() {
    let short = "too short to be a secret";
    let public = "-----BEGIN PUBLIC KEY-----\\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE";
    for wrong in [short, public] {
        let mistakes = file(&format!("[access]\ntoken_secrets = [\"{wrong}\"]")).mistakes();
        assert!(
            mistakes.contains("access.token_secrets is (not shown); it takes secrets"),
            "{mistakes}"
        );
        assert!(!mistakes.contains(&wrong[..20]), "{mistakes}");
    }
    let secret = "0123456789abcdef0123456789abcdef";
    let right = variable("ROOMWIRE_ACCESS__TOKEN_SECRETS", secret);
    let config = right.load().unwrap();
    assert_eq!(config.access.token_secrets[0].reveal(), secret);
    assert!(!format!("{config:?}").contains(secret));
}

#[test]
fn rooms_are_for_those_with_a_token_unless_the_server_runs_for_development() {
    let access = |sources: &Sources, room: &str| {
        let namespaces = sources.load().unwrap().namespaces;
        namespaces.of(&RoomName::new(room).unwrap()).unwrap().access
    };
    let text = "[namespaces.chat]\n[namespaces.dm]\naccess = \"user-limited\"";
    let closed = file(text);
    let dev = file(text).variable("ROOMWIRE_DEV", "true");
    for room in ["lobby", "chat:1"] {
        assert_eq!(access(&closed, room), RoomAccess::Token);
        assert_eq!(access(&dev, room), RoomAccess::Public);
    }
    assert_eq!(access(&dev, "dm:1"), RoomAccess::UserLimited);
}

#[test]
fn an_unknown_key_is_told_the_keys_that_exist() {
    assert_eq!(
        file("[storage]\ncash = \"1GiB\"").mistakes(),
        "roomwire.toml: there is no setting storage.cash; [storage] has cache, reserve"
    );
    assert_eq!(
        variable("ROOMWIRE_STORAGE_CACHE", "1GiB").mistakes(),
        "ROOMWIRE_STORAGE_CACHE: there is no setting storage_cache; \
         the top level has listen, data, workers, dev, [log], [limits], [publish], [storage], \
         [amqp], [rooms], [presence], [http], [access], [namespaces]"
    );
    assert_eq!(
        file("[namespaces.chat]\nhistory = 1").mistakes(),
        "roomwire.toml: there is no setting namespaces.chat.history; \
         [namespaces.chat] has access, store, history_size, history_ttl, history_bytes, slow, \
         client_publish, client_publish_rate, rewind, presence, join_leave, events"
    );
    for wrong in [
        "[storge]",
        "storage = 5",
        "\"storage.cache\" = \"1GiB\"",
        "namespaces.chat = 5",
    ] {
        let mistakes = file(wrong).mistakes();
        assert!(
            mistakes.starts_with("roomwire.toml: there is no setting "),
            "{wrong:?}: {mistakes}"
        );
    }
}

#[test]
fn an_unknown_variable_does_not_give_away_its_value() {
    let mistakes = variable("ROOMWIRE_SECRET", "hunter2").mistakes();
    assert!(mistakes.starts_with("ROOMWIRE_SECRET: there is no setting secret"));
    assert!(!mistakes.contains("hunter2"));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let mistakes = file("workers = -1\n[limits]\nmax_sessions = 0\n[nothing]\na = 1\nb = 2")
        .variable("ROOMWIRE_DEV", "")
        .mistakes();
    let keys: Vec<_> = mistakes
        .lines()
        .filter_map(|line| line.split(": ").nth(1))
        .map(|told| {
            told.split([' ', ';'])
                .find(|word| !["there", "is", "no", "setting"].contains(word))
        })
        .map(Option::unwrap)
        .collect();
    assert_eq!(
        keys,
        [
            "workers",
            "dev",
            "limits.max_sessions",
            "nothing.a",
            "nothing.b"
        ]
    );
}

#[test]
fn settings_that_do_not_go_together_are_both_named() {
    assert_eq!(
        file("[limits]\npong_timeout = \"25s\"").mistakes(),
        "limits.pong_timeout is \"25s\" (roomwire.toml), but it must be shorter than \
         limits.ping_interval, which is \"25s\" (its default)"
    );
    let dev = ServeFlags {
        dev: true,
        ..ServeFlags::default()
    };
    assert_eq!(
        variable("ROOMWIRE_LISTEN", "0.0.0.0:8080")
            .flags(dev)
            .mistakes(),
        "listen is \"0.0.0.0:8080\" (ROOMWIRE_LISTEN), but it must be a loopback address \
         beside dev, which is true (--dev)"
    );
    for wrong in [
        "[publish]\nmax_batch = 10000\nqueue_records = 9999",
        "[publish]\nmax_batch_bytes = \"2MiB\"\nqueue_bytes = \"1MiB\"",
        "[publish]\nmax_batch_bytes = \"32KiB\"",
    ] {
        let mistakes = file(wrong).mistakes();
        assert!(
            mistakes.contains("but it must be at least"),
            "{wrong:?}: {mistakes}"
        );
    }
}

#[test]
fn clients_store_nothing_where_nothing_is_stored() {
    assert_eq!(
        file("[namespaces.default]\nstore = false\nclient_publish = \"stored\"").mistakes(),
        "namespaces.default.client_publish is \"stored\" (roomwire.toml), but it must be something else \
         beside namespaces.default.store, which is false (roomwire.toml)"
    );
}

#[test]
fn a_mistaken_value_is_not_reported_again_by_what_depends_on_it() {
    let mistakes =
        file("[limits]\nping_interval = \"2 minutes\"\npong_timeout = \"30s\"").mistakes();
    assert_eq!(mistakes.lines().count(), 1, "{mistakes}");
}

#[test]
fn the_named_file_must_be_there_and_replaces_the_usual_one() {
    let usual = file("workers = 1");
    let named = file("[limits]\nmax_sessions = 7");
    let sources = usual.flags(ServeFlags {
        config: Some(named.file_path()),
        workers: Some("2".to_owned()),
        ..ServeFlags::default()
    });
    assert_eq!(sources.load().unwrap().limits.max_sessions, 7);

    fs::remove_file(named.file_path()).unwrap();
    let told = sources.load().unwrap_err().to_string();
    let path = named.file_path().display().to_string();
    assert!(
        told.starts_with(&format!("{path}: the configuration file can't be read: ")),
        "{told}"
    );
}

#[test]
fn a_file_that_can_not_be_read_is_not_taken_for_a_missing_one() {
    let directory = tempfile::tempdir().unwrap();
    let loaded = Config::from_sources(&ServeFlags::default(), [], directory.path());
    assert!(matches!(loaded, Err(ConfigError::Unreadable { .. })));
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_text_is_a_mistake() {
    use std::os::unix::ffi::OsStringExt;

    let mut sources = Sources::default();
    let value = OsString::from_vec(b"/data/\xff".to_vec());
    sources.environment.push(("ROOMWIRE_DATA".into(), value));
    assert_eq!(
        sources.mistakes(),
        "ROOMWIRE_DATA: data is \"/data/\u{fffd}\"; it takes valid UTF-8"
    );
}

#[test]
fn a_file_that_is_not_toml_is_told_the_line() {
    let told = file("workers = 1\nlisten = ").mistakes();
    assert!(
        told.starts_with("roomwire.toml: the configuration file is not valid TOML: "),
        "{told}"
    );
    assert!(told.contains("line 2"), "{told}");
}

#[test]
fn a_namespace_is_found_by_the_name_of_a_room() {
    let config = file(
        "[namespaces.default]\nhistory_size = 5\n\
         [namespaces.chat]\nclient_publish = \"ephemeral\"\njoin_leave = true\n\
         [namespaces.Live-2_x]",
    )
    .load()
    .unwrap();
    let of = |room: &str| config.namespaces.of(&RoomName::new(room).unwrap());
    assert_eq!(of("lobby").unwrap().history.size, 5);
    assert_eq!(of("default:lobby").unwrap().history.size, 5);
    assert_eq!(
        of("chat:1").unwrap().client_publish,
        ClientPublish::Ephemeral
    );
    // A namespace of its own does not take over what `default` changes.
    assert_eq!(of("chat:1").unwrap().history.size, 10_000);
    assert!(of("Live-2_x:a").is_ok());
    assert_eq!(
        of("char:1").unwrap_err().to_string(),
        "room \"char:1\" is in the namespace \"char\", which the configuration does not define; \
         add [namespaces.char] or use one of: Live-2_x, chat, default"
    );
}

#[test]
fn a_namespace_with_an_impossible_name_is_a_mistake() {
    assert_eq!(
        file("[namespaces.\"a b\"]\npresence = true\n[namespaces.ok]").mistakes(),
        "roomwire.toml: a name in [namespaces] is \"a b\"; it takes ASCII letters, digits, _ and -"
    );
}
