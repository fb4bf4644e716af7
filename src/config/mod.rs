//! The configuration: parsed and checked once, then handed out as one small struct for each
//! concern.
//!
//! Flags win over the environment, that over the configuration file, that over the defaults. A key
//! that does not exist or a value that does not fit is an error that names where it stands and what
//! would be right.

mod access;
mod amqp;
mod error;
mod flags;
mod http;
mod keys;
mod layers;
mod limits;
mod log;
mod namespaces;
mod presence;
mod publish;
mod reader;
mod rooms;
mod server;
mod storage;
mod strangers;
mod units;

use std::{env, ffi::OsString, path::Path};

use figment::Figment;

use self::reader::{Reader, Setting};
pub use self::{
    access::{Access, Secret},
    amqp::Amqp,
    error::{BadSetting, ConfigError},
    flags::{AmqpFlags, ServeFlags, SetUp},
    http::Http,
    keys::{ApiKey, Scope},
    limits::{Limits, MIN_OUTBOX_BYTES},
    log::{Log, LogFormat},
    namespaces::{
        ClientPublish, History, Namespace, Namespaces, RoomAccess, Slow, UnknownNamespace,
    },
    presence::Presence,
    publish::Publish,
    reader::Shown,
    rooms::Rooms,
    server::Server,
    storage::Storage,
    units::parse_duration,
};

/// All settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub server: Server,
    pub log: Log,
    pub limits: Limits,
    pub publish: Publish,
    pub storage: Storage,
    pub amqp: Amqp,
    pub rooms: Rooms,
    pub presence: Presence,
    pub http: Http,
    pub access: Access,
    pub keys: Vec<ApiKey>,
    pub namespaces: Namespaces,
}

impl Config {
    /// Reads the flags, this process's environment and the configuration file.
    pub fn load(flags: &ServeFlags) -> Result<Self, ConfigError> {
        Self::from_sources(flags, env::vars_os(), Path::new(layers::DEFAULT_FILE))
    }

    /// As [`Self::load`], for a command that works on the log in RabbitMQ.
    pub fn load_amqp(flags: &AmqpFlags) -> Result<Self, ConfigError> {
        let (named, default_file) = (flags.config.as_deref(), Path::new(layers::DEFAULT_FILE));
        let layers = layers::merge(named, flags.given(), env::vars_os(), default_file)?;
        let (config, _) = Self::read(layers).map_err(ConfigError::Settings)?;
        Ok(config)
    }

    /// Every setting, as [`Config::load`] would read it.
    pub fn explain(flags: &ServeFlags) -> Result<Vec<Shown>, ConfigError> {
        let layers = layers::merge(
            flags.config.as_deref(),
            flags.given(),
            env::vars_os(),
            Path::new(layers::DEFAULT_FILE),
        )?;
        let (_, settings) = Self::read(layers).map_err(ConfigError::Settings)?;
        Ok(settings.into_iter().map(Shown::from).collect())
    }

    fn from_sources(
        flags: &ServeFlags,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        default_file: &Path,
    ) -> Result<Self, ConfigError> {
        let named = flags.config.as_deref();
        let layers = layers::merge(named, flags.given(), environment, default_file)?;
        let (config, _) = Self::read(layers).map_err(ConfigError::Settings)?;
        Ok(config)
    }

    fn read(layers: Figment) -> Result<(Self, Vec<Setting>), Vec<BadSetting>> {
        let mut reader = Reader::new(layers);
        let from = &mut reader;
        let server = Server::read(from);
        let config = Self {
            log: Log::read(from),
            limits: Limits::read(from),
            publish: Publish::read(from),
            storage: Storage::read(from),
            amqp: Amqp::read(from),
            rooms: Rooms::read(from),
            presence: Presence::read(from),
            http: Http::read(from, server.dev),
            access: Access::read(from),
            keys: ApiKey::read_all(from),
            namespaces: Namespaces::read(from, server.dev),
            server,
        };
        config.check(from);
        Ok((config, reader.finish()?))
    }

    /// Whether anybody at all may connect, read or publish.
    pub fn is_open(&self) -> bool {
        let Access {
            anonymous,
            token_secrets,
            token_key_files,
            ..
        } = &self.access;
        let clients = *anonymous || !token_secrets.is_empty() || !token_key_files.is_empty();
        self.server.dev || clients || !self.keys.is_empty()
    }

    /// What one concern asks of another.
    fn check(&self, from: &mut Reader) {
        from.require(
            self.amqp.max_age >= 2 * self.publish.idempotency_window,
            "amqp.max_age",
            "at least twice",
            "publish.idempotency_window",
        );
    }
}

impl Default for Config {
    fn default() -> Self {
        let (config, _) = Self::read(Figment::new()).expect("the defaults are tested to be right");
        config
    }
}

#[cfg(test)]
mod tests;
