//! What goes with the deliveries of a stream: offsets, positions and acks.

use std::time::Duration;

use futures_util::{StreamExt, future};
use lapin::{Channel, Consumer, message::Delivery, options::BasicAckOptions, types::AMQPValue};
use tokio::time::{Instant, timeout};

use super::{Fault, PREFETCH, Start};
use crate::log::publisher::wall_clock_ms;

/// A channel whose records stay unacked for half an hour is closed.
const ACK_INTERVAL: Duration = Duration::from_secs(60);

/// How long writing an ack may take.
const ACK_PATIENCE: Duration = Duration::from_secs(5);

/// Acks half of the prefetch at once: an ack only asks for more.
#[derive(Default)]
pub struct Acks {
    last: Option<Delivery>,
    unacked: u16,
    since: Option<Instant>,
}

impl Acks {
    pub async fn take(&mut self, delivery: Delivery) -> Result<(), Fault> {
        self.last = Some(delivery);
        self.unacked += 1;
        self.since.get_or_insert_with(Instant::now);
        match self.unacked >= PREFETCH / 2 {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    pub async fn flush_if_due(&mut self) -> Result<(), Fault> {
        match self.since {
            Some(since) if since.elapsed() > ACK_INTERVAL => self.flush().await,
            _ => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        if let Some(last) = self.last.take() {
            ack(&last).await?;
        }
        self.unacked = 0;
        self.since = None;
        Ok(())
    }
}

/// Acks a delivery and all before it. An ack that meets the end of its connection may never end by
/// itself.
pub async fn ack(delivery: &Delivery) -> Result<(), Fault> {
    let acking = delivery.ack(BasicAckOptions { multiple: true });
    match timeout(ACK_PATIENCE, acking).await {
        // Acked, or the channel is dead, which its deliveries tell in their turn.
        Ok(acked) => Ok(acked.map(drop)?),
        Err(_) => Err(Fault::Ack),
    }
}

/// The next of a consumer that may be there or not.
pub async fn next_of(
    consumer: &mut Option<(Channel, Consumer)>,
) -> Option<lapin::Result<Delivery>> {
    match consumer {
        Some((_, consumer)) => consumer.next().await,
        None => future::pending().await,
    }
}

/// From where to consume a stream that was made at `made`, in ms since the Unix epoch.
pub fn offset(start: Start, made: Option<u64>) -> AMQPValue {
    match start {
        Start::Behind(checkpoint) => {
            AMQPValue::LongLongInt(i64::try_from(checkpoint.position - 1).unwrap_or(i64::MAX))
        }
        Start::LookBack(time) => {
            let ago = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            let horizon = wall_clock_ms().saturating_sub(ago);
            match made {
                // All of it; and a time would miss what comes while the broker looks for it in a
                // stream that is still empty.
                Some(made) if made >= horizon => AMQPValue::LongString("first".into()),
                _ => AMQPValue::Timestamp(horizon / 1_000),
            }
        }
    }
}

/// One more than the offset that every message of a stream carries.
pub fn position(delivery: &Delivery) -> u64 {
    let headers = delivery.properties.headers().as_ref();
    let offset = headers.and_then(|headers| headers.inner().get("x-stream-offset"));
    match offset {
        Some(AMQPValue::LongLongInt(offset)) => u64::try_from(*offset).unwrap_or(0) + 1,
        _ => 1,
    }
}
