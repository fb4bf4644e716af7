//! What the backend hears of: rooms that are occupied or not, users who are online or not.
//!
//! All instances that know of a subject agree on whether it is there, and remember what the backend was told of it last.
//! Where the two differ an event is due. The instance that is first in a rank, another one for each subject, sends it
//! and tells the others; each of the others has it due some time later, so that it is sent whoever fails. So every event
//! is sent at least once. Of what comes and goes before an event could be sent, only the end is told.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use indexmap::IndexSet;
use serde::{Deserialize, Serialize};

use super::entry::{Fnv, InstanceId};
use crate::delta::RoomName;

/// Subjects whose event may be due, as when no broker is there for long. Beyond it the oldest is given up.
const MAX_DUE: usize = 100_000;

/// Subjects that are looked at in one go.
const LOOK: usize = 10_000;

/// Subjects that are remembered as gone, because this instance has told the backend so.
const MAX_DENIED: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    Room(RoomName),
    User(Arc<str>),
}

/// What the backend is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub subject: Subject,
    /// Occupied, or online.
    pub present: bool,
}

#[derive(Debug)]
struct State {
    /// Instances that have it.
    here: u32,
    /// It is there, or has not been missed yet.
    present: bool,
    /// What the backend knows, if that is known.
    told: Option<bool>,
    /// When it will be missed.
    leaves: Option<u64>,
    /// Since when an event is due.
    due: Option<u64>,
    /// It is on its way to the broker.
    sending: bool,
}

impl Default for State {
    /// One of which the backend was never told.
    fn default() -> Self {
        Self {
            here: 0,
            present: false,
            told: Some(false),
            leaves: None,
            due: None,
            sending: false,
        }
    }
}

#[derive(Debug)]
pub struct Subjects {
    grace: u64,
    states: HashMap<Subject, State>,
    leaving: BTreeSet<(u64, Subject)>,
    due: BTreeSet<(u64, Subject)>,
    /// Those of which this instance told the backend last that they are gone. One that did not hear of it, and has the
    /// subject, must tell the backend again. The oldest come first.
    denied: IndexSet<Subject>,
    given_up: u64,
}

/// When events are sent.
#[derive(Debug, Clone, Copy)]
pub struct Turns<'a> {
    pub own: InstanceId,
    /// All that are known to live, this one among them.
    pub live: &'a [InstanceId],
    /// Since when these are known, in ms.
    pub since: u64,
    /// What is due must first be known to all, for so many ms.
    pub settle: u64,
    /// How much later each is to send than the one before it, in ms.
    pub step: u64,
}

impl Subjects {
    /// `grace` in ms.
    pub fn new(grace: u64) -> Self {
        Self {
            grace,
            states: HashMap::new(),
            leaving: BTreeSet::new(),
            due: BTreeSet::new(),
            denied: IndexSet::new(),
            given_up: 0,
        }
    }

    /// Whether the backend was told that it is there.
    pub fn is_told(&self, subject: &Subject) -> bool {
        let state = self.states.get(subject);
        state.is_some_and(|state| state.told == Some(true))
    }

    /// An instance has it that did not, and takes the backend for `told` of it. Whether it is mistaken in that, and must
    /// hear so.
    pub fn appear(&mut self, now: u64, subject: &Subject, told: bool) -> bool {
        let is_mistaken = told && self.denied.shift_remove(subject);
        // What was told of it may be known already, from before it was missed.
        let state = self.states.entry(subject.clone()).or_default();
        state.here += 1;
        state.present = true;
        if told && !is_mistaken {
            state.told = Some(true);
        }
        if let Some(when) = state.leaves.take() {
            self.leaving.remove(&(when, subject.clone()));
        }
        self.settle(now, subject);
        is_mistaken
    }

    /// An instance has it no more.
    pub fn vanish(&mut self, now: u64, subject: &Subject) {
        if let Some(state) = self.states.get_mut(subject) {
            state.here -= 1;
            if state.here == 0 {
                let when = now + self.grace;
                state.leaves = Some(when);
                self.leaving.insert((when, subject.clone()));
            }
        }
    }

    /// This instance has told the backend. What is so no more is due again.
    pub fn sent(&mut self, now: u64, event: &Event) {
        self.said(now, event);
        if !event.present {
            self.denied.insert(event.subject.clone());
            if self.denied.len() > MAX_DENIED {
                self.denied.shift_remove_index(0);
            }
        }
    }

