//! Taking in what other producers sent, for as long as nobody else does.
//!
//! Who takes in holds a tenure. It begins with a fence in every partition, from which on readers
//! ignore what earlier tenures take in; so a holder that was paused, and does not know yet that it
//! was replaced, appends nothing that counts. A tenure whose fence was read back by its holder is
//! in force until another's is read, or until some of what it handed over is lost.

pub mod status;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    publisher::{Answer, Answers, NewDelta, Numbers, PublishError, Publisher, Source, record},
    record::{Entry, Fence},
};
use crate::delta::partition_of;

/// One tenure, over all partitions of a shared log.
pub struct Tenure {
    id: u128,
    parts: Vec<Part>,
}

/// What a tenure does in one partition.
struct Part {
    publisher: Publisher,
    numbers: Numbers,
    /// Of [`State::lives`](super::publisher::State::lives), when the tenure began.
    life: u64,
}

/// A delta that was handed to the log: tells where it was applied. Nobody knows what became of a
/// delta whose tenure ended.
pub struct TakenIn(oneshot::Receiver<Answer>);

impl Tenure {
    /// None if the log is nobody else's.
    pub(super) fn new(publishers: &[Publisher]) -> Option<Self> {
        let part = |publisher: &Publisher| {
            publisher.log.kept()?;
            Some(Part {
                publisher: publisher.clone(),
                numbers: Numbers::new(),
                life: publisher.answers.lock().lives,
            })
        };
        Some(Self {
            id: Uuid::new_v4().as_u128(),
            parts: publishers.iter().map(part).collect::<Option<_>>()?,
        })
    }

    pub fn id(&self) -> u128 {
        self.id
    }

    /// Puts the fence into every partition, stamped with `now` (ms since the Unix epoch). Nothing
    /// may be handed over before it was read back in all of them.
    pub fn fence(&self, now: u64) -> Result<(), PublishError> {
        let fence = Fence {
            tenure: self.id,
            stamped: now,
        };
        self.parts.iter().try_for_each(|part| part.fence(fence))
    }

    /// Hands one delta to the log, behind all that were handed over before.
    pub fn submit(&mut self, delta: NewDelta, now: u64) -> Result<TakenIn, PublishError> {
        let partitions = u16::try_from(self.parts.len()).expect("partitions are numbered by u16");
        let partition = usize::from(partition_of(&delta.room, partitions));
        self.parts[partition].submit(self.id, delta, now)
    }
}

impl Part {
    fn fence(&self, fence: Fence) -> Result<(), PublishError> {
        let state = self.publisher.answers.lock();
        if let Some(refusal) = &state.refusal {
            return Err(refusal.clone());
        }
        self.append(Entry::Fence(fence))
    }

    fn submit(&mut self, tenure: u128, delta: NewDelta, now: u64) -> Result<TakenIn, PublishError> {
        let mut record = record(delta, now);
        // Numbering and handing over are one step, and so is looking whether something was lost.
        let mut state = self.publisher.answers.lock();
        if let Some(refusal) = &state.refusal {
            return Err(refusal.clone());
        }
        if state.lives != self.life {
            return Err(PublishError::OutcomeUnknown);
        }
        self.numbers.after_pause(now);
        record.producer = self.numbers.producer;
        record.sequence = self.numbers.next_sequence;
        let source = Source {
            producer: record.producer,
            sequence: record.sequence,
        };
        let (sender, receiver) = oneshot::channel();
        state.taken_in.insert(source, (tenure, sender));
        let entry = Entry::Delta {
            record,
            tenure: Some(tenure),
        };
        if let Err(error) = self.append(entry) {
            state.taken_in.remove(&source);
            return Err(error);
        }
        drop(state);
        self.numbers.next_sequence += 1;
        self.numbers.last_taken = now;
        Ok(TakenIn(receiver))
    }

    fn append(&self, entry: Entry) -> Result<(), PublishError> {
        let Some(kept) = self.publisher.log.kept() else {
            return Err(PublishError::OutcomeUnknown);
        };
        let appended = kept.append(vec![entry]);
        appended.map_err(|why| PublishError::NotTaken { why: why.into() })
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        for part in &self.parts {
            part.publisher.answers.forget(self.id);
        }
    }
}

impl Answers {
    /// Nobody waits any more for what the tenure handed over.
    fn forget(self: &Arc<Self>, tenure: u128) {
        self.lock().taken_in.retain(|_, (of, _)| *of != tenure);
    }
}

impl Future for TakenIn {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let answer = Pin::new(&mut self.0).poll(context);
        answer.map(|answer| answer.unwrap_or(Err(PublishError::OutcomeUnknown)))
    }
}
