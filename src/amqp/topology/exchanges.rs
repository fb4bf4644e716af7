//! Exchanges: those of what is not in the log, and how any of them is made.

use lapin::{Connection, ExchangeKind, options::ExchangeDeclareOptions, types::FieldTable};

use super::{Topology, TopologyError, open};
use crate::amqp::connection::reply;

impl Topology {
    /// The exchange that every instance hears, and sends to.
    pub fn bus(&self) -> String {
        format!("{}.bus", self.prefix)
    }

    /// The exchange of what the backend may want to hear.
    pub fn events(&self) -> String {
        format!("{}.events", self.prefix)
    }

    /// Makes the exchange between the instances if it is missing.
    pub async fn declare_bus(&self, connection: &Connection) -> Result<(), TopologyError> {
        self.make_exchange(connection, &self.bus(), ExchangeKind::Fanout)
            .await
    }

    /// Makes the exchange for the backend if it is missing.
    pub async fn declare_events(&self, connection: &Connection) -> Result<(), TopologyError> {
        self.make_exchange(connection, &self.events(), ExchangeKind::Topic)
            .await
    }

    /// Needs no right to what is there.
    async fn make_exchange(
        &self,
        connection: &Connection,
        name: &str,
        kind: ExchangeKind,
    ) -> Result<(), TopologyError> {
        if exchange_exists(connection, name).await? {
            return Ok(());
        }
        self.declare_exchange(connection, name, kind).await
    }

    pub(super) async fn declare_exchange(
        &self,
        connection: &Connection,
        name: &str,
        kind: ExchangeKind,
    ) -> Result<(), TopologyError> {
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        open(connection)
            .await?
            .exchange_declare(name.into(), kind, durable, FieldTable::default())
            .await
            .map_err(|error| self.declaring(name, error))
    }
}

/// Whether there is an exchange of that name, of whichever kind. Uses up a channel if not.
pub(super) async fn exchange_exists(
    connection: &Connection,
    name: &str,
) -> Result<bool, TopologyError> {
    let passive = ExchangeDeclareOptions {
        passive: true,
        ..ExchangeDeclareOptions::default()
    };
    let declared = open(connection)
        .await?
        .exchange_declare(
            name.into(),
            ExchangeKind::Direct,
            passive,
            FieldTable::default(),
        )
        .await;
    match declared {
        Ok(()) => Ok(true),
        Err(error) if matches!(reply(&error), Some((404, _))) => Ok(false),
        Err(source) => Err(TopologyError::Broker {
            doing: "look for an exchange",
            source,
        }),
    }
}