    /// Somebody has told the backend. What is so no more is due again.
    pub fn said(&mut self, now: u64, event: &Event) {
        self.denied.shift_remove(&event.subject);
        if !event.present && !self.states.contains_key(&event.subject) {
            return;
        }
        let is_unknown = !self.states.contains_key(&event.subject);
        let state = self.states.entry(event.subject.clone()).or_default();
        state.told = Some(event.present);
        state.sending = false;
        if is_unknown {
            // Its instance has not been heard of yet. If that never comes, it is missed like any other.
            let when = now + self.grace;
            state.present = true;
            state.leaves = Some(when);
            self.leaving.insert((when, event.subject.clone()));
        }
        self.settle(now, &event.subject);
    }

    /// An event did not come to the broker; it stays due.
    pub fn unsaid(&mut self, event: &Event) {
        if let Some(state) = self.states.get_mut(&event.subject) {
            state.sending = false;
        }
    }

    /// Misses those whose grace is over.
    pub fn tick(&mut self, now: u64) {
        while self.leaving.first().is_some_and(|(when, _)| *when <= now)
            && let Some((_, subject)) = self.leaving.pop_first()
        {
            if let Some(state) = self.states.get_mut(&subject) {
                state.leaves = None;
                state.present = false;
                // Whoever was to tell that it is there may have done so and not have lived to say it.
                if state.due.is_some() {
                    state.told = None;
                }
            }
            self.settle(now, &subject);
        }
    }

    /// Events that this instance is to send now, at most `most`: those where it comes first, and those that were due for
    /// so long that the instances before it must have failed.
    pub fn send(&mut self, now: u64, turns: Turns<'_>, most: usize) -> Vec<Event> {
        let mut events = Vec::new();
        for (due, subject) in self.due.iter().take(LOOK) {
            if events.len() == most {
                break;
            }
            let Some(state) = self.states.get_mut(subject) else {
                continue;
            };
            let rank = rank(subject, turns.own, turns.live);
            let since = (due + turns.settle).max(turns.since);
            if state.sending || now < since + rank * turns.step {
                continue;
            }
            state.sending = true;
            events.push(Event {
                subject: subject.clone(),
                present: state.present,
            });
        }
        events
    }

    /// Events that are due.
    pub fn due(&self) -> usize {
        self.due.len()
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.states.is_empty() && self.leaving.is_empty()
    }

    /// How many events were given up since the last call.
    pub fn take_given_up(&mut self) -> u64 {
        std::mem::take(&mut self.given_up)
    }

    fn settle(&mut self, now: u64, subject: &Subject) {
        let Some(state) = self.states.get_mut(subject) else {
            return;
        };
        let differs = state.told != Some(state.present);
        match state.due {
            None if differs => {
                state.due = Some(now);
                self.due.insert((now, subject.clone()));
            }
            Some(since) if !differs => {
                state.due = None;
                self.due.remove(&(since, subject.clone()));
            }
            _ => {}
        }
        if !differs && !state.present && state.here == 0 && state.leaves.is_none() {
            self.states.remove(subject);
        }
        if self.due.len() > MAX_DUE
            && let Some((_, oldest)) = self.due.pop_first()
            && let Some(state) = self.states.get_mut(&oldest)
        {
            self.given_up += 1;
            state.due = None;
            state.told = Some(state.present);
            if !state.present && state.here == 0 {
                self.states.remove(&oldest);
            }
        }
    }
}

/// How many of `live` come before `own`.
fn rank(subject: &Subject, own: InstanceId, live: &[InstanceId]) -> u64 {
    let weight = |instance: InstanceId| {
        let mut hash = Fnv::default();
        match subject {
            Subject::Room(room) => hash.text(1, room.as_str()),
            Subject::User(user) => hash.text(2, user),
        }
        hash.bytes(&instance.0.to_be_bytes());
        (hash.0, instance)
    };
    let mine = weight(own);
    live.iter().filter(|of| weight(**of) > mine).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_before_anybody_could_tell_the_backend_anything_is_told_all_the_same() {
        let (mut subjects, user) = (Subjects::new(5_000), Subject::User("ann".into()));
        let (own, live) = (InstanceId(1), [InstanceId(1)]);
        subjects.appear(0, &user, false);
        subjects.vanish(1_000, &user);
        subjects.tick(6_000);
        subjects.appear(7_000, &user, false);
        let turns = Turns {
            own,
            live: &live,
            since: 0,
            settle: 0,
            step: 0,
        };
        let present = true;
        let events = subjects.send(8_000, turns, 10);
        assert_eq!(
            events,
            [Event {
                subject: user,
                present
            }]
        );
        subjects.sent(8_000, &events[0]);
        assert_eq!(subjects.due(), 0);
    }
}
