//! Messages between the instances of a cluster, for what may be lost: a fanout exchange, and a queue of its own for each
//! instance, which goes with its connection.
//!
//! Bounds: what waits to be sent is bounded in number, what is on its way too; a message that finds no room is refused,
//! and one that comes while there is no connection. An instance that does not keep up loses the oldest in its queue. Who
//! uses the bus must live with that, and can: nothing here is of lasting value.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, Consumer,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::{
    sync::mpsc,
    time::{Instant, interval, timeout},
};
use uuid::Uuid;

use super::{
    connection::Link,
    topology::{Topology, TopologyError},
};

/// Messages that may wait to be sent.
const MAX_WAITING: usize = 1_024;

/// Messages that may be on their way to the broker.
const MAX_IN_FLIGHT: usize = 256;

/// Bytes that the broker keeps for an instance that does not take them; then the oldest go.
const QUEUE_BYTES: i64 = 64 * 1024 * 1024;

/// Between two messages that an instance sends for itself to hear: all that can go wrong with a queue is silence.
const BEAT: Duration = Duration::from_secs(5);

/// As long as nothing was heard for less, the connection is taken to be well.
const SILENCE: Duration = Duration::from_secs(16);

/// How long the broker has to open channels and declare.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at the connection.
const WATCH: Duration = Duration::from_millis(250);

/// The topic of messages that are for the bus itself.
const OWN_TOPIC: &str = "bus";

/// Who hears what comes over the bus. Called on the thread of everything about RabbitMQ: must not wait.
pub trait Listener: Send + Sync {
    /// From here on messages reach the others, and theirs come. What came before is lost.
    fn connected(&self);
    /// No message reaches anybody, until it is connected again.
    fn lost(&self);
    /// A message came; one's own come, too.
    fn heard(&self, topic: &str, body: &[u8]);
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Broker(#[from] lapin::Error),
    #[error(transparent)]
    Topology(#[from] TopologyError),
    #[error("the broker did not open the bus within {OPEN_PATIENCE:?}")]
    NoAnswer,
    #[error("the broker ended the consumer")]
    Cancelled,
    #[error("the broker refused a message")]
    Nack,
    #[error("nothing came for {SILENCE:?}, not even an own message")]
    Silence,
}

/// Sends messages to all instances. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    waiting: mpsc::Sender<(&'static str, Bytes)>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    connected: AtomicBool,
    /// Messages that are taken and not confirmed.
    unsent: AtomicUsize,
}

impl Bus {
    /// A bus, and the task that it lives from.
    pub(super) fn open(
        link: Link,
        topology: Arc<Topology>,
        listener: Arc<dyn Listener>,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (sender, waiting) = mpsc::channel(MAX_WAITING);
        let state = Arc::<State>::default();
        let task = Task {
            topology,
            listener,
            waiting,
            state: state.clone(),
        };
        let bus = Self {
            waiting: sender,
            state,
        };
        (bus, task.run(link))
    }

    /// Sends a message to all instances, this one too. Whether it was taken: not without a connection, and not if too
    /// much is waiting.
    pub fn send(&self, topic: &'static str, body: Bytes) -> bool {
        if !self.state.connected.load(Ordering::Acquire) {
            return false;
        }
        self.state.unsent.fetch_add(1, Ordering::AcqRel);
        let taken = self.waiting.try_send((topic, body)).is_ok();
        if !taken {
            self.state.unsent.fetch_sub(1, Ordering::AcqRel);
        }
        taken
    }

    /// Whether something that was taken has not come to the broker.
    pub fn is_busy(&self) -> bool {
        self.state.connected.load(Ordering::Acquire)
            && self.state.unsent.load(Ordering::Acquire) > 0
    }
}

struct Task {
    topology: Arc<Topology>,
    listener: Arc<dyn Listener>,
    waiting: mpsc::Receiver<(&'static str, Bytes)>,
    state: Arc<State>,
}

struct Session {
    channel: Channel,
    consumer: Consumer,
}

impl Task {
    async fn run(mut self, mut link: Link) {
        loop {
            let connection = link.connect().await;
            let fault = self.session(&connection, &mut link).await;
            self.set_connected(false);
            tracing::warn!(%fault, "the way to the other servers is lost; it is opened again");
            link.move_on();
        }
    }

