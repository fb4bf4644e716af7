//! What a scenario script can do to the world around its SDK. It prints `world VERB ARGUMENTS` and
//! reads one line back:
//!
//! | verb | effect |
//! | --- | --- |
//! | `cut`, `mend` | end every connection that goes through the proxy and refuse new ones; let them through again |
//! | `kill`, `stop`, `start` | end the server by SIGKILL, by SIGTERM; start it again at the same port |
//! | `wipe` | remove the data of the server, which must not be running |
//! | `publish ROOM FIRST COUNT` | publish `{"n":FIRST}` and the numbers that follow |
//! | `stream ROOM FIRST COUNT` | the same, one by one and while the script goes on |
//! | `settle` | wait until all streams have been published |
//! | `check ROOM SEEN` | judge what the SDK saw: `[["joined",3],["delta",4,{"n":1}],["reload",9]…]` |

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::common::{Entry, Seen, Server, proxy::Proxy, sequence};

/// Longest that a scenario takes: some wait for an SDK's back-off more than once.
const SCENARIO_LIMIT: Duration = Duration::from_secs(60);

const CONFIG: &str = r#"
[presence]
leave_grace = "100ms"

[namespaces.people]
presence = true
join_leave = true

[namespaces.typing]
client_publish = "ephemeral"

[namespaces.open]
client_publish = "stored"

[namespaces.short]
history_size = 10

[access]
token_secrets = ["a secret of these tests, and no other"]

[namespaces.secret]
access = "token"
presence = true

[namespaces.dialog]
access = "user-limited"
"#;

/// Pings so fast that a client which does not answer them would be closed within the scenario.
const FAST_PINGS: &str = r#"
[limits]
ping_interval = "1s"
pong_timeout = "500ms"
"#;

