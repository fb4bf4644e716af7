//! Load on servers of one cluster.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::common::{
    Client, Server, View,
    server::{JSON, deltas_of},
};

const BATCH: u64 = 500;
const CALLERS: usize = 8;

/// Deltas to be heard before the strike, and after it.
const ENOUGH: u64 = 200;

/// From publishing at `a` to clients at `b`.
pub fn latency(a: &Server, b: &Server, rate: u32) -> String {
    let (rate, to, at) = (rate.to_string(), url(a), url(b));
    let clients = ["-n", "10", "--rooms", "10", "--rate", &rate];
    let traffic = bench(&[&clients[..], &["--url", &at, "--publish-url", &to]].concat());
    let ms = |of: &str| traffic["latency_ms"][of].as_f64().expect("a latency");
    format!("p50 {:.2} ms, p99 {:.2} ms", ms("p50"), ms("p99"))
}

/// Deltas a second that one server publishes.
pub fn saturate(server: &Server) -> f64 {
    let url = url(server);
    let clients = ["-n", "16", "--rooms", "16", "--publishers", "16"];
    let load = ["--rate", "max", "--batch", "100", "--url", &url];
    let traffic = bench(&[clients, load].concat());
    traffic["publishes_per_second"].as_f64().expect("a rate")
}

/// What `roomwire bench` has to say of its traffic; it also checks that each delta came once.
fn bench(flags: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_roomwire"))
        .args(["bench", "--json", "--payload", "200", "--duration", "10"])
        .args(flags)
        .output()
        .expect("the server's binary starts");
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "bench {flags:?}: {problem}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    report["traffic"].clone()
}

fn url(server: &Server) -> String {
    format!("http://{}", server.address())
}

/// Publishes `count` deltas of 200 B to `rooms` rooms; gives how many, and how long it took.
pub fn fill(server: &Server, count: u64, rooms: u64) -> (u64, Duration) {
    let start = Instant::now();
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let mut http = server.http();
                loop {
                    let first = next.fetch_add(BATCH, Ordering::Relaxed);
                    if first >= count {
                        return;
                    }
                    let entry = |n: u64| {
                        format!(
                            "{{\"room\":\"fill{}\",\"id\":\"{n}\",\"data\":\"{:x>198}\"}}",
                            n % rooms,
                            n
                        )
                    };
                    let entries: Vec<String> = (first..first + BATCH).map(entry).collect();
                    let body = format!("[{}]", entries.join(","));
                    loop {
                        let reply = http.request("POST", "/v1/deltas", &[JSON], body.as_bytes());
                        if reply.status == 200 && !reply.text().contains("\"status\":503") {
                            break;
                        }
                        thread::sleep(Duration::from_millis(20));
                    }
                }
            });
        }
    });
    (count.next_multiple_of(BATCH), start.elapsed())
}

/// How long a client at `b` heard nothing at most, while somebody publishes at `a` all the time
/// and `strike` happens.
pub fn longest_silence(a: &Server, b: &Server, strike: impl FnOnce()) -> Duration {
    let mut client = Client::connect(b);
    client.follow(&mut View::new("silence"));
    let heard = AtomicU64::new(0);
    let (struck, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let listening = scope.spawn(|| {
            let (mut last, mut longest, mut after) = (Instant::now(), Duration::ZERO, 0);
            while after < ENOUGH {
                client.publication();
                longest = longest.max(last.elapsed());
                last = Instant::now();
                heard.fetch_add(1, Ordering::Relaxed);
                after += u64::from(struck.load(Ordering::Relaxed));
            }
            is_over.store(true, Ordering::Relaxed);
            longest
        });
        scope.spawn(|| publish_until(a, &is_over));
        while heard.load(Ordering::Relaxed) < ENOUGH {
            thread::sleep(Duration::from_millis(10));
        }
        strike();
        struck.store(true, Ordering::Relaxed);
        listening.join().expect("the deltas go on")
    })
}

fn publish_until(server: &Server, is_over: &AtomicBool) {
    let mut http = server.http();
    let mut n = 0;
    while !is_over.load(Ordering::Relaxed) {
        n += 1;
        let key = n.to_string();
        let headers = [("Idempotency-Key", &*key)];
        let mut publish = || http.request("POST", &deltas_of("silence"), &headers, b"1");
        while !matches!(publish().status, 200 | 201) {
            thread::sleep(Duration::from_millis(10));
        }
    }
}
