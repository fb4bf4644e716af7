//! What Prometheus is told: the names, labels and units of all figures.
//!
//! Deliveries are deltas times the sessions that they were written for. A replay is a `hit` if the
//! client gets all it missed, and a `miss` if it must reload. Publishing lasts from accepted to
//! durable; delivery from the stamp of a burst's first delta until it is written to the wires of
//! one worker, observed once a burst and worker.
//!
//! | Name | Kind, unit | Counts |
//! | --- | --- | --- |
//! | `roomwire_sessions{transport}` | gauge | sessions that are open |
//! | `roomwire_sessions_opened_total` | counter | sessions that were opened |
//! | `roomwire_sessions_closed_total{code}` | counter | ended sessions, by code or `client` |
//! | `roomwire_connections_refused_total{reason}` | counter | refused connections, by problem |
//! | `roomwire_rooms_active` | gauge | rooms that are in memory |
//! | `roomwire_room_failures_total` | counter | rooms that failed and were started anew |
//! | `roomwire_deltas_in_total{result}` | counter | deltas from publishers |
//! | `roomwire_large_deltas_total{namespace}` | counter | deltas that are larger than they should be |
//! | `roomwire_deltas_out_total` | counter | deliveries |
//! | `roomwire_slow_disconnects_total` | counter | sessions closed for not reading |
//! | `roomwire_slow_skips_total` | counter | subscriptions taken out of their rooms for not reading |
//! | `roomwire_replays_total{result}` | counter | returning clients, `hit` or `miss` |
//! | `roomwire_replayed_deltas_total` | counter | deltas that replays sent |
//! | `roomwire_publish_seconds` | histogram, seconds | publishing |
//! | `roomwire_delivery_seconds` | histogram, seconds | delivery |
//! | `roomwire_log_connected{partition}` | gauge, 0 or 1 | whether a shared log is read and takes deltas |
//! | `roomwire_log_lost_connections_total{partition}` | counter | connections to a shared log that were lost |
//! | `roomwire_log_behind{partition}` | gauge, entries | what is known to be in a shared log and is not read |
//! | `roomwire_log_lag_seconds{partition}` | gauge, seconds | how far the server is behind a shared log |
//! | `roomwire_log_confirms_total{partition}` | counter | entries that a shared log has confirmed |
//! | `roomwire_log_confirm_seconds_total{partition}` | counter, seconds | sum of the times that confirms took |
//! | `roomwire_presence_instances` | gauge | other servers that are known to live |
//! | `roomwire_presence_events_due` | gauge | events that the backend is not known to have been told |
//! | `roomwire_presence_events_total` | counter | events that the broker has confirmed to this server |
//! | `roomwire_presence_dropped_total{what}` | counter | pushes, events and ephemeral messages that were given up |
//! | `roomwire_bus_connected` | gauge, 0 or 1 | whether messages of other servers come |
//! | `roomwire_bus_lost_connections_total` | counter | connections to other servers that were lost |
//! | `roomwire_bus_unreadable_total` | counter | messages of other servers that can't be read |
//! | `roomwire_ingress_connected` | gauge, 0 or 1 | whether the server waits for other producers' messages |
//! | `roomwire_ingress_holds` | gauge, 0 or 1 | whether it is the server that takes them in |
//! | `roomwire_ingress_tenures_total` | counter | how often it has begun to take in |
//! | `roomwire_ingress_messages_total{result}` | counter | messages, `taken` or `rejected` |
//! | `roomwire_ingress_in_flight` | gauge | messages that are being taken in |
//! | `roomwire_ingress_waiting` | gauge | messages in the queue that no server has |
//! | `roomwire_ingress_stalled_seconds` | gauge, seconds | for how long no message in flight has got on |
//! | `roomwire_build_info{version}` | gauge, always 1 | which version runs |

mod ingress;
mod presence;

use std::time::Duration;

use self::presence::PresenceFigures;
use crate::{
    log::{LogStatus, publisher::PublishError, tenure::status::Figures},
    rooms::sequence::Tally,
};
use prometheus::{
    CounterVec, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Upper bounds in seconds. A group commit takes a fsync or two, 0.3 ms on a fast disk and 50 ms on
/// a slow one.
const PUBLISH_BUCKETS: [f64; 13] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];
/// Upper bounds in seconds. Stamps are whole milliseconds, so nothing below one is told apart.
const DELIVERY_BUCKETS: [f64; 11] = [
    0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0,
];

