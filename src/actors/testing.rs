//! A small server without sockets, for the tests of its actors: all of it on one thread, with its database in memory.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix::{Addr, Context};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::Notify;

use super::{
    Services,
    dispatch::RoomDispatch,
    hub::{Hub, Hubs, LocalHub, SessionWire},
    presence::Presence,
    registry::Registry,
    room::{Deltas, Erase, Room, Subscribe},
};
use crate::{
    access::Access,
    config::{ClientPublish, Config, Namespace, Namespaces, RoomAccess},
    delta::{Delta, Erasure, RoomName},
    log::{
        Next, OrderedLog,
        embedded::{EmbeddedLog, QueueBounds},
        pipeline::{Dispatch, Parts, Pipeline},
        publisher::{NewDelta, Publisher, wall_clock_ms},
        publishers::Publishers,
    },
    metrics::Metrics,
    presence::core::Settings,
    protocol::{codes::Disconnect, format::Format, session::Recover},
    rooms::{
        retention::Retention,
        sequence::{HubId, Join, Start, SubId},
        store_memory::MemoryStore,
        writer::{HistorySettings, HistoryWriter},
    },
};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Keeps everything.
const FOREVER: Retention = Retention {
    size: u64::MAX,
    ttl_ms: u64::MAX,
    bytes: u64::MAX,
};

/// Nobody is missed before they are.
const PRESENCE: Settings = Settings {
    grace: 0,
    max_members: 100,
    beat: 1_000,
    user_events: false,
    shared: false,
};

pub struct World {
    pub services: Arc<Services>,
    pub hub: Rc<LocalHub>,
    log: Arc<EmbeddedLog>,
    publisher: Publisher,
    pipeline: Pipeline,
}

/// Hands deltas to the rooms and never waits: the rooms are on the same thread.
struct Hand(Arc<Registry>);

impl Dispatch for Hand {
    fn dispatch(&mut self, deltas: Vec<Arc<Delta>>) {
        for (room, deltas) in RoomDispatch::by_room(deltas) {
            self.0.pass(&room, Deltas(deltas));
        }
    }

    fn erase(&mut self, room: &RoomName, erasure: Erasure) {
        self.0.pass(room, Erase(erasure));
    }

    fn reset(&mut self) {}
}

impl World {
    pub fn start() -> Self {
        let settings = HistorySettings {
            idempotency_window_ms: 300_000,
        };
        let writer = HistoryWriter::open(Arc::new(MemoryStore::new()), settings).unwrap();
        let history = writer.history();
        let bounds = QueueBounds {
            records: 10_000,
            bytes: usize::MAX,
        };
        let log = Arc::new(EmbeddedLog::new(1, bounds));
        let publisher = Publisher::new(log.clone(), PATIENCE);
        let registry = Arc::new(Registry::default());
        let pipeline = Pipeline::new(Parts {
            log: log.clone(),
            writer,
            rules: Arc::new(|_| FOREVER),
            answers: publisher.answers(),
            dispatch: Box::new(Hand(registry.clone())),
            reserve_bytes: 0,
        });
        let open = Namespace {
            access: RoomAccess::Public,
            ..Namespace::default()
        };
        let typing = Namespace {
            client_publish: ClientPublish::Ephemeral,
            client_publish_rate: 1,
            ..open.clone()
        };
        let people = Namespace {
            presence: true,
            join_leave: true,
            ..open.clone()
        };
        let namespaces: Namespaces = [("default", open), ("typing", typing), ("people", people)]
            .into_iter()
            .collect();
        let config = Config::default();
        let services = Arc::new(Services {
            history,
            publisher: Publishers::new(vec![publisher.clone()]),
            logs: vec![log.clone()],
            registry,
            hubs: Hubs::default(),
            dispatched: vec![pipeline.watch().dispatched],
            presence: Arc::new(Presence::new(PRESENCE, namespaces.clone())),
            others: None,
            metrics: Metrics::new(),
            large_deltas: Default::default(),
            ingress: None,
            namespaces,
            access: Access::open(&config.access, &[], true).unwrap(),
            limits: config.limits,
            publish: config.publish,
            rooms: config.rooms,
        });
        let hub = Hub::start(
            Format::JSON,
            &services.hubs,
            &services.limits,
            Metrics::new(),
        );
        Self {
            services,
            hub,
            log,
            publisher,
            pipeline,
        }
    }

    /// A hub whose mailbox fills until it is started by this.
    pub fn start_hub(&self, context: Context<Hub>) -> Rc<LocalHub> {
        let Services { hubs, limits, .. } = &*self.services;
        Hub::start_in(context, Format::JSON, hubs, limits, Metrics::new())
    }

    /// A wire that the hub knows as that session's.
    pub fn wire(&self, session: u64) -> Rc<Recorder> {
        self.wire_of(&self.hub, session)
    }

    pub fn wire_of(&self, hub: &LocalHub, session: u64) -> Rc<Recorder> {
        let wire = Rc::new(Recorder::default());
        hub.open(session, wire.clone());
        wire
    }

