//! Servers that take in, and a producer.

use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, PublisherConfirm,
    message::Delivery,
    options::{BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::runtime::Runtime;

use crate::common::{Broker, Entry, Server, eventually};

/// Seconds; a broker ends the connections of a server that it has not heard for three times that.
const HEARTBEAT: u32 = 5;

pub fn config(url: &str, prefix: &str) -> String {
    format!(
        "[limits]\nping_interval = \"1h\"\n[publish]\nmax_delta_bytes = \"4KiB\"\n\
         [amqp]\nurl = [\"{url}?heartbeat={HEARTBEAT}\"]\nprefix = \"{prefix}\"\n\
         partitions = 2\nheartbeat = \"500ms\"\n[namespaces.chat]\n"
    )
}

pub fn await_ready(server: &Server) {
    eventually("the server to have caught up", || {
        (server.get("/readyz").status == 200).then_some(())
    });
}

pub fn instance(url: &str, prefix: &str) -> Server {
    let server = Server::start(&config(url, prefix));
    await_ready(&server);
    server
}

/// Servers with one log of their own.
pub fn instances<const N: usize>(broker: &Broker) -> ([Server; N], Producer) {
    let prefix = Broker::unique_prefix();
    let servers = std::array::from_fn(|_| instance(broker.url(1), &prefix));
    (servers, Producer::connect(broker.url(1), &prefix))
}

/// Waits until a server has exactly these deltas in a room.
pub fn await_history(server: &Server, room: &str, expected: &[String]) -> Vec<Entry> {
    eventually(&format!("{} deltas in {room}", expected.len()), || {
        let history = server.history(room);
        (history.len() >= expected.len()).then_some(history)
    });
    let history = server.history(room);
    let data = history.iter().map(|entry| &entry.data);
    if let Some(at) = data
        .clone()
        .zip(expected)
        .position(|(is, should)| is != should)
    {
        let from = at.saturating_sub(2);
        let near = data.skip(from).take(5).collect::<Vec<_>>();
        panic!("{room} has {near:?} from {from} on");
    }
    assert_eq!(history.len(), expected.len(), "more came than was sent");
    history
}

/// Whether this server is the one that takes in.
pub fn holds(server: &Server) -> bool {
    server.get("/readyz").json()["ingress"]["holds"] == true
}

/// A backend's connection, confirms on.
pub struct Producer {
    runtime: Runtime,
    _connection: Connection,
    channel: Channel,
    pub prefix: String,
}

/// A message with properties of any kind.
#[derive(Default)]
pub struct Message<'a> {
    pub key: &'a str,
    pub body: &'a [u8],
    pub id: Option<&'a str>,
    pub headers: Vec<(&'a str, AMQPValue)>,
}

impl Producer {
    pub fn connect(url: &str, prefix: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (connection, channel) = runtime.block_on(async {
            let properties = ConnectionProperties::default();
            let connection = Connection::connect(url, properties).await.unwrap();
            let channel = connection.create_channel().await.unwrap();
            let confirms = ConfirmSelectOptions::default();
            channel.confirm_select(confirms).await.unwrap();
            (connection, channel)
        });
        Self {
            runtime,
            _connection: connection,
            channel,
            prefix: prefix.into(),
        }
    }

    /// Sends messages one right after the other; returns once the broker has all.
    pub fn send_all<'a>(&self, messages: impl IntoIterator<Item = Message<'a>>) {
        self.runtime.block_on(async {
            let mut confirms = Vec::new();
            for message in messages {
                confirms.push(self.publish(message).await);
            }
            for confirm in confirms {
                assert_eq!(confirm.await.unwrap(), Confirmation::Ack(None));
            }
        });
    }

    pub fn send(&self, message: Message) {
        self.send_all([message]);
    }

    /// A delta without an id.
    pub fn delta(&self, room: &str, body: &str) {
        let (key, body) = (room, body.as_bytes());
        self.send(Message {
            key,
            body,
            ..Message::default()
        });
    }

    async fn publish(&self, message: Message<'_>) -> PublisherConfirm {
        let mut headers = FieldTable::default();
        for (name, value) in message.headers {
            headers.insert(name.into(), value);
        }
        let mut properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_headers(headers);
        if let Some(id) = message.id {
            properties = properties.with_message_id(id.into());
        }
        let mandatory = BasicPublishOptions {
            mandatory: true,
            ..Default::default()
        };
        let (exchange, key) = (format!("{}.in", self.prefix), message.key.into());
        self.channel
            .basic_publish(exchange.into(), key, mandatory, message.body, properties)
            .await
            .unwrap()
    }

    /// Takes the oldest message out of the queue of rejected ones.
    pub fn rejected(&self) -> Delivery {
        let queue = format!("{}.rejected", self.prefix);
        eventually("a rejected message", || {
            self.runtime.block_on(async {
                let get = BasicGetOptions::default();
                let got = self.channel.basic_get(queue.clone().into(), get).await;
                let got = got.unwrap()?.delivery;
                got.ack(BasicAckOptions::default()).await.unwrap();
                Some(got)
            })
        })
    }
}

pub fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// The header of a message that was put away, as text.
pub fn header(delivery: &Delivery, name: &str) -> String {
    let headers = delivery.properties.headers().as_ref().unwrap();
    match headers.inner().get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        other => format!("{other:?}"),
    }
}
