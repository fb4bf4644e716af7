//! Brokers, instances, and the lines between them.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    common::{Broker, Server, proxy::Proxy, server::deltas_of},
    plan::{INSTANCES, NODES},
    random::Random,
};

/// Longer than anything takes to be as before, on a busy machine.
pub const OUTAGE: Duration = Duration::from_secs(150);

/// What an instance has to answer within, or somebody else is asked.
pub const IMPATIENCE: Duration = Duration::from_secs(5);

/// A room that only shows whether publishing works.
const PROBE: &str = "probe";

pub struct World {
    pub broker: Broker,
    pub prefix: String,
    instances: Vec<Instance>,
    /// Told to publishers: finish what is begun.
    pub is_over: AtomicBool,
    pub counts: Counts,
}

struct Instance {
    server: Mutex<Server>,
    address: SocketAddr,
    /// One line to each broker.
    lines: Vec<Proxy>,
}

/// What a run has done so far.
#[derive(Default)]
pub struct Counts {
    pub published: AtomicU64,
    pub delivered: AtomicU64,
    /// Times that a client went to another instance, or came back to its own.
    pub moves: AtomicU64,
    /// Rooms that a client came back to with a position.
    pub replays: AtomicU64,
    /// Publishes that had to be repeated.
    pub repeats: AtomicU64,
}

impl Counts {
    pub fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

impl World {
    pub fn start() -> Self {
        let broker = Broker::start(NODES);
        let prefix = Broker::unique_prefix();
        let instances: Vec<Instance> = thread::scope(|scope| {
            let start = |number| {
                let (broker, prefix) = (&broker, &prefix);
                scope.spawn(move || Instance::start(broker, prefix, number))
            };
            let starting: Vec<_> = (0..INSTANCES).map(start).collect();
            let started = starting.into_iter().map(|instance| instance.join());
            started
                .map(|instance| instance.expect("it starts"))
                .collect()
        });
        let world = Self {
            broker,
            prefix,
            instances,
            is_over: AtomicBool::new(false),
            counts: Counts::default(),
        };
        world.await_publishing();
        world.broker.settle();
        world
    }

    pub fn any(&self, random: &mut Random) -> SocketAddr {
        self.instances[random.below(INSTANCES as u64) as usize].address
    }

    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.instances.iter().map(|instance| instance.address)
    }

    pub fn server(&self, instance: usize) -> MutexGuard<'_, Server> {
        let server = self.instances[instance].server.lock();
        server.expect("no fault panics")
    }

    /// The instance that takes in what comes through the exchange.
    pub fn holder(&self) -> Option<usize> {
        let holds = |n: &usize| self.server(*n).metric("roomwire_ingress_holds") == 1.0;
        (0..INSTANCES).find(holds)
    }

    /// The lines of an instance to the brokers.
    pub fn lines(&self, instance: usize) -> &[Proxy] {
        &self.instances[instance].lines
    }

    /// Waits until every instance publishes, and says how long that took.
    pub fn await_publishing(&self) -> Duration {
        let start = Instant::now();
        for instance in 0..INSTANCES {
            let mut http = self.server(instance).http().wait_at_most(IMPATIENCE);
            loop {
                let reply = http.try_request("POST", &deltas_of(PROBE), &[], b"1");
                match reply {
                    Ok(reply) if reply.status == 201 => break,
                    _ => thread::sleep(Duration::from_millis(50)),
                }
                assert!(
                    start.elapsed() < OUTAGE,
                    "instance {instance} does not publish: {reply:?}"
                );
            }
        }
        start.elapsed()
    }
}

impl Instance {
    fn start(broker: &Broker, prefix: &str, number: usize) -> Self {
        let lines: Vec<Proxy> = broker.addresses().map(Proxy::to).collect();
        // Each begins with another broker.
        let urls: Vec<String> = (0..NODES)
            .map(|turn| lines[(number + turn) % NODES].address())
            .map(|address| format!("\"amqp://guest:guest@{address}\""))
            .collect();
        let server = Server::start_at_fixed_port(&format!(
            "[limits]\nping_interval = \"10s\"\n\
             [rooms]\nlinger = \"1s\"\n\
             [amqp]\nurl = [{}]\nprefix = \"{prefix}\"\nheartbeat = \"1s\"\n\
             [namespaces.default]\nhistory_size = 1000000\nhistory_bytes = \"1GiB\"\n",
            urls.join(", ")
        ));
        Self {
            address: server.address(),
            server: Mutex::new(server),
            lines,
        }
    }
}
