//! What a pipeline does with a log that is kept: it waits rather than pass over anything, reads again
//! what it has lost, and begins anew with the log.

use super::Pipeline;
use crate::{
    delta::Epoch,
    log::{
        Event,
        publisher::{PublishError, Refusal},
        record::Entry,
    },
};

impl Pipeline {
    /// Whether the log is better left alone, as what is read from it could not be written. Only a
    /// kept log waits.
    pub fn holds_back(&mut self, now: u64) -> bool {
        if self.kept().is_none() {
            return false;
        }
        let refusal = if !self.is_open(now) {
            let why = Refusal::Reopening;
            Some(PublishError::NotTaken { why })
        } else if !self.has_space() {
            Some(PublishError::NoSpace)
        } else {
            None
        };
        let held = refusal.is_some();
        let ahead = || {
            let by = self.clocks.ahead(now)?;
            let why = Refusal::ClockAhead { by };
            Some(PublishError::NotTaken { why })
        };
        let refusal = refusal.or_else(ahead);
        self.parts.answers.refuse(refusal);
        held
    }

    /// Compares this machine's clock with those of other instances.
    pub(super) fn hear(&mut self, batch: &[Event], now: u64) {
        let Some(kept) = self.parts.log.kept() else {
            return;
        };
        let status = kept.status();
        for event in batch {
            // What was written before we began to read may be old.
            if let Event::Entry { position, entry } = event
                && let Entry::Heartbeat(heartbeat) = entry
                && status.end > 0
                && *position > status.end
                && !kept.is_own(heartbeat)
            {
                self.clocks.heard(heartbeat.stamped, now, status.lag);
            }
        }
    }

    /// The log has begun another life: the histories do, too.
    pub(super) fn begin_life(&mut self, epoch: Epoch, now: u64) {
        tracing::warn!(
            partition = self.parts.writer.partition(),
            epoch = %epoch,
            "the log begins anew, and all clients are told to reload"
        );
        self.next_life = Some(epoch);
        if self.failure.is_none() {
            self.resume(now);
        }
    }

    /// Has a kept log read again from where the database is; whether the database lets it.
    pub(super) fn resume(&mut self, now: u64) -> bool {
        let renewed = self.next_life.is_some();
        if let Some(epoch) = self.next_life.clone() {
            if let Err(error) = self.parts.writer.renew(epoch) {
                self.fail(&error, now);
                return false;
            }
            self.next_life = None;
        }
        let writer = &self.parts.writer;
        let (epoch, place, checkpoint) = (writer.epoch(), writer.place(), writer.checkpoint());
        if let Some(kept) = self.parts.log.kept() {
            let resume = || kept.resume(&epoch, place);
            self.parts.answers.begin_life(resume);
        }
        self.tell_tenure();
        self.positions.durable.send_replace(checkpoint);
        if renewed {
            self.parts.dispatch.reset();
        }
        self.positions.dispatched.send_replace(checkpoint);
        true
    }
}
