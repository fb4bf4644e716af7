//! Figures of presence and of the way to other servers.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::{counter, counters, options, registered};

#[derive(Debug, Clone)]
pub struct PresenceFigures {
    instances: IntGauge,
    events_due: IntGauge,
    events: IntCounter,
    dropped_pushes: IntCounter,
    dropped_events: IntCounter,
    dropped_ephemerals: IntCounter,
    bus_connected: IntGauge,
    bus_lost: IntCounter,
    bus_refused: IntCounter,
}

impl PresenceFigures {
    pub(super) fn new(on: &Registry) -> Self {
        let gauge = |name, help| registered(on, IntGauge::with_opts(options(name, help)));
        let dropped: IntCounterVec = counters(
            on,
            "presence_dropped_total",
            "What presence gave up because too much was waiting",
            "what",
        );
        Self {
            instances: gauge("presence_instances", "Other servers that are known to live"),
            events_due: gauge(
                "presence_events_due",
                "Events that the backend is not known to have been told",
            ),
            events: counter(
                on,
                "presence_events_total",
                "Events that the broker has confirmed to this server",
            ),
            dropped_pushes: dropped.with_label_values(&["push"]),
            dropped_events: dropped.with_label_values(&["event"]),
            dropped_ephemerals: dropped.with_label_values(&["ephemeral"]),
            bus_connected: gauge("bus_connected", "Whether messages of other servers come"),
            bus_lost: counter(
                on,
                "bus_lost_connections_total",
                "Connections to other servers that were lost",
            ),
            bus_refused: counter(
                on,
                "bus_unreadable_total",
                "Messages of other servers that can't be read",
            ),
        }
    }

    /// How things stand, and what was given up since the last call.
    pub fn presence(&self, instances: usize, due: usize, (pushes, events): (u64, u64)) {
        self.instances
            .set(i64::try_from(instances).unwrap_or(i64::MAX));
        self.events_due.set(i64::try_from(due).unwrap_or(i64::MAX));
        self.dropped_pushes.inc_by(pushes);
        self.dropped_events.inc_by(events);
    }

    pub fn event_sent(&self) {
        self.events.inc();
    }

    pub fn ephemeral_dropped(&self) {
        self.dropped_ephemerals.inc();
    }

    pub fn bus_connected(&self) {
        self.bus_connected.set(1);
    }

    pub fn bus_lost(&self) {
        self.bus_connected.set(0);
        self.bus_lost.inc();
    }

    pub fn bus_unreadable(&self) {
        self.bus_refused.inc();
    }
}
