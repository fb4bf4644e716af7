//! How much of everything, and for how long.

use std::{env, time::Duration};

/// Nodes of the broker, and servers that share the log on them.
pub const NODES: usize = 3;
pub const INSTANCES: usize = 3;

/// The sizes of one run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides every choice but the machine's own.
    pub seed: u64,
    /// Faults begin as long as this has not passed.
    pub duration: Duration,
    pub clients: usize,
    pub publishers: usize,
    /// Who publishes to the exchange.
    pub producers: usize,
    pub rooms: usize,
    /// Rooms that each client follows.
    pub followed: usize,
    /// Between two deltas of one publisher.
    pub pause: Duration,
    /// How long an instance is cut off or frozen.
    pub outage: Duration,
    /// Undisturbed time between two faults.
    pub rest: Duration,
    /// Whether somebody watches.
    pub watched: bool,
}

impl Plan {
    /// Every fault once, with few clients: as part of all tests. `SOAK_MINUTES` asks for a
    /// long run, and `SOAK_SEED` for one that was seen before.
    pub fn from_environment() -> Self {
        let number = |name: &str| {
            let text = env::var(name).ok()?;
            let number = text.parse();
            Some(number.unwrap_or_else(|_| panic!("{name} is {text}, must be a whole number")))
        };
        let seed = number("SOAK_SEED").unwrap_or_else(random_seed);
        match number("SOAK_MINUTES") {
            Some(minutes) => Self::long(seed, Duration::from_secs(minutes * 60)),
            None => Self::short(seed),
        }
    }

    fn short(seed: u64) -> Self {
        Self {
            seed,
            duration: Duration::ZERO,
            clients: 60,
            publishers: 12,
            producers: 2,
            rooms: 20,
            followed: 3,
            pause: Duration::from_millis(100),
            outage: Duration::from_secs(5),
            rest: Duration::from_secs(1),
            watched: false,
        }
    }

    fn long(seed: u64, duration: Duration) -> Self {
        Self {
            seed,
            duration,
            clients: 200,
            publishers: 20,
            producers: 4,
            rooms: 50,
            followed: 4,
            pause: Duration::from_millis(100),
            outage: Duration::from_secs(20),
            rest: Duration::from_secs(5),
            watched: true,
        }
    }

    /// The name of each room.
    pub fn room(n: u64) -> String {
        format!("room{n}")
    }
}

fn random_seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0 % 1_000_000
}
