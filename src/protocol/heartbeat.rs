//! The ping wheel: when each session of a worker is pinged, and whether its pong came, with one timer for all of them.
//!
//! A wheel turns one slot a second. A session sits in one slot for its life and is pinged whenever the wheel passes it,
//! traffic or not: most SDKs count nothing but pings as a sign of life.

use std::time::Duration;

/// What is due at one turn.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Sessions to ping.
    pub ping: Vec<u64>,
    /// Sessions that were pinged `pong_timeout` ago.
    pub check: Vec<u64>,
}

#[derive(Debug)]
pub struct PingWheel {
    slots: Vec<Vec<u64>>,
    now: usize,
    pong_after: usize,
}

impl PingWheel {
    /// Whole seconds count; `pong_timeout` is shorter than `interval`.
    pub fn new(interval: Duration, pong_timeout: Duration) -> Self {
        let slots = interval.as_secs().max(1) as usize;
        Self {
            slots: vec![Vec::new(); slots],
            now: 0,
            pong_after: (pong_timeout.as_secs().max(1) as usize).min(slots),
        }
    }

    /// Adds a session. The first ping comes after half to a whole interval, by `random`, so that sessions which came
    /// together are not pinged together. Returns the slot, for [`PingWheel::remove`].
    pub fn add(&mut self, session: u64, random: u64) -> usize {
        let slots = self.slots.len();
        let half = slots.div_ceil(2);
        let wait = half + (random % (slots - half + 1) as u64) as usize;
        let slot = (self.now + wait) % slots;
        self.slots[slot].push(session);
        slot
    }

    pub fn remove(&mut self, session: u64, slot: usize) {
        if let Some(at) = self.slots[slot].iter().position(|&there| there == session) {
            self.slots[slot].swap_remove(at);
        }
    }

    /// One second later.
    pub fn turn(&mut self) -> Turn {
        let slots = self.slots.len();
        self.now = (self.now + 1) % slots;
        Turn {
            check: self.slots[(self.now + slots - self.pong_after) % slots].clone(),
            ping: self.slots[self.now].clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_pinged_once_an_interval_from_its_second_half_on() {
        for random in 0..100 {
            let mut wheel = PingWheel::new(Duration::from_secs(25), Duration::from_secs(8));
            for _ in 0..random % 7 {
                wheel.turn();
            }
            wheel.add(1, random);
            let pings: Vec<usize> = (1..=75).filter(|_| !wheel.turn().ping.is_empty()).collect();
            assert_eq!(pings.len(), 3);
            assert!((13..=25).contains(&pings[0]), "first ping at {}", pings[0]);
            assert_eq!((pings[1] - pings[0], pings[2] - pings[1]), (25, 25));
        }
    }

    #[test]
    fn a_pong_is_looked_for_after_its_timeout_and_never_after_removal() {
        let mut wheel = PingWheel::new(Duration::from_secs(10), Duration::from_secs(3));
        let slot = wheel.add(7, 0);
        let mut pinged = None;
        for second in 1..=20 {
            let turn = wheel.turn();
            if turn.ping == [7] && pinged.is_none() {
                pinged = Some(second);
            }
            if let Some(at) = pinged.filter(|at| second == at + 3) {
                assert_eq!(turn.check, [7], "pinged at {at}");
            }
        }
        assert!(pinged.is_some());
        wheel.remove(7, slot);
        assert!((0..20).all(|_| wheel.turn() == Turn::default()));
    }
}
