//! What servers that share a log on RabbitMQ take and cost:
//! `cargo bench --bench cluster [-- DELTAS]`. Three broker nodes, the servers and the load share the
//! machine; brokers are started by `dev/cluster`.

#[path = "../../tests/common/mod.rs"]
mod common;

mod load;

use std::{
    env, thread,
    time::{Duration, Instant},
};

use common::{Broker, Server};
use load::{fill, latency, longest_silence, saturate};

/// What a start reads back, unless the command line says otherwise.
const RETAINED: u64 = 1_000_000;

/// One room with one delta for so many deltas that a start reads back.
const DELTAS_A_ROOM: u64 = 10;

/// How long a server may take for the longest step.
const LONG: Duration = Duration::from_secs(600);

fn main() {
    // cargo itself adds `--bench`.
    let number = env::args().find_map(|argument| argument.parse().ok());
    let retained = number.unwrap_or(RETAINED);
    let rooms = retained / DELTAS_A_ROOM;
    let broker = Broker::start(3);
    let prefix = Broker::unique_prefix();
    let [a, mut b] = [0, 1].map(|first| start(&broker, &prefix, first));
    broker.settle();

    for rate in [100, 5_000] {
        row(
            &format!("{rate} deltas/s of 200 B at A, 10 clients at B"),
            &latency(&a, &b, rate),
        );
    }
    let rate = saturate(&a);
    row(
        "published at A, as fast as it answers",
        &format!("{rate:.0}/s"),
    );

    let leader = broker.leader(&prefix);
    let silence = longest_silence(&a, &b, || broker.kill(leader));
    row(
        "longest silence at B when the leading node is killed",
        &seconds(silence),
    );
    broker.restart(leader);

    assert!(b.stop().success());
    let (count, took) = fill(&a, retained, 1_000);
    row(
        "published in batches of 500, 8 at a time",
        &format!("{:.0}/s", count as f64 / took.as_secs_f64()),
    );
    let took = timed(|| {
        b.restart();
        await_ready(&b);
    });
    row(
        &format!("ready again after {count} deltas were missed"),
        &format!(
            "{}, {:.0}/s",
            seconds(took),
            count as f64 / took.as_secs_f64()
        ),
    );
    let mut fresh = None;
    let took = timed(|| fresh = Some(start(&broker, &prefix, 2)));
    row(
        &format!("a fresh server is ready, with {count} deltas in the log"),
        &seconds(took),
    );
    drop(fresh);

    let prefix = Broker::unique_prefix();
    let server = start(&broker, &prefix, 0);
    let before = server.memory();
    fill(&server, rooms, rooms);
    let grown = server.memory().saturating_sub(before);
    row(
        &format!("memory, {rooms} rooms with a history and nobody in them"),
        &format!("{:.0} MB more than with none", grown as f64 / 1e6),
    );
}

/// A server whose addresses begin with another node each, once it is ready.
fn start(broker: &Broker, prefix: &str, first: usize) -> Server {
    let mut urls = broker.urls().to_vec();
    urls.rotate_left(first);
    let server = Server::start(&format!(
        "[amqp]\nurl = {urls:?}\nprefix = \"{prefix}\"\n\
         [namespaces.default]\nhistory_size = 1000000\nhistory_bytes = \"1GiB\"\n"
    ));
    await_ready(&server);
    server
}

fn await_ready(server: &Server) {
    let start = Instant::now();
    while server.get("/readyz").status != 200 {
        assert!(start.elapsed() < LONG, "never ready");
        thread::sleep(Duration::from_millis(50));
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn row(what: &str, figure: &str) {
    println!("{what:<62} {figure}");
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
