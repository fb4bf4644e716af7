//! Connections to the first of several brokers that answers.

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use lapin::{Connection, ConnectionProperties, ErrorKind, tcp::OwnedTLSConfig};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::{Settings, address::Address};
use crate::client::backoff::Backoff;

/// How long a broker has to take a connection, log-in included.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no address of a broker is given")]
    NoAddress,
    #[error("can't read the CA file {path}: {source}")]
    CaFile { path: PathBuf, source: io::Error },
    #[error("can't connect to {address}: {}", explain(source))]
    Broker {
        address: String,
        source: lapin::Error,
    },
    #[error("can't connect to {address}: no answer within {CONNECT_PATIENCE:?}")]
    NoAnswer { address: String },
}

impl ConnectError {
    /// Whether the broker refuses the user, or the virtual host to them.
    pub fn is_refused(&self) -> bool {
        let Self::Broker { source, .. } = self else {
            return false;
        };
        matches!(reply(source), Some((403 | 530, _)))
    }

    /// Whether trying again won't help: the broker refuses the user, or the virtual host to them,
    /// or its certificate is not trusted.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NoAddress | Self::CaFile { .. } => true,
            Self::Broker { source, .. } => match source.kind() {
                ErrorKind::IOError(error) => error.kind() == io::ErrorKind::InvalidData,
                _ => self.is_refused(),
            },
            Self::NoAnswer { .. } => false,
        }
    }
}

/// Opens connections, all with the same settings.
pub struct Connector {
    addresses: Vec<Address>,
    ca: Option<String>,
}

impl Connector {
    /// Reads the CA file.
    pub fn new(settings: &Settings) -> Result<Self, ConnectError> {
        if settings.addresses.is_empty() {
            return Err(ConnectError::NoAddress);
        }
        let read = |path: &PathBuf| {
            fs::read_to_string(path).map_err(|source| ConnectError::CaFile {
                path: path.clone(),
                source,
            })
        };
        Ok(Self {
            addresses: settings.addresses.clone(),
            ca: settings.ca_file.as_ref().map(read).transpose()?,
        })
    }

    /// Connects to the first address that answers, from number `from` on; each is tried once.
    pub async fn connect(&self, from: usize, name: &str) -> Result<Connection, ConnectError> {
        let mut failure = ConnectError::NoAddress;
        for turn in 0..self.addresses.len() {
            match self.open(from.wrapping_add(turn), name).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn open(&self, turn: usize, name: &str) -> Result<Connection, ConnectError> {
        let address = &self.addresses[turn % self.addresses.len()];
        // Without recovery: lapin's reads a stream again from where it began the first time.
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let tls = OwnedTLSConfig {
            identity: None,
            cert_chain: self.ca.clone(),
        };
        let opening = async {
            let runtime = lapin::runtime::default_runtime()?;
            Connection::connect_uri_with_config(address.uri(), properties, tls, runtime).await
        };
        match timeout(CONNECT_PATIENCE, opening).await {
            Ok(opened) => opened.map_err(|source| ConnectError::Broker {
                address: address.to_string(),
                source,
            }),
            Err(_) => Err(ConnectError::NoAnswer {
                address: address.to_string(),
            }),
        }
    }
}

/// One task's way to the brokers: after a loss it goes on with the next address, at first at once,
/// then ever more slowly.
pub struct Link {
    connector: Arc<Connector>,
    name: String,
    turn: usize,
    backoff: Backoff,
    waits: bool,
}

impl Link {
    /// `name` shows in RabbitMQ's list of connections.
    pub fn new(connector: Arc<Connector>, name: String) -> Self {
        Self {
            connector,
            name,
            turn: 0,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            waits: false,
        }
    }

    /// Tries until a broker takes the connection.
    pub async fn connect(&mut self) -> Connection {
        let mut reported = false;
        loop {
            if self.waits {
                sleep(self.backoff.next(random())).await;
            }
            self.waits = true;
            match self.connector.open(self.turn, &self.name).await {
                Ok(connection) => return connection,
                Err(error) => {
                    if !reported {
                        tracing::warn!(connection = self.name, %error, "RabbitMQ can't be reached");
                        reported = true;
                    }
                    self.move_on();
                }
            }
        }
    }

    /// The connection serves its purpose: if it is lost, another is opened at once.
    pub fn settle(&mut self) {
        self.backoff.reset();
        self.waits = false;
    }

    /// Goes to the next address from now on.
    pub fn move_on(&mut self) {
        self.turn = self.turn.wrapping_add(1);
    }
}

fn random() -> u64 {
    // All of the lower half is random but its two highest bits.
    Uuid::new_v4().as_u64_pair().1 << 2
}

/// What is wrong, and what would be right.
fn explain(error: &lapin::Error) -> String {
    match (reply(error), error.kind()) {
        (Some((403, _)), _) => "the broker refuses the user or the password".into(),
        (Some((530, words)), _) => {
            format!("the broker does not let the user into that virtual host ({words})")
        }
        (_, ErrorKind::IOError(cause)) if cause.kind() == io::ErrorKind::InvalidData => format!(
            "no TLS that can be trusted: {cause}; amqps:// needs a port that speaks TLS, and a CA \
             that has signed the broker's certificate"
        ),
        (_, ErrorKind::IOError(cause)) => cause.to_string(),
        _ => error.to_string(),
    }
}

/// What the broker answered: a code of AMQP, such as 404, and its words.
pub fn reply(error: &lapin::Error) -> Option<(u16, &str)> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some((error.get_id(), error.get_message().as_str())),
        _ => None,
    }
}
