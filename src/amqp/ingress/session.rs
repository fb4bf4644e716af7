//! Taking in on one connection: a consumer, and a tenure from the first message on.

use std::{pin::Pin, time::Duration};

use futures_util::{FutureExt, StreamExt, future::try_join_all, stream::FuturesOrdered};
use lapin::{
    Acker, Channel, Connection, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use uuid::Uuid;

use super::{
    Taker, asked,
    delivery::{rejected, with_message},
    message::{Refusal, deltas},
    rejects::Rejects,
};
use crate::{
    amqp::{
        connection::{ConnectError, Link},
        topology::TopologyError,
    },
    log::{
        NotTaken,
        publisher::{NewDelta, PublishError, Refusal as LogRefusal, wall_clock_ms},
        tenure::{TakenIn, Tenure},
    },
    metrics::Intake,
};

/// Messages in flight at most. Enough to be limited by the log and not by its distance.
const PREFETCH: u16 = 1_000;

/// Deliveries that are handed over before others get their turn.
const BURST: usize = 128;

/// How long a broker has to let the consumer in, or to answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// How long a fence may take to be read back.
const FENCE_PATIENCE: Duration = Duration::from_secs(30);

/// How long nothing in flight may get on, while the log is there.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long writing an ack may take.
const ACK_PATIENCE: Duration = Duration::from_secs(5);

/// Between two attempts to hand over what a full log did not take.
const RETRY: Duration = Duration::from_millis(20);

/// Between two looks at whether the tenure is still in force.
const WATCH: Duration = Duration::from_millis(100);

/// Between two looks at how much waits in the queue.
const COUNT: Duration = Duration::from_secs(5);

/// Why a connection, and the tenure with it, ended.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Broker(#[from] lapin::Error),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Topology(#[from] TopologyError),
    #[error("the broker did not answer within {ANSWER_PATIENCE:?}")]
    NoAnswer,
    #[error("the broker ended the consumer")]
    Cancelled,
    #[error("the log took nothing: {0}")]
    Log(PublishError),
    #[error("the fence was not read back within {FENCE_PATIENCE:?}")]
    NoFence,
    #[error("another instance has begun to take in, or the log begins anew")]
    Replaced,
    #[error("nothing was applied for {0:?}")]
    Stalled(Duration),
    #[error("an ack can't be written")]
    Ack,
    #[error("no queue took a message")]
    NotPutAway,
}

/// What became of a message that is to be acked.
struct Landed {
    acker: Acker,
    outcome: Outcome,
}

enum Outcome {
    /// For each delta whether it was a repetition.
    Taken(Vec<bool>),
    Rejected,
}

type Flight = Pin<Box<dyn Future<Output = Result<Landed, Fault>> + Send>>;

/// A message that the log has yet to take, in whole or in part.
struct Held {
    acker: Acker,
    /// In reverse order.
    left: Vec<NewDelta>,
    handed_over: Vec<TakenIn>,
}

pub(super) struct Session<'a> {
    taker: &'a mut Taker,
    channel: Channel,
    tenure: Option<Tenure>,
    /// In the order in which they came.
    flights: FuturesOrdered<Flight>,
    held: Option<Held>,
    rejects: Rejects,
    counted: Option<Instant>,
}

impl<'a> Session<'a> {
    /// Takes in until a stop is asked for, or something goes wrong.
    pub(super) async fn run(
        taker: &'a mut Taker,
        connection: &Connection,
        link: &mut Link,
    ) -> Result<(), Fault> {
        let opening = consume(taker, connection);
        let (channel, mut deliveries) = timeout(ANSWER_PATIENCE, opening)
            .await
            .unwrap_or(Err(Fault::NoAnswer))?;
        taker
            .parts
            .status
            .update(|figures| figures.connected = true);
        let rejects = Rejects::new(taker.topology.clone(), taker.connector.clone());
        let mut session = Self {
            taker,
            channel,
            tenure: None,
            flights: FuturesOrdered::new(),
            held: None,
            rejects,
            counted: None,
        };
        session.take_all(&mut deliveries, link).await
    }

