//! Who publishes with AMQP, straight to the exchange: a backend that knows nothing of Roomwire. What
//! is not confirmed is sent again with its message id, in its order, at the next broker.

use std::{
    collections::VecDeque,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use serde_json::json;
use tokio::{
    runtime::Builder,
    time::{sleep, timeout},
};

use crate::{
    plan::{NODES, Plan},
    publishers::now_ms,
    random::Random,
    world::{Counts, OUTAGE, World},
};

/// Messages that wait for their confirms at a time.
const WINDOW: usize = 10;

/// Longer than a broker takes to confirm, unless it never will.
const PATIENCE: Duration = Duration::from_secs(5);

const RETRY: Duration = Duration::from_millis(200);

/// A delta that a broker has confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub room: String,
    pub data: String,
}

pub struct Producer<'a> {
    world: &'a World,
    plan: &'a Plan,
    random: Random,
    name: usize,
    made: u64,
    /// Which broker it is at.
    turn: usize,
    /// Not confirmed yet, in order.
    waiting: VecDeque<(String, Sent)>,
}

impl<'a> Producer<'a> {
    pub fn new(world: &'a World, plan: &'a Plan, name: usize) -> Self {
        Self {
            world,
            plan,
            random: Random::new(plan.seed ^ (name as u64) << 48),
            name,
            made: 0,
            turn: name % NODES,
            waiting: VecDeque::new(),
        }
    }

    /// Sends until the run is over; gives everything, in the order in which it was sent.
    pub fn run(mut self) -> Vec<Sent> {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime
            .expect("a thread may have a runtime")
            .block_on(async {
                let mut sent = Vec::new();
                let mut last_success = Instant::now();
                while !self.is_over() || !self.waiting.is_empty() {
                    let before = sent.len();
                    let connected =
                        timeout(PATIENCE, connect(self.world.broker.url(self.turn + 1)));
                    let ended = match connected.await {
                        Ok(Ok((_connection, channel))) => self.send(&channel, &mut sent).await,
                        Ok(Err(error)) => Err(error.to_string()),
                        Err(_) => Err("no connection in time".into()),
                    };
                    if sent.len() > before {
                        last_success = Instant::now();
                    }
                    if let Err(error) = ended {
                        let name = self.name;
                        assert!(last_success.elapsed() < OUTAGE, "producer {name}: {error}");
                        Counts::add(&self.world.counts.repeats, self.waiting.len() as u64);
                        self.turn = (self.turn + 1) % NODES;
                        sleep(RETRY).await;
                    }
                }
                sent
            })
    }

    fn is_over(&self) -> bool {
        self.world.is_over.load(Ordering::Relaxed)
    }

    /// Windows of messages on one channel, until the run is over or the channel is of no use.
    async fn send(&mut self, channel: &Channel, sent: &mut Vec<Sent>) -> Result<(), String> {
        while !self.is_over() || !self.waiting.is_empty() {
            while !self.is_over() && self.waiting.len() < WINDOW {
                let made = self.make();
                self.waiting.push_back(made);
            }
            timeout(PATIENCE, self.send_waiting(channel))
                .await
                .map_err(|_| "no confirm in time".to_owned())??;
            Counts::add(&self.world.counts.published, self.waiting.len() as u64);
            sent.extend(self.waiting.drain(..).map(|(_, delta)| delta));
            sleep(self.plan.pause * WINDOW as u32).await;
        }
        Ok(())
    }

    async fn send_waiting(&self, channel: &Channel) -> Result<(), String> {
        let exchange = format!("{}.in", self.world.prefix);
        let mut confirms = Vec::new();
        for (id, delta) in &self.waiting {
            // Of one's own making, so it must be routed.
            let options = BasicPublishOptions {
                mandatory: true,
                ..Default::default()
            };
            let properties = BasicProperties::default()
                .with_message_id(id.as_str().into())
                .with_delivery_mode(2);
            let (exchange, room) = (exchange.as_str().into(), delta.room.as_str().into());
            let body = delta.data.as_bytes();
            let publish = channel.basic_publish(exchange, room, options, body, properties);
            confirms.push(publish.await.map_err(|error| error.to_string())?);
        }
        for confirm in confirms {
            let confirm = confirm.await.map_err(|error| error.to_string())?;
            if !confirm.is_ack() || confirm.take_message().is_some() {
                return Err("a message was not taken".into());
            }
        }
        Ok(())
    }

    fn make(&mut self) -> (String, Sent) {
        self.made += 1;
        let (name, made) = (self.name, self.made);
        let delta = Sent {
            room: Plan::room(self.random.below(self.plan.rooms as u64)),
            data: json!({"by": format!("amqp{name}"), "n": made, "t": now_ms()}).to_string(),
        };
        (format!("amqp{name}-{made}"), delta)
    }
}

async fn connect(url: &str) -> lapin::Result<(Connection, Channel)> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok((connection, channel))
}
