//! Instances of the test's own, and what they read.

use std::time::{Duration, Instant};

use bytes::Bytes;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use roomwire::{
    amqp::{
        Generation, Settings,
        address::Address,
        attach::Checkpoint,
        cluster::Cluster,
        partition::{AmqpLog, Read},
        reader::{Event, Start},
    },
    delta::RoomName,
    log::{NotTaken, OrderedLog, Record, embedded::QueueBounds, record::Entry},
};

use crate::common::Broker;

/// Longer than anything takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);

pub const START: Start = Start::LookBack(Duration::from_secs(3_600));

/// Settings with a prefix that nobody else has.
pub fn settings(broker: &Broker) -> Settings {
    // What went wrong on the way shows in the output of a test that fails.
    let _ = tracing_subscriber::fmt()
        .with_env_filter("roomwire=debug")
        .with_test_writer()
        .try_init();
    Settings {
        addresses: vec![Address::parse(broker.url(1)).unwrap()],
        ca_file: None,
        prefix: Broker::unique_prefix(),
        partitions: 1,
        max_age: Duration::from_secs(3_600),
        max_bytes: 100_000_000,
        heartbeat_interval: Duration::from_millis(500),
        queue: QueueBounds {
            records: 10_000,
            bytes: 16 << 20,
        },
    }
}

/// An instance with its only partition open.
pub struct Instance {
    pub log: AmqpLog,
    // Behind the log, so that it is dropped later.
    pub cluster: Cluster,
}

impl Instance {
    pub fn start(settings: &Settings, start: Start) -> Self {
        let cluster = Cluster::start(settings.clone()).unwrap();
        let generation = cluster.generations()[0].clone();
        let log = cluster.open(0, generation, start);
        Self { log, cluster }
    }
}

pub fn record(producer: u128, sequence: u64) -> Record {
    record_of(producer, sequence, 20)
}

pub fn record_of(producer: u128, sequence: u64, bytes: usize) -> Record {
    Record {
        room: RoomName::new("room").unwrap(),
        body: Bytes::from(vec![b'1'; bytes]),
        id: sequence.to_string().into(),
        keyed: false,
        stamped: sequence,
        info: Bytes::new(),
        exclude: None,
        erases: None,
        producer,
        sequence,
    }
}

/// Publishes, as soon as the log takes it.
pub fn publish(log: &AmqpLog, records: Vec<Record>) {
    let deadline = Instant::now() + LONG;
    loop {
        match log.publish(records.clone()) {
            Ok(()) => return,
            Err(NotTaken::Closed) => panic!("the log is closed"),
            Err(error) => {
                assert!(Instant::now() < deadline, "{error}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// What was read so far.
#[derive(Debug, Default)]
pub struct Reading {
    pub floors: Vec<u64>,
    /// Deltas with their positions, by the rule of all readers: of one producer only the next
    /// number counts.
    pub applied: Vec<(u64, u128, u64)>,
    pub checkpoint: Option<Checkpoint>,
    pub replaced: Option<Generation>,
    pub end: Option<Event>,
    last_position: u64,
}

impl Reading {
    /// Reads until `done` says so.
    pub fn until(&mut self, log: &AmqpLog, done: impl Fn(&Self) -> bool) -> &mut Self {
        let deadline = Instant::now() + LONG;
        while !done(self) {
            match log.read(Duration::from_millis(100)) {
                Read::Events(events) => events.into_iter().for_each(|event| self.take(event)),
                Read::Idle => {}
                Read::Closed => panic!("the log has ended: {}", self.summary()),
            }
            assert!(
                Instant::now() < deadline,
                "{} {:#?}",
                self.summary(),
                log.figures()
            );
        }
        self
    }

    /// Reads until `count` deltas are applied.
    pub fn deltas(&mut self, log: &AmqpLog, count: usize) -> &mut Self {
        self.until(log, |reading| reading.applied.len() >= count)
    }

    fn summary(&self) -> String {
        let (deltas, last) = (self.applied.len(), self.applied.last());
        let (floors, replaced) = (&self.floors, &self.replaced);
        format!("{deltas} deltas, the last {last:?}, floors {floors:?}, replaced {replaced:?}")
    }

    pub fn take(&mut self, event: Event) {
        match event {
            Event::Floor(floor) => {
                assert!(floor >= self.last_position, "a floor below what was read");
                self.floors.push(floor);
            }
            Event::Entry { position, entry } => {
                assert!(position > self.last_position, "positions grow");
                self.last_position = position;
                self.checkpoint = Some(Checkpoint {
                    position,
                    identity: entry.identity(),
                });
                if let Entry::Delta { record, .. } = entry {
                    let (producer, sequence) = (record.producer, record.sequence);
                    let last = self.applied.iter().rfind(|(_, of, _)| *of == producer);
                    if last.is_none_or(|(_, _, last)| sequence == last + 1) {
                        self.applied.push((position, producer, sequence));
                    }
                }
            }
            Event::Replaced(generation) => self.replaced = Some(generation),
            event @ Event::TooNew(_) => self.end = Some(event),
        }
    }

    pub fn sequences(&self) -> Vec<u64> {
        self.applied
            .iter()
            .map(|(_, _, sequence)| *sequence)
            .collect()
    }

    pub fn start(&self) -> Start {
        Start::Behind(self.checkpoint.expect("something was read"))
    }
}

/// An operator, with every permission.
pub struct Operator {
    runtime: tokio::runtime::Runtime,
    // Kept, so that the channel is.
    _connection: Connection,
    channel: Channel,
}

impl Operator {
    pub fn connect(broker: &Broker) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (connection, channel) = runtime.block_on(async {
            let properties = ConnectionProperties::default();
            let connection = Connection::connect(broker.url(1), properties)
                .await
                .unwrap();
            let channel = connection.create_channel().await.unwrap();
            let confirms = ConfirmSelectOptions::default();
            channel.confirm_select(confirms).await.unwrap();
            (connection, channel)
        });
        Self {
            runtime,
            _connection: connection,
            channel,
        }
    }

    pub fn delete(&self, stream: &str) {
        let deleting = self.channel.queue_delete(stream.into(), Default::default());
        self.runtime.block_on(deleting).unwrap();
    }

    /// Declares a stream as an instance does, with nothing in it.
    pub fn declare(&self, stream: &str, exchange: &str) {
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-queue-type".into(),
            AMQPValue::LongString("stream".into()),
        );
        let durable = QueueDeclareOptions {
            durable: true,
            ..Default::default()
        };
        self.runtime.block_on(async {
            self.channel
                .queue_declare(stream.into(), durable, arguments)
                .await
                .unwrap();
            self.channel
                .queue_bind(
                    stream.into(),
                    exchange.into(),
                    stream.into(),
                    Default::default(),
                    Default::default(),
                )
                .await
                .unwrap();
        });
    }

    /// Puts a message of any kind into a stream.
    pub fn publish(&self, stream: &str, content_type: &str, body: &[u8]) {
        let properties = BasicProperties::default().with_content_type(content_type.into());
        let options = BasicPublishOptions::default();
        let stream = ShortString::from(stream);
        self.runtime.block_on(async {
            let publish = self
                .channel
                .basic_publish("".into(), stream, options, body, properties);
            assert!(publish.await.unwrap().await.unwrap().is_ack());
        });
    }
}
