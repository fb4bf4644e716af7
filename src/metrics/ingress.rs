//! How a server takes in what other producers publish.

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Registry};

use super::{counters, options, registered};
use crate::log::tenure::status::Figures;

/// Without a label, yet as vectors: those show nothing of a server that takes nothing in.
#[derive(Debug, Clone)]
pub(super) struct Ingress {
    connected: IntGaugeVec,
    holds: IntGaugeVec,
    tenures: IntCounterVec,
    messages: IntCounterVec,
    in_flight: IntGaugeVec,
    waiting: IntGaugeVec,
    stalled_seconds: GaugeVec,
}

impl Ingress {
    pub fn new(on: &Registry) -> Self {
        let gauge =
            |name, help| registered(on, IntGaugeVec::new(options(name, help), &[] as &[&str]));
        let tenures = options(
            "ingress_tenures_total",
            "How often the server has begun to take in",
        );
        let stalled = options(
            "ingress_stalled_seconds",
            "Seconds for which no message in flight has got on",
        );
        Self {
            connected: gauge(
                "ingress_connected",
                "Whether the server waits for other producers' messages",
            ),
            holds: gauge(
                "ingress_holds",
                "Whether it is this server that takes them in",
            ),
            tenures: registered(on, IntCounterVec::new(tenures, &[])),
            messages: counters(
                on,
                "ingress_messages_total",
                "Other producers' messages, by what became of them",
                "result",
            ),
            in_flight: gauge("ingress_in_flight", "Messages that are being taken in"),
            waiting: gauge(
                "ingress_waiting",
                "Messages in the queue that no server has",
            ),
            stalled_seconds: registered(on, GaugeVec::new(stalled, &[])),
        }
    }

    pub fn show(&self, figures: &Figures) {
        let set = |gauges: &IntGaugeVec, value: i64| gauges.with_label_values(NONE).set(value);
        let in_flight = i64::try_from(figures.in_flight).unwrap_or(i64::MAX);
        set(&self.connected, figures.connected.into());
        set(&self.holds, figures.holds.into());
        set(&self.in_flight, in_flight);
        set(&self.waiting, figures.waiting.into());
        let raise = |counters: &IntCounterVec, labels: &[&str], total: u64| {
            let counter = counters.with_label_values(labels);
            counter.inc_by(total.saturating_sub(counter.get()));
        };
        raise(&self.tenures, NONE, figures.tenures);
        raise(&self.messages, &["taken"], figures.taken);
        raise(&self.messages, &["rejected"], figures.rejected);
        let stalled = figures.stalled.as_secs_f64();
        self.stalled_seconds.with_label_values(NONE).set(stalled);
    }
}

const NONE: &[&str] = &[];
