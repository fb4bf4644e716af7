//! Appends to streams, and reads the stream of generations.

use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use uuid::Uuid;

use super::{Topology, TopologyError, confirming, open};
use crate::amqp::generations::{Generations, MetaRecord};

const PREFETCH: u16 = 500;

impl Topology {
    /// Reads the generations up to now: up to a marker of our own.
    pub(super) async fn read(&self, connection: &Connection) -> Result<Generations, TopologyError> {
        let failed = |source| TopologyError::Broker {
            doing: "read the stream of generations",
            source,
        };
        let reading = open(connection).await?;
        reading
            .basic_qos(PREFETCH, BasicQosOptions::default())
            .await
            .map_err(failed)?;
        let mut from_first = FieldTable::default();
        from_first.insert(
            "x-stream-offset".into(),
            AMQPValue::LongString("first".into()),
        );
        let options = BasicConsumeOptions::default();
        let mut records = reading
            .basic_consume(self.meta().into(), "".into(), options, from_first)
            .await
            .map_err(failed)?;
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
        let mut generations = Generations::default();
        let mut unacked = 0;
        while let Some(delivery) = records.next().await {
            let delivery = delivery.map_err(failed)?;
            match serde_json::from_slice(&delivery.data) {
                Ok(MetaRecord::Generation(proposal)) => generations.apply(proposal),
                Ok(MetaRecord::Marker(read)) if read == marker => return Ok(generations),
                // Others' markers, and whatever a later build has to say.
                Ok(MetaRecord::Marker(_)) | Err(_) => {}
            }
            unacked += 1;
            if unacked == PREFETCH / 2 {
                unacked = 0;
                let all = BasicAckOptions { multiple: true };
                delivery.ack(all).await.map_err(failed)?;
            }
        }
        Err(TopologyError::Ended)
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
