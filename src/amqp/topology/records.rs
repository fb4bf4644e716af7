//! Appends to streams, and reads the stream of generations.

use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use uuid::Uuid;

use super::{Topology, TopologyError, confirming, open};
use crate::amqp::generations::{Generations, MetaRecord};

pub(super) const PREFETCH: u16 = 500;

impl Topology {
    /// Reads the generations up to now: up to a marker of our own.
    pub(super) async fn read(&self, connection: &Connection) -> Result<Generations, TopologyError> {
        let mut records = consume(connection, &self.meta(), "first", PREFETCH).await?;
        let marker = Uuid::new_v4().simple().to_string();
        let publishing = confirming(connection).await?;
        let own = MetaRecord::Marker(marker.clone());
        match self.append_meta(&publishing, &own).await {
            // Whoever declared the stream has yet to bind it, or died before.
            Err(TopologyError::Unroutable { .. }) => {
                self.bind(&open(connection).await?, &self.meta()).await?;
                self.append_meta(&confirming(connection).await?, &own)
                    .await?;
            }
            appended => appended?,
        }
        fold(&mut records, |_, record| {
            *record == MetaRecord::Marker(marker.clone())
        })
        .await
    }

    pub(super) async fn append_meta(
        &self,
        channel: &Channel,
        record: &MetaRecord,
    ) -> Result<(), TopologyError> {
        let json = serde_json::to_vec(record).expect("plain data with string keys is JSON");
        let doing = "append to the stream of generations";
        let json_type = "application/json";
        self.append(channel, &self.meta(), &json, json_type, doing)
            .await
    }

    pub(super) async fn append(
        &self,
        channel: &Channel,
        stream: &str,
        bytes: &[u8],
        content_type: &str,
        doing: &'static str,
    ) -> Result<(), TopologyError> {
        let failed = |source| TopologyError::Broker { doing, source };
        let mandatory = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let properties = BasicProperties::default().with_content_type(content_type.into());
        let confirm = channel
            .basic_publish(
                self.exchange().as_str().into(),
                stream.into(),
                mandatory,
                bytes,
                properties,
            )
            .await
            .map_err(failed)?;
        match confirm.await.map_err(failed)? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => Err(TopologyError::Unroutable { doing }),
            Confirmation::Nack(_) | Confirmation::NotRequested => {
                Err(TopologyError::Refused { doing })
            }
        }
    }
}

/// Reads generations up to the record that `is_end` names.
pub(super) async fn fold(
    records: &mut Consumer,
    is_end: impl Fn(&Delivery, &MetaRecord) -> bool,
) -> Result<Generations, TopologyError> {
    let mut generations = Generations::default();
    let mut unacked = 0;
    while let Some(delivery) = records.next().await {
        let delivery = delivery.map_err(reading)?;
        // Whatever a later build has to say is none of ours.
        if let Ok(record) = serde_json::from_slice(&delivery.data) {
            let ended = is_end(&delivery, &record);
            if let MetaRecord::Generation(proposal) = record {
                generations.apply(proposal);
            }
            if ended {
                return Ok(generations);
            }
        }
        unacked += 1;
        if unacked == PREFETCH / 2 {
            unacked = 0;
            let all = BasicAckOptions { multiple: true };
            delivery.ack(all).await.map_err(reading)?;
        }
    }
    Err(TopologyError::Ended)
}

/// Reads a stream on a channel of its own.
pub(super) async fn consume(
    connection: &Connection,
    stream: &str,
    from: &str,
    prefetch: u16,
) -> Result<Consumer, TopologyError> {
    let channel = open(connection).await?;
    channel
        .basic_qos(prefetch, BasicQosOptions::default())
        .await
        .map_err(reading)?;
    let mut arguments = FieldTable::default();
    let offset = AMQPValue::LongString(from.into());
    arguments.insert("x-stream-offset".into(), offset);
    let options = BasicConsumeOptions::default();
    channel
        .basic_consume(stream.into(), "".into(), options, arguments)
        .await
        .map_err(reading)
}

pub(super) fn reading(source: lapin::Error) -> TopologyError {
    TopologyError::Broker {
        doing: "read a stream",
        source,
    }
}
