//! The way in for other producers: an exchange, the queue behind it, and the queue for what is no
//! delta.

use lapin::{
    Channel, Connection, ExchangeKind,
    options::{QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use super::{Topology, TopologyError, open, reply, streams::queue_exists};

/// How often a message may come back. From 4.0 on the default is 20, after which a message is gone;
/// a number that no message gets to is the only form that all versions take.
const DELIVERY_LIMIT: i64 = 1_000_000_000;

impl Topology {
    /// The exchange that other producers publish to.
    pub fn entrance(&self) -> String {
        format!("{}.in", self.prefix)
    }

    /// The queue of what they have published, until it is in the log.
    pub fn ingress(&self) -> String {
        format!("{}.ingress", self.prefix)
    }

    /// The queue of what is no delta. The exchange of the log leads to it, too.
    pub fn rejected(&self) -> String {
        format!("{}.rejected", self.prefix)
    }

    /// Makes what is missing. The queue behind the entrance comes last, so that nothing comes in
    /// that can't go on.
    pub async fn declare_ingress(&self, connection: &Connection) -> Result<(), TopologyError> {
        let (ingress, rejected) = (self.ingress(), self.rejected());
        let is_new = !queue_exists(connection, &rejected).await?;
        if is_new {
            self.declare_quorum_queue(&open(connection).await?, &rejected, false)
                .await?;
        }
        self.lead(connection, &self.exchange(), &rejected, &rejected, is_new)
            .await?;
        let is_new = !queue_exists(connection, &ingress).await?;
        if is_new {
            self.declare_exchange(connection, &self.entrance(), ExchangeKind::Topic)
                .await?;
            self.declare_quorum_queue(&open(connection).await?, &ingress, true)
                .await?;
        }
        self.lead(connection, &self.entrance(), &ingress, "#", is_new)
            .await
    }

    async fn declare_quorum_queue(
        &self,
        channel: &Channel,
        name: &str,
        single_active_consumer: bool,
    ) -> Result<(), TopologyError> {
        let mut arguments = FieldTable::default();
        let quorum = AMQPValue::LongString("quorum".into());
        arguments.insert("x-queue-type".into(), quorum);
        let limit = AMQPValue::LongLongInt(DELIVERY_LIMIT);
        arguments.insert("x-delivery-limit".into(), limit);
        if single_active_consumer {
            let yes = AMQPValue::Boolean(true);
            arguments.insert("x-single-active-consumer".into(), yes);
        }
        let durable = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(name.into(), durable, arguments)
            .await
            .map_err(|error| self.declaring(name, error))?;
        Ok(())
    }

    /// Binds a queue, which whoever declared it may not have come to. Who may not bind what was
    /// there before trusts that it is bound.
    async fn lead(
        &self,
        connection: &Connection,
        exchange: &str,
        queue: &str,
        key: &str,
        is_new: bool,
    ) -> Result<(), TopologyError> {
        let bound = open(connection)
            .await?
            .queue_bind(
                queue.into(),
                exchange.into(),
                key.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await;
        match bound {
            Err(error) if !is_new && matches!(reply(&error), Some((403, _))) => Ok(()),
            bound => bound.map_err(|error| self.declaring(queue, error)),
        }
    }
}
