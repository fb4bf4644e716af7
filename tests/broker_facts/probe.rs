//! A stream and a connection to try it with.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::{
    Channel, Confirmation, Connection, ConnectionProperties, Consumer,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::time::timeout;

use crate::common::{Broker, PATIENCE};

/// How long a test listens to be sure that nothing comes.
pub const SILENCE: Duration = Duration::from_millis(500);

/// A connection with one channel that confirms.
pub struct Probe {
    pub connection: Connection,
    pub channel: Channel,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    pub offset: i64,
    pub data: String,
}

impl Probe {
    pub async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default());
        let connection = within(connection).await.expect("the broker takes a client");
        let channel = connection.create_channel().await.expect("a channel");
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        confirms.await.expect("the channel confirms");
        Self {
            connection,
            channel,
        }
    }

    /// A probe at the shared broker, and a fresh stream there.
    pub async fn with_stream() -> (Self, String) {
        let probe = Self::connect(Broker::shared().url(1)).await;
        let stream = Broker::unique_prefix();
        probe.declare(&stream, FieldTable::default()).await;
        (probe, stream)
    }

    pub async fn declare(&self, stream: &str, arguments: FieldTable) {
        let declared = self.try_declare(stream, arguments).await;
        declared.expect("the stream is declared");
    }

    pub async fn try_declare(
        &self,
        stream: &str,
        mut arguments: FieldTable,
    ) -> lapin::Result<lapin::Queue> {
        let kind = AMQPValue::LongString("stream".into());
        arguments.insert("x-queue-type".into(), kind);
        let options = QueueDeclareOptions {
            durable: true,
            ..Default::default()
        };
        within(
            self.channel
                .queue_declare(stream.into(), options, arguments),
        )
        .await
    }

    pub async fn delete(&self, stream: &str) {
        let deleted = self
            .channel
            .queue_delete(stream.into(), QueueDeleteOptions::default());
        within(deleted).await.expect("the stream is deleted");
    }

    /// Publishes `0`, `1`, … and waits until all are confirmed.
    pub async fn publish_numbers(&self, stream: &str, count: usize) {
        for n in 0..count {
            let confirmed = self.publish(stream, &n.to_string(), false).await;
            assert_eq!(confirmed, Confirmation::Ack(None));
        }
    }

    pub async fn publish(&self, stream: &str, data: &str, mandatory: bool) -> Confirmation {
        let confirmed = self.publish_to("", stream, data, mandatory).await;
        confirmed.expect("the broker answers with a confirm")
    }

    pub async fn publish_to(
        &self,
        exchange: &str,
        key: &str,
        data: &str,
        mandatory: bool,
    ) -> lapin::Result<Confirmation> {
        let options = BasicPublishOptions {
            mandatory,
            ..Default::default()
        };
        let properties = lapin::BasicProperties::default();
        let sent = self.channel.basic_publish(
            exchange.into(),
            key.into(),
            options,
            data.as_bytes(),
            properties,
        );
        within(within(sent).await?).await
    }

    /// Consumes on a channel of its own, from that `x-stream-offset` on.
    pub async fn consume(&self, stream: &str, from: AMQPValue) -> Consumer {
        let consumer = self.try_consume(stream, from).await;
        consumer.expect("the stream has a consumer")
    }

    pub async fn try_consume(&self, stream: &str, from: AMQPValue) -> lapin::Result<Consumer> {
        let channel = within(self.connection.create_channel()).await?;
        within(channel.basic_qos(100, BasicQosOptions::default())).await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), from);
        let consumer = channel.basic_consume(
            stream.into(),
            "".into(),
            BasicConsumeOptions::default(),
            arguments,
        );
        within(consumer).await
    }
}

pub fn next() -> AMQPValue {
    AMQPValue::LongString("next".into())
}

pub fn first() -> AMQPValue {
    AMQPValue::LongString("first".into())
}

pub fn offset(offset: i64) -> AMQPValue {
    AMQPValue::LongLongInt(offset)
}

/// The next delivery, acknowledged.
pub async fn delivery(consumer: &mut Consumer) -> Delivered {
    let delivery = within(consumer.next()).await.expect("the consumer goes on");
    let delivery = delivery.expect("a delivery");
    within(delivery.ack(BasicAckOptions::default()))
        .await
        .expect("the acknowledgement is sent");
    let headers = delivery.properties.headers().clone().expect("headers");
    let offset = headers.inner()["x-stream-offset"].as_long_long_int();
    Delivered {
        offset: offset.expect("a signed 64 bit offset"),
        data: String::from_utf8(delivery.data).expect("text"),
    }
}

pub async fn deliveries(consumer: &mut Consumer, count: usize) -> Vec<Delivered> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(delivery(consumer).await);
    }
    all
}

pub async fn stays_silent(consumer: &mut Consumer) -> bool {
    timeout(SILENCE, consumer.next()).await.is_err()
}

/// The AMQP reply code that an error carries.
pub fn reply_code(error: &lapin::Error) -> u16 {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => error.get_id(),
        other => panic!("no answer of the broker: {other:?}"),
    }
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future)
        .await
        .expect("the broker answers in time")
}
