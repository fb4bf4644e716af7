//! The queue of rejected messages, for those who look after it: they can be looked at, put back and
//! dropped.

use std::time::Duration;

use lapin::{
    Channel, Connection,
    message::Delivery,
    options::{BasicAckOptions, BasicGetOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::time::timeout;

use super::{
    delivery::{header, restored, with_message},
    message::RoomHeader,
    rejects::publish,
    session::Fault,
};
use crate::amqp::{
    connection::{ConnectError, Connector, reply},
    topology::{Topology, is_missing},
};

/// How long the broker has for one message.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum PutAwayError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("there is no queue {queue:?}; servers with this prefix make it when they start")]
    NoQueue { queue: String },
    #[error("RabbitMQ failed: {0}")]
    Broker(#[from] lapin::Error),
    #[error(
        "RabbitMQ did not answer within {PATIENCE:?}; it takes nothing while it has an alarm, which \
         `rabbitmq-diagnostics alarms` shows"
    )]
    NoAnswer,
    #[error("a message was not put back: {0}")]
    NotPutBack(Fault),
}

impl PutAwayError {
    /// Whether the broker refuses the user.
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_refused(),
            Self::Broker(error) => matches!(reply(error), Some((403, _))),
            _ => false,
        }
    }

    /// Whether trying again won't help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_permanent(),
            Self::NoQueue { .. } => true,
            _ => false,
        }
    }
}

/// A connection to the queue. What it has given and was not told to put back or drop is in the
/// queue again, at its old place, once it is closed.
pub struct Desk {
    connection: Connection,
    channel: Channel,
    queue: String,
    entrance: String,
    /// Messages that are left of those that were there at first: one that is put back and is
    /// rejected again does not come twice.
    left: u32,
}

/// A message that was put away. Texts are empty for one that somebody else put into the queue.
pub struct Item {
    pub id: String,
    pub code: String,
    pub reason: String,
    /// As its producer named them.
    pub rooms: Vec<String>,
    pub message_id: Option<String>,
    /// When it was put away, in seconds since the Unix epoch.
    pub time: Option<u64>,
    delivery: Delivery,
}

impl Item {
    pub fn body(&self) -> &[u8] {
        &self.delivery.data
    }
}

impl Desk {
    pub async fn open(connector: &Connector, topology: &Topology) -> Result<Self, PutAwayError> {
        let name = format!("{} rejected", topology.prefix());
        let connection = connector.connect(0, &name).await?;
        let queue = topology.rejected();
        let channel = connection.create_channel().await?;
        let confirms = ConfirmSelectOptions::default();
        channel.confirm_select(confirms).await?;
        let left = match count(&channel, &queue).await {
            Err(PutAwayError::Broker(error)) if is_missing(&error) => {
                return Err(PutAwayError::NoQueue { queue });
            }
            counted => counted?,
        };
        Ok(Self {
            connection,
            channel,
            queue,
            entrance: topology.entrance(),
            left,
        })
    }

    /// The next message, the oldest first; none when all were given.
    pub async fn next(&mut self) -> Result<Option<Item>, PutAwayError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let get = BasicGetOptions::default();
        let getting = self.channel.basic_get(self.queue.as_str().into(), get);
        let got = within_patience(async { Ok(getting.await?) }).await?;
        Ok(got.map(|got| item(got.delivery)))
    }

    /// Publishes a message once more, as it first came, and takes it out of the queue.
    pub async fn put_back(&self, item: &Item) -> Result<(), PutAwayError> {
        let delivery = &item.delivery;
        let key = text(delivery, header::ROUTING_KEY);
        let properties = restored(delivery);
        within_patience(async {
            publish(
                &self.channel,
                &self.entrance,
                &key,
                properties,
                &delivery.data,
            )
            .await
            .map_err(PutAwayError::NotPutBack)
        })
        .await?;
        self.take_out(item).await
    }

    /// Takes a message out of the queue.
    pub async fn take_out(&self, item: &Item) -> Result<(), PutAwayError> {
        let acking = item.delivery.ack(BasicAckOptions::default());
        within_patience(async { Ok(acking.await.map(drop)?) }).await
    }

    /// Completes when everything that was asked for is done.
    pub async fn close(self) -> Result<(), PutAwayError> {
        // Acks are not answered; what is asked behind them is.
        count(&self.channel, &self.queue).await?;
        let closing = self.connection.close(200, "OK".into());
        within_patience(async { Ok(closing.await?) }).await
    }
}

async fn within_patience<T>(
    work: impl Future<Output = Result<T, PutAwayError>>,
) -> Result<T, PutAwayError> {
    let done = timeout(PATIENCE, work).await;
    done.unwrap_or(Err(PutAwayError::NoAnswer))
}

async fn count(channel: &Channel, queue: &str) -> Result<u32, PutAwayError> {
    let passive = QueueDeclareOptions {
        passive: true,
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let asking = channel.queue_declare(queue.into(), passive, FieldTable::default());
    within_patience(async { Ok(asking.await?.message_count()) }).await
}

fn item(delivery: Delivery) -> Item {
    let key = text(&delivery, header::ROUTING_KEY);
    let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let rooms = with_message(&delivery, |message| match message.room {
        RoomHeader::One(room) => vec![name(room)],
        RoomHeader::Several(rooms) => rooms.iter().flatten().map(|room| name(room)).collect(),
        RoomHeader::Absent | RoomHeader::Other => vec![key],
    });
    let id = delivery.properties.message_id().as_ref();
    Item {
        id: text(&delivery, header::ID),
        code: text(&delivery, header::CODE),
        reason: text(&delivery, header::REASON),
        rooms,
        message_id: id.map(ShortString::to_string),
        time: match value(&delivery, header::TIME) {
            Some(AMQPValue::Timestamp(time)) => Some(*time),
            _ => None,
        },
        delivery,
    }
}

fn value<'a>(delivery: &'a Delivery, name: &str) -> Option<&'a AMQPValue> {
    let headers = delivery.properties.headers().as_ref()?;
    headers.inner().get(name)
}

fn text(delivery: &Delivery, name: &str) -> String {
    match value(delivery, name) {
        Some(AMQPValue::LongString(text)) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        _ => String::new(),
    }
}
