//! What a pipeline does with a log that is kept: it waits rather than pass over anything, reads again
//! what it has lost, and begins anew with the log.

use super::Pipeline;
use crate::{
    delta::Epoch,
    log::{
        Event,
        clocks::Ahead,
        publisher::{PublishError, Refusal},
        record::Entry,
    },
};

/// So many heartbeats of others that are there come while a newcomer listens.
const BEATS: u32 = 3;

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
        let refusal = refusal.or_else(|| {
            let why = self.mistrusts(now)?;
            Some(PublishError::NotTaken { why })
        });
        if let Some(why) = &refusal
            && self.parts.answers.refusal() != refusal
        {
            tracing::error!(partition = self.parts.writer.partition(), %why, "publishes are refused");
        }
        self.parts.answers.refuse(refusal);
        held
    }

    /// Why this server had better publish nothing, though it could.
    fn mistrusts(&mut self, now: u64) -> Option<Refusal> {
        let status = self.kept()?.status();
        if status.split {
            return Some(Refusal::Split);
        }
        if status.is_caught_up(self.parts.writer.checkpoint()) {
            self.clocks.listens(now);
        }
        self.clocks
            .ahead(now, status.heartbeat * BEATS)
            .map(|ahead| match ahead {
                Ahead::Others(by) => Refusal::ClockAhead { by },
                Ahead::Found(by) => Refusal::ClockUnproven { by },
            })
    }

    /// Compares this machine's clock with those of other instances.
    pub(super) fn hear(&mut self, batch: &[Event], now: u64) {
        let Some(kept) = self.parts.log.kept() else {
            return;
        };
        let status = kept.status();
        for event in batch {
            if let Event::Floor(floor @ 1..) = event
                && self.parts.writer.clock() > 0
            {
                tracing::warn!(
                    partition = self.parts.writer.partition(),
                    floor,
                    "retention has taken what this server had not read; a repeated idempotency \
                     key that went with it counts as new here, until the window is over"
                );
            }
            let Event::Entry { position, entry } = event else {
                continue;
            };
            // What was written before we began to read may be old.
            if status.end == 0 || *position <= status.end {
                if !matches!(entry, Entry::Heartbeat(beat) if kept.is_own(beat)) {
                    self.clocks.found(entry.stamped());
                }
            } else if let Entry::Heartbeat(heartbeat) = entry
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
