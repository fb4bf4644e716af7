//! What the backend hears: messages to a topic exchange, persistent and confirmed.
//!
//! Nothing is kept here: a message that the broker has not confirmed is given back, and comes again when it is due.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::{sync::mpsc, time::timeout};

use super::{
    connection::Link,
    topology::{Topology, TopologyError},
};

/// Messages that may wait, and as many that may be on their way.
const MAX_WAITING: usize = 256;

/// How long the broker has to open a channel, and to confirm.
const PATIENCE: Duration = Duration::from_secs(10);

/// A message to the backend.
pub struct Notice {
    pub routing_key: &'static str,
    /// By name.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: Vec<u8>,
    pub id: String,
    /// Told once: whether the broker has it. False: it may have it all the same.
    pub done: Box<dyn FnOnce(bool) + Send>,
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Broker(#[from] lapin::Error),
    #[error(transparent)]
    Topology(#[from] TopologyError),
    #[error("the broker did not answer within {PATIENCE:?}")]
    NoAnswer,
    #[error("the broker refused an event")]
    Nack,
}

/// Sends messages to the backend. Cheap to clone.
#[derive(Clone)]
pub struct Notifier(mpsc::Sender<Notice>);

impl Notifier {
    /// A notifier, and the task that it lives from.
    pub(super) fn open(
        link: Link,
        topology: Arc<Topology>,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (sender, notices) = mpsc::channel(MAX_WAITING);
        (Self(sender), run(link, topology, notices))
    }

    /// Sends a message, or says at once that too many are waiting.
    pub fn send(&self, notice: Notice) {
        if let Err(refused) = self.0.try_send(notice) {
            let notice = match refused {
                mpsc::error::TrySendError::Full(notice)
                | mpsc::error::TrySendError::Closed(notice) => notice,
            };
            (notice.done)(false);
        }
    }
}

async fn run(mut link: Link, topology: Arc<Topology>, mut notices: mpsc::Receiver<Notice>) {
    let exchange = topology.events();
    loop {
        let connection = link.connect().await;
        let fault = session(&connection, &mut link, &topology, &mut notices).await;
        tracing::warn!(exchange, %fault, "events are sent on a new connection");
        link.move_on();
    }
}

async fn session(
    connection: &Connection,
    link: &mut Link,
    topology: &Topology,
    notices: &mut mpsc::Receiver<Notice>,
) -> Fault {
    let exchange = topology.events();
    let channel = match timeout(PATIENCE, open(connection, topology)).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(fault)) => return fault,
        Err(_) => return Fault::NoAnswer,
    };
    link.settle();
    let mut confirms = FuturesUnordered::new();
    let fault = loop {
        tokio::select! {
            // The sender lives as long as the server.
            Some(notice) = notices.recv(), if confirms.len() < MAX_WAITING => {
                let Notice { routing_key, headers, body, id, done } = notice;
                let properties = properties(headers, id);
                let options = BasicPublishOptions::default();
                let publish = channel.basic_publish(
                    exchange.as_str().into(),
                    routing_key.into(),
                    options,
                    &body,
                    properties,
                );
                match publish.await {
                    Ok(confirm) => confirms.push(async { (timeout(PATIENCE, confirm).await, done) }),
                    Err(error) => {
                        done(false);
                        break error.into();
                    }
                }
            }
            Some((confirmed, done)) = confirms.next(), if !confirms.is_empty() => {
                let fault = match confirmed {
                    Ok(Ok(Confirmation::Ack(_))) => {
                        done(true);
                        continue;
                    }
                    Ok(Ok(Confirmation::Nack(_) | Confirmation::NotRequested)) => Fault::Nack,
                    Ok(Err(error)) => error.into(),
                    Err(_) => Fault::NoAnswer,
                };
                done(false);
                break fault;
            }
        }
    };
    // Those on their way have no more to wait for than the connection that is given up.
    drop(channel);
    while let Some((_, done)) = confirms.next().await {
        done(false);
    }
    fault
}

async fn open(connection: &Connection, topology: &Topology) -> Result<Channel, Fault> {
    topology.declare_events(connection).await?;
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok(channel)
}

fn properties(headers: Vec<(&'static str, String)>, id: String) -> BasicProperties {
    /// AMQP's number for a message that is to survive a restart.
    const PERSISTENT: u8 = 2;
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT)
        .with_message_id(id.into())
        .with_headers(table)
}
