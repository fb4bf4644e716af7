//! The task that publishes: one connection and one channel after another.

use std::time::Duration;

use lapin::{
    BasicProperties, Channel, Confirmation, Connection, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::{
    sync::mpsc,
    time::{Instant, interval, timeout},
};

use super::{CONTENT_TYPE, Item, Publisher};
use crate::amqp::connection::Link;

/// How long a confirm may take while others don't come either.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(10);

/// How long a broker has to open a channel.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at the connection.
const WATCH: Duration = Duration::from_millis(100);

/// Where records go.
pub struct Target {
    pub exchange: String,
    /// The name of the stream, which leads to it from the exchange.
    pub stream: String,
    /// Between two heartbeats.
    pub beats: Duration,
}

/// Why a channel was given up.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Broker(#[from] lapin::Error),
    #[error("the broker did not open a channel within {OPEN_PATIENCE:?}")]
    NoChannel,
    #[error("the broker refused a record")]
    Nack,
    #[error("no stream takes the records")]
    Unroutable,
    #[error("no confirm came within {CONFIRM_PATIENCE:?}")]
    NoConfirm,
}

impl Publisher {
    /// Publishes what is taken, and a heartbeat now and then, on one connection after another.
    pub async fn run(self, mut link: Link, target: Target) {
        loop {
            let connection = link.connect().await;
            let fault = self.session(&connection, &mut link, &target).await;
            self.set_down();
            let stream = &target.stream;
            tracing::warn!(stream, %fault, "publishing starts again on a new connection");
            if matches!(fault, Fault::Unroutable) {
                self.0.suspect.notify_one();
            }
            link.move_on();
        }
    }

    async fn session(&self, connection: &Connection, link: &mut Link, target: &Target) -> Fault {
        let channel = match open(connection).await {
            Ok(channel) => channel,
            Err(fault) => return fault,
        };
        self.0.lock().window.rewind();
        self.set_blocked(false);
        // Unbounded, yet never longer than what may be in flight.
        let (sent, confirms) = mpsc::unbounded_channel();
        tokio::select! {
            fault = self.send(&channel, target, sent) => fault,
            fault = self.confirm(confirms, link) => fault,
            fault = self.watch(connection, target.beats) => fault,
        }
    }

    async fn send(
        &self,
        channel: &Channel,
        target: &Target,
        sent: mpsc::UnboundedSender<(Instant, PublisherConfirm)>,
    ) -> Fault {
        // A publish that no stream takes is confirmed all the same; only then it comes back.
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let properties = BasicProperties::default().with_content_type(CONTENT_TYPE.into());
        loop {
            let item = self.next_item().await;
            let publish = channel.basic_publish(
                target.exchange.as_str().into(),
                target.stream.as_str().into(),
                options,
                &item.bytes,
                properties.clone(),
            );
            match publish.await {
                // The receiver lives as long as this future.
                Ok(confirm) => drop(sent.send((Instant::now(), confirm))),
                Err(error) => return error.into(),
            }
        }
    }

    async fn next_item(&self) -> Item {
        loop {
            if let Some(item) = self.0.lock().send() {
                return item;
            }
            self.0.wake.notified().await;
        }
    }

    async fn confirm(
        &self,
        mut sent: mpsc::UnboundedReceiver<(Instant, PublisherConfirm)>,
        link: &mut Link,
    ) -> Fault {
        while let Some((when, confirm)) = sent.recv().await {
            match confirm.await {
                Ok(Confirmation::Ack(None)) => self.confirmed(when.elapsed()),
                Ok(Confirmation::Ack(Some(_))) => return Fault::Unroutable,
                Ok(Confirmation::Nack(_) | Confirmation::NotRequested) => return Fault::Nack,
                Err(error) => return error.into(),
            }
            link.settle();
        }
        Fault::NoConfirm
    }

    /// Looks after the connection: is it blocked, do confirms come, is a heartbeat due.
    async fn watch(&self, connection: &Connection, beats: Duration) -> Fault {
        let mut look = interval(WATCH);
        let mut last_beat: Option<Instant> = None;
        loop {
            look.tick().await;
            let blocked = connection.status().blocked();
            self.set_blocked(blocked);
            if self.lacks_confirms(CONFIRM_PATIENCE) {
                return Fault::NoConfirm;
            }
            let due = last_beat.is_none_or(|last| last.elapsed() >= beats);
            if (due || self.beat_is_asked()) && !blocked && !self.beat_waits() {
                self.beat();
                last_beat = Some(Instant::now());
            }
        }
    }
}

async fn open(connection: &Connection) -> Result<Channel, Fault> {
    let opening = async {
        let channel = connection.create_channel().await?;
        let options = ConfirmSelectOptions::default();
        channel.confirm_select(options).await?;
        Ok(channel)
    };
    timeout(OPEN_PATIENCE, opening)
        .await
        .unwrap_or(Err(Fault::NoChannel))
}