/// A language's SDK and which of its versions.
#[derive(Clone, Copy)]
pub enum Sdk {
    #[allow(non_camel_case_types)]
    javascript(&'static str),
    #[allow(non_camel_case_types)]
    python(&'static str),
    /// The current JavaScript SDK without WebSockets, over this transport.
    #[allow(non_camel_case_types)]
    emulated(&'static str),
    /// Another one in its build for Protobuf.
    #[allow(non_camel_case_types)]
    protobuf(&'static Sdk),
    /// What Chromium itself can do.
    #[allow(non_camel_case_types)]
    browser,
}

impl Sdk {
    fn command(self, scenario: &str) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let scripts = root.join("tests/sdk");
        match self {
            Self::emulated(transport) => {
                let mut command = Self::javascript("current").command(scenario);
                command.env("ROOMWIRE_TRANSPORT", transport);
                command
            }
            Self::protobuf(sdk) => {
                let mut command = sdk.command(scenario);
                command.env("ROOMWIRE_FORMAT", "protobuf");
                command
            }
            Self::javascript(version) => {
                let installed = scripts.join("js/node_modules/centrifuge");
                assert_installed(&installed);
                let mut command = Command::new("node");
                command.arg(scripts.join("js/run.js"));
                command.args([version, scenario]);
                command
            }
            Self::browser => {
                let scripts = root.join("tests/browser");
                assert_installed(&scripts.join("node_modules/playwright-core"));
                let mut command = Command::new("node");
                command.arg(scripts.join("events.mjs")).arg(scenario);
                command
            }
            Self::python(version) => {
                let python: PathBuf = root.join("target/sdk-venvs").join(version);
                let python = python.join("bin/python");
                assert_installed(&python);
                let mut command = Command::new(python);
                command.arg(scripts.join("python/run.py"));
                command.args([version, scenario]);
                command
            }
        }
    }
}

fn assert_installed(path: &Path) {
    assert!(
        path.exists(),
        "{} is missing: run ./test once, it installs the SDKs",
        path.display()
    );
}

/// Runs one scenario against a server of its own; what the script says on stderr is the reason of a
/// failure.
pub fn run(sdk: Sdk, scenario: &str) {
    let config = if scenario == "answers_pings" {
        FAST_PINGS
    } else {
        CONFIG
    };
    let server = Server::start_at_fixed_port(config);
    let proxy = Proxy::to(server.address());
    let mut script = sdk
        .command(scenario)
        .env("ROOMWIRE_DIRECT", socket_url(server.address()))
        .env("ROOMWIRE_PROXIED", socket_url(proxy.address()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the language's interpreter is installed");
    let mut world = World {
        server,
        proxy,
        published: HashMap::new(),
        streams: Vec::new(),
    };
    let mut stderr = script.stderr.take().expect("stderr is piped");
    let reason = thread::spawn(move || io::read_to_string(&mut stderr).unwrap_or_default());
    let finished = world.serve(&mut script);
    if !finished {
        // It may have ended by itself at the last moment.
        let _ = script.kill();
    }
    let status = script.wait().expect("the script is our child");
    let reason = reason.join().expect("reading does not panic");
    assert!(finished, "more than {SCENARIO_LIMIT:?} went by:\n{reason}");
    assert!(status.success(), "{status}:\n{reason}");
}

fn socket_url(address: std::net::SocketAddr) -> String {
    format!("ws://{address}/connection/websocket")
}

struct World {
    server: Server,
    proxy: Proxy,
    /// Everything published to a room, in the log's order.
    published: HashMap<String, Vec<Entry>>,
    streams: Vec<JoinHandle<(String, Vec<Entry>)>>,
}

impl World {
    /// Does what the script asks for until it ends; `false` if it does not within the limit.
    fn serve(&mut self, script: &mut Child) -> bool {
        let start = Instant::now();
        let mut answers = script.stdin.take().expect("stdin is piped");
        let lines = BufReader::new(script.stdout.take().expect("stdout is piped"));
        let (ask, asked) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                if ask.send(line).is_err() {
                    break;
                }
            }
        });
        loop {
            let left = SCENARIO_LIMIT.saturating_sub(start.elapsed());
            match asked.recv_timeout(left) {
                Ok(line) => match line.strip_prefix("world ") {
                    Some(request) => {
                        let answer = self.act(request);
                        // A script that failed meanwhile reads no answer; its exit status tells.
                        let _ = writeln!(answers, "{answer}");
                    }
                    None => println!("{line}"),
                },
                Err(mpsc::RecvTimeoutError::Disconnected) => return true,
                Err(mpsc::RecvTimeoutError::Timeout) => return false,
            }
        }
    }

    fn act(&mut self, request: &str) -> String {
        let (verb, arguments) = request.split_once(' ').unwrap_or((request, ""));
        match verb {
            "cut" => self.proxy.cut(),
            "mend" => self.proxy.mend(),
            "kill" => self.server.kill9(),
            "stop" => assert!(self.server.stop().success(), "the server failed to stop"),
            "start" => self.server.restart(),
            "wipe" => {
                self.server.wipe();
                self.published.clear();
            }
            "publish" => {
                let (room, first, count) = numbers(arguments);
                let entries = self.server.publish_numbers(room, first, count);
                self.remember(room, entries);
            }
            "stream" => self.stream(arguments),
            "settle" => {
                for stream in std::mem::take(&mut self.streams) {
                    let (room, entries) = stream.join().expect("every publish was accepted");
                    self.remember(&room, entries);
                }
            }
            "check" => return self.check(arguments),
            _ => panic!("the script asks for {request:?}, which the world can't do"),
        }
        "ok".into()
    }

    fn remember(&mut self, room: &str, entries: Vec<Entry>) {
        let published = self.published.entry(room.into()).or_default();
        published.extend(entries);
        published.sort_by_key(|entry| entry.offset);
    }

    fn stream(&mut self, arguments: &str) {
        let (room, first, count) = numbers(arguments);
        let (room, mut http) = (room.to_owned(), self.server.http());
        self.streams.push(thread::spawn(move || {
            let path = crate::common::server::deltas_of(&room);
            let publish = |n| {
                let data = format!("{{\"n\":{n}}}");
                let reply = http.request("POST", &path, &[], data.as_bytes());
                assert_eq!(reply.status, 201, "{}", reply.text());
                let offset = reply.json()["offset"].as_u64().expect("an offset");
                Entry::new(offset, data)
            };
            let entries = (first..first + count).map(publish).collect();
            (room, entries)
        }));
    }

    fn check(&self, arguments: &str) -> String {
        let (room, seen) = arguments.split_once(' ').expect("a room and a list");
        let seen: Vec<Value> = serde_json::from_str(seen).expect("a list");
        let seen: Vec<Seen> = seen.iter().map(seen_event).collect();
        let log = self.published.get(room).map_or(&[][..], Vec::as_slice);
        match sequence::check(log, &seen) {
            Ok(()) => "ok".into(),
            Err(wrong) => format!("{wrong} ({} in the log, {} seen)", log.len(), seen.len()),
        }
    }
}

fn numbers(arguments: &str) -> (&str, u64, u64) {
    let mut words = arguments.split(' ');
    let room = words.next().expect("a room");
    let mut number = || words.next().and_then(|word| word.parse().ok());
    let first = number().expect("a first number");
    (room, first, number().expect("a count"))
}

fn seen_event(event: &Value) -> Seen {
    let at = event[1].as_u64().expect("an offset");
    match event[0].as_str() {
        Some("joined") => Seen::Joined { at },
        Some("reload") => Seen::Reload { at },
        Some("delta") => Seen::Delta(Entry::new(at, event[2].to_string())),
        _ => panic!("{event} is nothing that is seen"),
    }
}
