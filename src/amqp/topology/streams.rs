//! Makes streams that are missing, and the exchange that leads to them.

use std::time::Duration;

use lapin::{
    Channel, Connection, ExchangeKind,
    options::{QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use super::{Topology, TopologyError, is_missing, open};
use crate::amqp::connection::reply;

/// Generations are few and small, and never trimmed.
const META_SEGMENT_BYTES: i64 = 1_000_000;

impl Topology {
    pub(super) async fn declare_common(
        &self,
        connection: &Connection,
    ) -> Result<(), TopologyError> {
        let meta = self.meta();
        if queue_exists(connection, &meta).await? {
            return Ok(());
        }
        self.declare_exchange(connection, &self.exchange(), ExchangeKind::Direct)
            .await?;
        let channel = open(connection).await?;
        self.declare_stream(&channel, &meta, META_SEGMENT_BYTES, None)
            .await
    }

    /// Declares a stream and binds it to the exchange by its name.
    pub(super) async fn declare_stream(
        &self,
        channel: &Channel,
        name: &str,
        segment_bytes: i64,
        retention: Option<(Duration, u64)>,
    ) -> Result<(), TopologyError> {
        let mut arguments = FieldTable::default();
        let mut set = |key: &str, value| {
            arguments.insert(key.into(), value);
        };
        set("x-queue-type", AMQPValue::LongString("stream".into()));
        set(
            "x-stream-max-segment-size-bytes",
            AMQPValue::LongLongInt(segment_bytes),
        );
        if let Some((age, bytes)) = retention {
            let age = format!("{}s", age.as_secs().max(1));
            set("x-max-age", AMQPValue::LongString(age.into()));
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            set("x-max-length-bytes", AMQPValue::LongLongInt(bytes));
        }
        let durable = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(name.into(), durable, arguments)
            .await
            .map_err(|error| self.declaring(name, error))?;
        self.bind(channel, name).await
    }

    pub(super) async fn bind(&self, channel: &Channel, stream: &str) -> Result<(), TopologyError> {
        channel
            .queue_bind(
                stream.into(),
                self.exchange().as_str().into(),
                stream.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .map_err(|error| self.declaring(stream, error))
    }

    pub(super) fn declaring(&self, what: &str, source: lapin::Error) -> TopologyError {
        match reply(&source) {
            Some((403, words)) => TopologyError::Forbidden {
                what: what.into(),
                prefix: self.prefix.clone(),
                reply: words.into(),
            },
            Some((code, words)) if lacks_streams(code, words) => TopologyError::NoStreams {
                reply: words.into(),
            },
            _ => TopologyError::Broker {
                doing: "declare an exchange or a stream",
                source,
            },
        }
    }
}

/// Whether the broker says that it has no streams: 3.8 and other brokers complain of the argument
/// or the type, 3.9 and later of the feature flag.
fn lacks_streams(code: u16, words: &str) -> bool {
    match code {
        406 | 540 => words.contains("invalid arg") || words.contains("queue type"),
        541 => words.contains("feature flag"),
        _ => false,
    }
}

/// Whether there is a queue of that name. Uses up a channel if not.
pub(super) async fn queue_exists(
    connection: &Connection,
    name: &str,
) -> Result<bool, TopologyError> {
    let passive = QueueDeclareOptions {
        passive: true,
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let channel = open(connection).await?;
    let declared = channel
        .queue_declare(name.into(), passive, FieldTable::default())
        .await;
    match declared {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(source) => Err(TopologyError::Broker {
            doing: "look for a stream",
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_without_streams_is_told_from_one_that_has_a_queue_of_that_name() {
        let disabled = "INTERNAL_ERROR - Cannot declare a queue 'queue 'roomwire.meta' in vhost \
                        '/'' of type 'rabbit_stream_queue' on node 'rabbit1@localhost': the \
                        corresponding feature flag is disabled";
        assert!(lacks_streams(541, disabled));
        let unknown = "PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue 'roomwire.meta'";
        assert!(lacks_streams(406, unknown));
        let other =
            "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'roomwire.meta'";
        assert!(!lacks_streams(406, other));
        assert!(!lacks_streams(541, "INTERNAL_ERROR"));
    }
}
