//! What may happen next.

use crate::random::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Publish,
    Erase,
    Pipeline,
    Tend,
    Clock,
    Room,
    FlushRoom,
    ReadPage,
    BringPage,
    CatchUp,
    RetireRoom,
    HubMailbox,
    WalkHub,
    FlushWire,
    Session,
    EndSession,
    ClientReads,
    Connect,
    Disconnect,
    Subscribe,
    Unsubscribe,
    Resubscribe,
    PublishEphemeral,
    Crash,
    Fault,
    FailRoom,
}

/// How often each kind is tried.
const WEIGHTS: [(Kind, u64); 26] = [
    (Kind::Publish, 30),
    (Kind::Erase, 3),
    (Kind::Pipeline, 60),
    (Kind::Tend, 6),
    (Kind::Clock, 8),
    (Kind::Room, 54),
    (Kind::FlushRoom, 36),
    (Kind::ReadPage, 15),
    (Kind::BringPage, 15),
    (Kind::CatchUp, 6),
    (Kind::RetireRoom, 3),
    (Kind::HubMailbox, 30),
    (Kind::WalkHub, 30),
    (Kind::FlushWire, 30),
    (Kind::Session, 24),
    (Kind::EndSession, 9),
    (Kind::ClientReads, 36),
    (Kind::Connect, 18),
    (Kind::Disconnect, 2),
    (Kind::Subscribe, 16),
    (Kind::Unsubscribe, 3),
    (Kind::Resubscribe, 6),
    (Kind::PublishEphemeral, 6),
    (Kind::Crash, 1),
    (Kind::Fault, 1),
    (Kind::FailRoom, 1),
];

/// A kind, and two numbers from which it takes its particulars.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub kind: Kind,
    pub a: u16,
    pub b: u16,
}

impl Step {
    /// Whether errors are no wonder after it. A crash is no such trouble: all connections end with it.
    pub fn is_trouble(self) -> bool {
        matches!(self.kind, Kind::Fault | Kind::FailRoom)
    }
}

/// Draws steps, by weights that differ from one seed to the next: so that in some worlds clients hardly read, in others
/// hubs lag behind rooms, and so on.
pub struct Steps {
    random: Random,
    weights: Vec<(Kind, u64)>,
    total: u64,
}

impl Steps {
    pub fn of_seed(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let calm = random.below(3) > 0;
        let mut weights = WEIGHTS.to_vec();
        for (kind, weight) in &mut weights {
            *weight *= [5, 5, 5, 15, 1][random.below(5) as usize];
            if calm && matches!(kind, Kind::Fault | Kind::FailRoom) {
                *weight = 0;
            }
        }
        Self::new(random, weights)
    }

    /// One step from three numbers, by the plain weights.
    pub fn from_numbers(roll: u16, a: u16, b: u16) -> Step {
        let steps = Self::new(Random::new(0), WEIGHTS.to_vec());
        let kind = steps.kind(u64::from(roll) % steps.total);
        Step { kind, a, b }
    }

    pub fn draw(&mut self) -> Step {
        let roll = self.random.below(self.total);
        let numbers = self.random.next();
        Step {
            kind: self.kind(roll),
            a: numbers as u16,
            b: (numbers >> 16) as u16,
        }
    }

    fn new(random: Random, weights: Vec<(Kind, u64)>) -> Self {
        let total = weights.iter().map(|(_, weight)| weight).sum();
        Self {
            random,
            weights,
            total,
        }
    }

    fn kind(&self, mut roll: u64) -> Kind {
        for &(kind, weight) in &self.weights {
            match roll.checked_sub(weight) {
                Some(rest) => roll = rest,
                None => return kind,
            }
        }
        Kind::Clock
    }
}
