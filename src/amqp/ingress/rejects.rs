//! Puts away what is no delta, on a connection of its own: the one that consumes must be able to
//! ack while the broker blocks those that publish.

use std::{future::Future, sync::Arc};

use lapin::{
    BasicProperties, Channel, Confirmation, Connection,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};

use super::session::Fault;
use crate::amqp::{connection::Connector, topology::Topology};

/// The way to the queue of rejected messages, opened when there is a first one.
pub struct Rejects {
    topology: Arc<Topology>,
    connector: Arc<Connector>,
    open: Option<(Connection, Channel)>,
}

impl Rejects {
    pub fn new(topology: Arc<Topology>, connector: Arc<Connector>) -> Self {
        Self {
            topology,
            connector,
            open: None,
        }
    }

    /// Opens the connection if it is not open.
    pub async fn open(&mut self) -> Result<(), Fault> {
        if self.open.is_none() {
            let name = format!("{} rejects", self.topology.prefix());
            let connection = self.connector.connect(0, &name).await?;
            let channel = connection.create_channel().await?;
            let confirms = ConfirmSelectOptions::default();
            channel.confirm_select(confirms).await?;
            self.open = Some((connection, channel));
        }
        Ok(())
    }

    /// Completes once the broker has the message in the queue. Messages of one connection are put
    /// away in the order in which they are first polled.
    pub fn put(
        &self,
        properties: BasicProperties,
        body: Vec<u8>,
    ) -> impl Future<Output = Result<(), Fault>> + use<> {
        let channel = self.open.as_ref().map(|(_, channel)| channel.clone());
        let (exchange, queue) = (self.topology.exchange(), self.topology.rejected());
        async move {
            let channel = channel.ok_or(Fault::NotPutAway)?;
            publish(&channel, &exchange, &queue, properties, &body).await
        }
    }
}

/// Publishes a message; completes once a queue has it.
pub async fn publish(
    channel: &Channel,
    exchange: &str,
    routing_key: &str,
    properties: BasicProperties,
    body: &[u8],
) -> Result<(), Fault> {
    let mandatory = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let (exchange, routing_key) = (exchange.into(), routing_key.into());
    let confirm = channel
        .basic_publish(exchange, routing_key, mandatory, body, properties)
        .await?;
    match confirm.await? {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(_)) | Confirmation::Nack(_) | Confirmation::NotRequested => {
            Err(Fault::NotPutAway)
        }
    }
}