    async fn take_all(&mut self, deliveries: &mut Consumer, link: &mut Link) -> Result<(), Fault> {
        let mut stop = self.taker.stop.clone();
        let mut stopping = false;
        let mut watch = interval(WATCH);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if stopping && self.flights.is_empty() {
                return Ok(());
            }
            tokio::select! {
                biased;
                Some(landed) = self.flights.next(), if !self.flights.is_empty() => {
                    self.settle(landed).await?;
                    link.settle();
                }
                () = asked(&mut stop), if !stopping => stopping = true,
                () = sleep(RETRY), if self.held.is_some() => self.hand_over()?,
                _ = watch.tick() => self.look().await?,
                delivery = deliveries.next(), if !stopping && self.has_room() => {
                    let delivery = delivery.ok_or(Fault::Cancelled)??;
                    if self.tenure.is_none() {
                        tokio::select! {
                            tenure = self.begin_tenure() => self.tenure = Some(tenure?),
                            () = asked(&mut stop) => return Ok(()),
                        }
                    }
                    self.take(delivery).await?;
                    for _ in 1..BURST {
                        if !self.has_room() {
                            break;
                        }
                        // Whatever else it says, it says again.
                        let Some(Some(Ok(delivery))) = deliveries.next().now_or_never() else {
                            break;
                        };
                        self.take(delivery).await?;
                    }
                }
            }
            self.taker.parts.status.in_flight(self.in_flight());
        }
    }

    fn has_room(&self) -> bool {
        self.held.is_none() && self.flights.len() < usize::from(PREFETCH)
    }

    fn in_flight(&self) -> usize {
        self.flights.len() + usize::from(self.held.is_some())
    }

    /// Puts a fence into every partition and waits until all of them are read back.
    async fn begin_tenure(&mut self) -> Result<Tenure, Fault> {
        let parts = &self.taker.parts;
        let tenure = parts.publishers.begin_tenure();
        let tenure = tenure.expect("only who has a cluster takes in, and that shares its log");
        tenure.fence(wall_clock_ms()).map_err(Fault::Log)?;
        let id = tenure.id();
        let back = parts.tenures.iter().map(async |of| {
            let mut of = of.clone();
            let back = of.wait_for(|in_force| *in_force == Some(id)).await;
            back.map(drop).map_err(|_| Fault::NoFence)
        });
        timeout(FENCE_PATIENCE, try_join_all(back))
            .await
            .unwrap_or(Err(Fault::NoFence))?;
        // If we were paused before the fence, it is others who take in by now: then this channel is
        // gone, and they get out of our fence's way. If it is there, it has been all the time.
        self.count().await?;
        let status = &self.taker.parts.status;
        status.update(|figures| {
            figures.holds = true;
            figures.tenures += 1;
        });
        tracing::info!("this instance takes in what other producers publish");
        Ok(tenure)
    }

    async fn take(&mut self, delivery: Delivery) -> Result<(), Fault> {
        let rules = &self.taker.parts.rules;
        match with_message(&delivery, |message| deltas(message, rules)) {
            Ok(mut deltas) => {
                deltas.reverse();
                self.held = Some(Held {
                    acker: delivery.acker,
                    left: deltas,
                    handed_over: Vec::new(),
                });
                self.hand_over()
            }
            Err(refusal) => self.reject(delivery, &refusal).await,
        }
    }

    /// Hands the held message to the log, as far as that takes it at the moment.
    fn hand_over(&mut self) -> Result<(), Fault> {
        let (Some(mut held), Some(tenure)) = (self.held.take(), &mut self.tenure) else {
            return Ok(());
        };
        while let Some(delta) = held.left.pop() {
            match tenure.submit(delta.clone(), wall_clock_ms()) {
                Ok(taken_in) => held.handed_over.push(taken_in),
                Err(PublishError::NotTaken {
                    why: LogRefusal::Log(NotTaken::Full | NotTaken::Unavailable),
                }) => {
                    held.left.push(delta);
                    self.held = Some(held);
                    return Ok(());
                }
                Err(error) => return Err(Fault::Log(error)),
            }
        }
        let acker = held.acker;
        let applied = try_join_all(held.handed_over);
        self.flights.push_back(Box::pin(async move {
            let places = applied.await.map_err(Fault::Log)?;
            let outcome = Outcome::Taken(places.iter().map(|place| place.repeated).collect());
            Ok(Landed { acker, outcome })
        }));
        Ok(())
    }

    async fn reject(&mut self, delivery: Delivery, refusal: &Refusal) -> Result<(), Fault> {
        timeout(ANSWER_PATIENCE, self.rejects.open())
            .await
            .unwrap_or(Err(Fault::NoAnswer))?;
        let routing_key = delivery.routing_key.as_str();
        tracing::warn!(routing_key, reason = %refusal, "a message is no delta and was put away");
        // The random end of it: short enough to be typed.
        let id = Uuid::new_v4().simple().to_string().split_off(20);
        let properties = rejected(&delivery, refusal, &id, wall_clock_ms() / 1_000);
        let Delivery { acker, data, .. } = delivery;
        let put = self.rejects.put(properties, data);
        self.flights.push_back(Box::pin(async move {
            put.await?;
            let outcome = Outcome::Rejected;
            Ok(Landed { acker, outcome })
        }));
        Ok(())
    }

    /// Acks a message, and those behind it that are ready, too.
    async fn settle(&mut self, landed: Result<Landed, Fault>) -> Result<(), Fault> {
        let mut last = self.landed(landed?);
        while let Some(Some(landed)) = self.flights.next().now_or_never() {
            match landed {
                Ok(landed) => last = self.landed(landed),
                Err(fault) => {
                    ack(&last).await?;
                    return Err(fault);
                }
            }
        }
        self.taker.parts.status.progress();
        ack(&last).await
    }

    fn landed(&self, landed: Landed) -> Acker {
        let parts = &self.taker.parts;
        match landed.outcome {
            Outcome::Taken(repeated) => {
                parts.status.update(|figures| figures.taken += 1);
                for repeated in repeated {
                    let intake = match repeated {
                        true => Intake::Repeated,
                        false => Intake::Applied,
                    };
                    parts.metrics.deltas_in(intake, 1);
                }
            }
            Outcome::Rejected => parts.status.update(|figures| figures.rejected += 1),
        }
        landed.acker
    }

    /// Whether the tenure is in force and gets on.
    async fn look(&mut self) -> Result<(), Fault> {
        let parts = &self.taker.parts;
        if let Some(id) = self.tenure.as_ref().map(Tenure::id) {
            let in_force = |of: &tokio::sync::watch::Receiver<_>| *of.borrow() == Some(id);
            if !parts.tenures.iter().all(in_force) {
                return Err(Fault::Replaced);
            }
        }
        if !self.taker.is_connected() {
            // What is in flight will go on when the log does.
            parts.status.progress();
        }
        let stalled = parts.status.figures().stalled;
        if stalled > PATIENCE {
            return Err(Fault::Stalled(stalled));
        }
        match self.counted {
            Some(counted) if counted.elapsed() < COUNT => Ok(()),
            _ => self.count().await,
        }
    }

    /// Asks how much waits in the queue, which shows that the broker is there, too.
    async fn count(&mut self) -> Result<(), Fault> {
        let passive = QueueDeclareOptions {
            passive: true,
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let queue = self.taker.topology.ingress();
        let arguments = FieldTable::default();
        let asking = self.channel.queue_declare(queue.into(), passive, arguments);
        let queue = timeout(ANSWER_PATIENCE, asking)
            .await
            .map_err(|_| Fault::NoAnswer)??;
        let waiting = queue.message_count();
        self.taker.parts.status.update(|of| of.waiting = waiting);
        self.counted = Some(Instant::now());
        Ok(())
    }
}

async fn consume(taker: &Taker, connection: &Connection) -> Result<(Channel, Consumer), Fault> {
    // Somebody may have deleted something.
    taker.topology.declare_ingress(connection).await?;
    let channel = connection.create_channel().await?;
    channel
        .basic_qos(PREFETCH, BasicQosOptions::default())
        .await?;
    let deliveries = channel
        .basic_consume(
            taker.topology.ingress().into(),
            "ingress".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    Ok((channel, deliveries))
}

/// Acks a message and all before it.
async fn ack(acker: &Acker) -> Result<(), Fault> {
    let acking = acker.ack(BasicAckOptions { multiple: true });
    match timeout(ACK_PATIENCE, acking).await {
        Ok(acked) => Ok(acked.map(drop)?),
        Err(_) => Err(Fault::Ack),
    }
}