    pub fn subscribe(&self, room: &RoomName, join: Join) {
        self.subscribe_through(self.hub.addr.clone(), room, join);
    }

    pub fn subscribe_through(&self, hub: Addr<Hub>, room: &RoomName, join: Join) {
        let start = |key| Room::start(room.clone(), key, self.services.clone());
        let message = |ticket| Subscribe { join, hub, ticket };
        let told = self.services.registry.tell(room, start, message);
        assert!(told.is_ok());
    }

    /// Publishes deltas of that many bytes, as one batch.
    pub fn publish(&mut self, room: &RoomName, count: usize, bytes: usize) {
        let body = Bytes::from(format!("\"{}\"", "x".repeat(bytes)));
        let delta = NewDelta {
            room: room.clone(),
            body,
            key: None,
            info: Bytes::new(),
            exclude: None,
        };
        let now = wall_clock_ms();
        let pending = self.publisher.submit(vec![delta; count], now).unwrap();
        while let Next::Batch(batch) = self.log.next(Duration::ZERO) {
            self.pipeline.take(batch, now);
        }
        drop(pending);
    }
}

/// The id of a hub for clients who speak JSON.
pub fn hub_id(number: usize) -> HubId {
    HubId {
        number,
        format: Format::JSON,
    }
}

pub fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

/// A fresh subscription; its command is the session's number.
pub fn fresh(session: u64) -> Join {
    Join {
        sub: SubId { session, number: 1 },
        hub: hub_id(0),
        command: session as u32,
        start: Start::Now,
        lasting: Default::default(),
        must_recover: false,
        join_leave: false,
        is_named: false,
        info: None,
    }
}

/// A subscription that recovers what comes behind `offset`.
pub fn from(session: u64, offset: u64) -> Join {
    let epoch = "".into();
    Join {
        start: Start::Behind(Recover { offset, epoch }),
        ..fresh(session)
    }
}

/// Lets everything run on this thread that can.
pub async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

thread_local! {
    static WRITES: Cell<u64> = const { Cell::new(0) };
}

/// Writes down what it is told.
#[derive(Default)]
pub struct Recorder {
    frames: RefCell<Vec<Bytes>>,
    /// When the last frame came, counted in the frames of all wires.
    pub last_write: Cell<u64>,
    came: Notify,
    /// Nothing that it was given is taken yet.
    pub busy: Cell<bool>,
    pub pings: Cell<u32>,
    lacks_pong: Cell<bool>,
    pub closed: RefCell<Option<Disconnect>>,
    pub ended: RefCell<Vec<u32>>,
    pub failed: RefCell<Vec<RoomName>>,
}

impl Recorder {
    /// The messages of each frame that has come.
    pub fn take(&self) -> Vec<Vec<Value>> {
        let frames = self.frames.take();
        let messages = |frame: &Bytes| {
            let start = frame.windows(2).position(|pair| pair == b"{\"").unwrap();
            let lines = frame[start..].split(|&byte| byte == b'\n');
            lines
                .map(|line| serde_json::from_slice(line).unwrap())
                .collect()
        };
        frames.iter().map(messages).collect()
    }

    /// Waits for frames, and takes them.
    pub async fn next(&self) -> Vec<Vec<Value>> {
        let came = async {
            while self.frames.borrow().is_empty() {
                self.came.notified().await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, came).await;
        waited.expect("nothing came");
        self.take()
    }

    pub fn closed_with(&self) -> Option<u16> {
        self.closed.borrow().map(|why| why.code)
    }
}

impl SessionWire for Recorder {
    fn push(&self, frame: &Bytes) {
        self.frames.borrow_mut().push(frame.clone());
        self.last_write.set(WRITES.get() + 1);
        WRITES.set(self.last_write.get());
        self.came.notify_one();
    }

    fn is_behind(&self, _: usize) -> bool {
        self.busy.get()
    }

    fn can_take_page(&self) -> bool {
        !self.busy.get()
    }

    fn subscription_ended(&self, number: u32) {
        self.ended.borrow_mut().push(number);
    }

    fn room_failed(&self, room: &RoomName) {
        self.failed.borrow_mut().push(room.clone());
    }

    fn revoked(&self, _: &RoomName) {}

    fn ping(&self, _: &Bytes) {
        self.pings.set(self.pings.get() + 1);
        self.lacks_pong.set(true);
    }

    fn pong(&self) {
        self.lacks_pong.set(false);
    }

    fn lacks_pong(&self) -> bool {
        self.lacks_pong.get()
    }

    fn close(&self, why: Disconnect) {
        self.closed.borrow_mut().get_or_insert(why);
    }
}

/// The offsets of all deltas in these frames, pushed or in a reply.
pub fn offsets(frames: &[Vec<Value>]) -> Vec<u64> {
    let of_message = |message: &Value| {
        let replayed = message["subscribe"]["publications"].as_array();
        let pushed = message["push"].get("pub");
        let publications = replayed.into_iter().flatten().chain(pushed);
        let offsets = publications.map(|publication| publication["offset"].as_u64().unwrap());
        offsets.collect::<Vec<_>>()
    };
    frames.iter().flatten().flat_map(of_message).collect()
}