/// How a session's client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    WebSocket,
    /// A stream of server-sent events.
    Events,
    /// The client protocol in the body of one long answer, line by line.
    HttpStream,
    /// The same as server-sent events.
    SseStream,
    /// A poll while it is held.
    Poll,
}

impl Transport {
    /// As labels and logs have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Events => "sse",
            Self::HttpStream => "sdk_http_stream",
            Self::SseStream => "sdk_sse",
            Self::Poll => "poll",
        }
    }
}

/// What became of a delta that a publisher sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intake {
    /// Ordered and durable.
    Applied,
    /// Its idempotency key was seen before.
    Repeated,
    /// Refused by a full or closed log.
    NotTaken,
    /// Taken, but whether it became durable is not known.
    Unknown,
    /// Refused because the disk is full.
    NoSpace,
    /// Safe in a shared log, and not read back in time.
    Unplaced,
    /// For a room that stores nothing: handed to whoever is there.
    Passed,
    /// For a room that stores nothing, and that had no place for it.
    Dropped,
}

impl From<&PublishError> for Intake {
    fn from(error: &PublishError) -> Self {
        match error {
            PublishError::NotTaken { .. } => Self::NotTaken,
            PublishError::OutcomeUnknown => Self::Unknown,
            PublishError::NoSpace => Self::NoSpace,
            PublishError::Unplaced { .. } => Self::Unplaced,
        }
    }
}

/// Who ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// The server, with this code.
    Server(u16),
    /// The client, or the network. Its codes are no label: a client could make up any number of
    /// them.
    Client,
}

/// The figures of one server. Clones count into the same figures.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    websockets: IntGauge,
    event_streams: IntGauge,
    http_streams: IntGauge,
    sse_streams: IntGauge,
    polls: IntGauge,
    sessions_opened: IntCounter,
    closed_by_client: IntCounter,
    sessions_closed: IntCounterVec,
    connections_refused: IntCounterVec,
    rooms_active: IntGauge,
    room_failures: IntCounter,
    applied: IntCounter,
    repeated: IntCounter,
    not_taken: IntCounter,
    unknown: IntCounter,
    no_space: IntCounter,
    unplaced: IntCounter,
    passed: IntCounter,
    dropped: IntCounter,
    deltas_out: IntCounter,
    large_deltas: IntCounterVec,
    slow_disconnects: IntCounter,
    slow_skips: IntCounter,
    replay_hits: IntCounter,
    replay_misses: IntCounter,
    replayed_deltas: IntCounter,
    publish_seconds: Histogram,
    delivery_seconds: Histogram,
    log: LogFigures,
    presence: PresenceFigures,
    ingress: ingress::Ingress,
}

/// By partition; nothing is shown of an embedded log.
#[derive(Debug, Clone)]
struct LogFigures {
    connected: IntGaugeVec,
    lost_connections: IntCounterVec,
    behind: IntGaugeVec,
    lag_seconds: GaugeVec,
    confirms: IntCounterVec,
    confirm_seconds: CounterVec,
}