    async fn session(&mut self, connection: &Connection, link: &mut Link) -> Fault {
        let opened = timeout(OPEN_PATIENCE, self.open(connection)).await;
        let session = match opened {
            Ok(Ok(session)) => session,
            Ok(Err(fault)) => return fault,
            Err(_) => return Fault::NoAnswer,
        };
        // What waits is from before, and nobody relies on it any more.
        while self.waiting.try_recv().is_ok() {}
        self.state.unsent.store(0, Ordering::Release);
        self.set_connected(true);
        link.settle();
        self.carry(connection, session).await
    }

    async fn open(&self, connection: &Connection) -> Result<Session, Fault> {
        self.topology.declare_bus(connection).await?;
        let exchange = self.topology.bus();
        let channel = connection.create_channel().await?;
        let none = FieldTable::default;
        // Named by us, so that the rights to what begins with the prefix are enough. Another one for each connection: the
        // broker may hold on to that of a connection which it does not know to be gone.
        let queue = format!("{exchange}.{}", Uuid::new_v4().simple());
        let exclusive = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        let mut bound = none();
        bound.insert(
            "x-max-length-bytes".into(),
            AMQPValue::LongLongInt(QUEUE_BYTES),
        );
        channel
            .queue_declare(queue.as_str().into(), exclusive, bound)
            .await?;
        channel
            .queue_bind(
                queue.as_str().into(),
                exchange.as_str().into(),
                "".into(),
                QueueBindOptions::default(),
                none(),
            )
            .await?;
        let consume = BasicConsumeOptions {
            no_ack: true,
            exclusive: true,
            ..BasicConsumeOptions::default()
        };
        let consumer = channel
            .basic_consume(queue.as_str().into(), "".into(), consume, none())
            .await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Session { channel, consumer })
    }

    async fn carry(&mut self, connection: &Connection, mut session: Session) -> Fault {
        let exchange = self.topology.bus();
        let mut confirms = FuturesUnordered::new();
        let mut look = interval(WATCH);
        let (mut heard, mut beat) = (Instant::now(), Instant::now());
        loop {
            let is_blocked = connection.status().blocked();
            let has_room = confirms.len() < MAX_IN_FLIGHT && !is_blocked;
            tokio::select! {
                delivery = session.consumer.next() => match delivery {
                    Some(Ok(delivery)) => {
                        heard = Instant::now();
                        let topic = delivery.routing_key.as_str();
                        if topic != OWN_TOPIC {
                            self.listener.heard(topic, &delivery.data);
                        }
                    }
                    Some(Err(error)) => return error.into(),
                    None => return Fault::Cancelled,
                },
                Some((topic, body)) = self.waiting.recv(), if has_room => {
                    match publish(&session.channel, &exchange, topic, &body).await {
                        Ok(confirm) => confirms.push(confirm),
                        Err(error) => return error.into(),
                    }
                }
                Some(confirmed) = confirms.next(), if !confirms.is_empty() => match confirmed {
                    Ok(Confirmation::Ack(_)) => {
                        self.state.unsent.fetch_sub(1, Ordering::AcqRel);
                    }
                    Ok(Confirmation::Nack(_) | Confirmation::NotRequested) => return Fault::Nack,
                    Err(error) => return error.into(),
                },
                _ = look.tick() => {
                    if is_blocked == self.state.connected.load(Ordering::Acquire) {
                        self.set_connected(!is_blocked);
                        heard = Instant::now();
                    }
                    if is_blocked {
                        continue;
                    }
                    if heard.elapsed() > SILENCE {
                        return Fault::Silence;
                    }
                    if beat.elapsed() >= BEAT {
                        beat = Instant::now();
                        self.state.unsent.fetch_add(1, Ordering::AcqRel);
                        match publish(&session.channel, &exchange, OWN_TOPIC, b"").await {
                            Ok(confirm) => confirms.push(confirm),
                            Err(error) => return error.into(),
                        }
                    }
                }
            }
        }
    }

    fn set_connected(&self, connected: bool) {
        if self.state.connected.swap(connected, Ordering::AcqRel) != connected {
            match connected {
                true => self.listener.connected(),
                false => self.listener.lost(),
            }
        }
    }
}

async fn publish(
    channel: &Channel,
    exchange: &str,
    topic: &str,
    body: &[u8],
) -> Result<lapin::PublisherConfirm, lapin::Error> {
    // Not persistent: a broker that restarts has no queue for it either.
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    channel
        .basic_publish(exchange.into(), topic.into(), options, body, properties)
        .await
}