impl LogFigures {
    fn new(on: &Registry) -> Self {
        let label = "partition";
        let lag = options(
            "log_lag_seconds",
            "Seconds that the server is behind a shared log",
        );
        let confirming = options(
            "log_confirm_seconds_total",
            "Sum of the seconds that confirms of a shared log took",
        );
        Self {
            connected: gauges(
                on,
                "log_connected",
                "Whether a shared log is read and takes deltas",
                label,
            ),
            lost_connections: counters(
                on,
                "log_lost_connections_total",
                "Connections to a shared log that were lost",
                label,
            ),
            behind: gauges(
                on,
                "log_behind",
                "Entries that are known to be in a shared log and are not read",
                label,
            ),
            lag_seconds: registered(on, GaugeVec::new(lag, &[label])),
            confirms: counters(
                on,
                "log_confirms_total",
                "Entries that a shared log has confirmed",
                label,
            ),
            confirm_seconds: registered(on, CounterVec::new(confirming, &[label])),
        }
    }
}

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new();
        let on = &registry;
        let deltas_in = counters(
            on,
            "deltas_in_total",
            "Deltas that publishers sent, by what became of them",
            "result",
        );
        let replays = counters(
            on,
            "replays_total",
            "Returning clients that got all they missed, or must reload",
            "result",
        );
        let sessions = gauges(on, "sessions", "Sessions that are open", "transport");
        let sessions_closed = counters(
            on,
            "sessions_closed_total",
            "Sessions that ended, by the server's code or client",
            "code",
        );
        let build_info = gauges(on, "build_info", "Which version runs", "version");
        build_info
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        Self {
            websockets: sessions.with_label_values(&[Transport::WebSocket.name()]),
            event_streams: sessions.with_label_values(&[Transport::Events.name()]),
            http_streams: sessions.with_label_values(&[Transport::HttpStream.name()]),
            sse_streams: sessions.with_label_values(&[Transport::SseStream.name()]),
            polls: sessions.with_label_values(&[Transport::Poll.name()]),
            sessions_opened: counter(on, "sessions_opened_total", "Sessions that were opened"),
            closed_by_client: sessions_closed.with_label_values(&["client"]),
            sessions_closed,
            connections_refused: counters(
                on,
                "connections_refused_total",
                "Connections that became no session",
                "reason",
            ),
            rooms_active: registered(
                on,
                IntGauge::with_opts(options("rooms_active", "Rooms that are in memory")),
            ),
            room_failures: counter(
                on,
                "room_failures_total",
                "Rooms that failed and were started anew",
            ),
            applied: deltas_in.with_label_values(&["applied"]),
            repeated: deltas_in.with_label_values(&["repeated"]),
            not_taken: deltas_in.with_label_values(&["not_taken"]),
            unknown: deltas_in.with_label_values(&["unknown"]),
            no_space: deltas_in.with_label_values(&["no_space"]),
            unplaced: deltas_in.with_label_values(&["unplaced"]),
            passed: deltas_in.with_label_values(&["passed"]),
            dropped: deltas_in.with_label_values(&["dropped"]),
            deltas_out: counter(
                on,
                "deltas_out_total",
                "Deliveries: deltas times the sessions that they were written for",
            ),
            large_deltas: counters(
                on,
                "large_deltas_total",
                "Deltas that are larger than they should be",
                "namespace",
            ),
            slow_disconnects: counter(
                on,
                "slow_disconnects_total",
                "Sessions that were closed because they did not read",
            ),
            slow_skips: counter(
                on,
                "slow_skips_total",
                "Subscriptions that were taken out of their rooms, as they did not read",
            ),
            replay_hits: replays.with_label_values(&["hit"]),
            replay_misses: replays.with_label_values(&["miss"]),
            replayed_deltas: counter(on, "replayed_deltas_total", "Deltas that replays sent"),
            publish_seconds: histogram(
                on,
                "publish_seconds",
                "Seconds from accepted to durable, a delta",
                &PUBLISH_BUCKETS,
            ),
            delivery_seconds: histogram(
                on,
                "delivery_seconds",
                "Seconds from the stamp of a burst's first delta to written, a burst and worker",
                &DELIVERY_BUCKETS,
            ),
            log: LogFigures::new(on),
            presence: PresenceFigures::new(on),
            ingress: ingress::Ingress::new(on),
            registry,
        }
    }

    /// How a partition of a shared log is doing. Totals that begin anew, as after a new connection to
    /// another stream, don't fall.
    pub fn log(&self, partition: usize, status: &LogStatus) {
        let partition = partition.to_string();
        let label = &[partition.as_str()];
        let figures = &self.log;
        let connected = i64::from(status.connected);
        figures.connected.with_label_values(label).set(connected);
        let behind = i64::try_from(status.behind).unwrap_or(i64::MAX);
        figures.behind.with_label_values(label).set(behind);
        let lag = status.lag.as_secs_f64();
        figures.lag_seconds.with_label_values(label).set(lag);
        let raise = |counters: &IntCounterVec, total: u64| {
            let counter = counters.with_label_values(label);
            counter.inc_by(total.saturating_sub(counter.get()));
        };
        raise(&figures.lost_connections, status.lost_connections);
        raise(&figures.confirms, status.confirmed);
        let seconds = figures.confirm_seconds.with_label_values(label);
        seconds.inc_by((status.confirm_time.as_secs_f64() - seconds.get()).max(0.0));
    }

    /// How taking in is doing; of a server without a shared log nothing is shown.
    pub fn ingress(&self, figures: &Figures) {
        self.ingress.show(figures);
    }

    /// All figures in Prometheus' text format; to be sent as [`CONTENT_TYPE`].
    pub fn render(&self) -> String {
        let mut text = String::new();
        TextEncoder::new()
            .encode_utf8(&self.registry.gather(), &mut text)
            .expect("a figure has a name and a value, and writing to a string can't fail");
        text
    }

    pub fn session_opened(&self, transport: Transport) {
        self.sessions_opened.inc();
        self.open_sessions(transport).inc();
    }

    /// The end of a session that was reported to [`session_opened`](Self::session_opened).
    pub fn session_closed(&self, transport: Transport, closing: Closing) {
        self.open_sessions(transport).dec();
        match closing {
            Closing::Server(code) => {
                let code = code.to_string();
                self.sessions_closed.with_label_values(&[&code]).inc();
            }
            Closing::Client => self.closed_by_client.inc(),
        }
    }

    fn open_sessions(&self, transport: Transport) -> &IntGauge {
        match transport {
            Transport::WebSocket => &self.websockets,
            Transport::Events => &self.event_streams,
            Transport::HttpStream => &self.http_streams,
            Transport::SseStream => &self.sse_streams,
            Transport::Poll => &self.polls,
        }
    }

    pub fn slow_skip(&self) {
        self.slow_skips.inc();
    }

    pub fn large_delta(&self, namespace: &str) {
        self.large_deltas.with_label_values(&[namespace]).inc();
    }

    pub fn slow_disconnect(&self) {
        self.slow_disconnects.inc();
    }

    /// `reason` is the last word of the problem's type.
    pub fn connection_refused(&self, reason: &'static str) {
        self.connections_refused.with_label_values(&[reason]).inc();
    }

    pub fn room_started(&self) {
        self.rooms_active.inc();
    }

    pub fn room_stopped(&self) {
        self.rooms_active.dec();
    }

    pub fn room_failed(&self) {
        self.room_failures.inc();
    }

    pub fn deltas_in(&self, result: Intake, count: usize) {
        let counter = match result {
            Intake::Applied => &self.applied,
            Intake::Repeated => &self.repeated,
            Intake::NotTaken => &self.not_taken,
            Intake::Unknown => &self.unknown,
            Intake::NoSpace => &self.no_space,
            Intake::Unplaced => &self.unplaced,
            Intake::Passed => &self.passed,
            Intake::Dropped => &self.dropped,
        };
        counter.inc_by(count as u64);
    }

    /// Called once a fan-out: `deliveries` are its deltas times the sessions that it was written
    /// for.
    pub fn delivered(&self, deliveries: usize) {
        self.deltas_out.inc_by(deliveries as u64);
    }

    /// What replays came to since the last call.
    pub fn replays(&self, tally: Tally) {
        self.replay_hits.inc_by(tally.replay_hits);
        self.replay_misses.inc_by(tally.replay_misses);
        self.replayed_deltas.inc_by(tally.replayed_deltas);
    }

    /// Those of presence and of the way to other servers.
    pub fn presence(&self) -> &PresenceFigures {
        &self.presence
    }

    pub fn publish_took(&self, time: Duration) {
        self.publish_seconds.observe(time.as_secs_f64());
    }

    /// Called once a burst and worker.
    pub fn delivery_took(&self, time: Duration) {
        self.delivery_seconds.observe(time.as_secs_f64());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("roomwire")
}

fn counter(on: &Registry, name: &str, help: &str) -> IntCounter {
    registered(on, IntCounter::with_opts(options(name, help)))
}

fn counters(on: &Registry, name: &str, help: &str, label: &str) -> IntCounterVec {
    registered(on, IntCounterVec::new(options(name, help), &[label]))
}

fn gauges(on: &Registry, name: &str, help: &str, label: &str) -> IntGaugeVec {
    registered(on, IntGaugeVec::new(options(name, help), &[label]))
}

fn histogram(on: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let options = HistogramOpts::from(options(name, help)).buckets(buckets.to_vec());
    registered(on, Histogram::with_opts(options))
}

fn registered<C>(on: &Registry, collector: prometheus::Result<C>) -> C
where
    C: Collector + Clone + 'static,
{
    let collector = collector.expect("names, labels and buckets are constants that a test makes");
    on.register(Box::new(collector.clone()))
        .expect("the registry is new, and each name is given once");
    collector
}

#[cfg(test)]
mod tests;
