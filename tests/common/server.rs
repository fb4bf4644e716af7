//! The server as a child process, with its own data directory and its own port.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    Entry, PATIENCE, eventually,
    http::{Http, Reply, percent_encoded},
};

/// What a publisher is told about an accepted delta.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Accepted {
    pub offset: u64,
    pub epoch: String,
    pub id: String,
    pub time: u64,
}

pub struct Server {
    child: Option<Child>,
    address: SocketAddr,
    listen: String,
    dev: bool,
    directory: TempDir,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// A server on a free port, whose configuration file holds `config` (TOML).
    pub fn start(config: &str) -> Self {
        Self::start_at("127.0.0.1:0".into(), true, config)
    }

    /// As [`Server::start`], but without `--dev`: nothing is open unless the configuration opens it.
    pub fn start_closed(config: &str) -> Self {
        Self::start_at("127.0.0.1:0".into(), false, config)
    }

    /// As [`Server::start`], but a restarted server is found at the same port.
    pub fn start_at_fixed_port(config: &str) -> Self {
        Self::start_at(format!("127.0.0.1:{}", lasting_port()), true, config)
    }

    fn start_at(listen: String, dev: bool, config: &str) -> Self {
        let directory = TempDir::new().expect("a directory for the test");
        let mut server = Self {
            child: None,
            address: ([127, 0, 0, 1], 0).into(),
            listen,
            dev,
            directory,
            log: Arc::default(),
        };
        server.configure(config);
        server.restart();
        server
    }

    /// Replaces the configuration file, for the next start.
    pub fn configure(&self, config: &str) {
        let file = self.directory.path().join("roomwire.toml");
        fs::write(file, config).expect("the configuration");
    }

    /// Starts it again with the data that are there, after it was stopped or killed.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "the server is still running");
        let mut child = Command::new(env!("CARGO_BIN_EXE_roomwire"))
            .args(["serve", "--listen", &self.listen])
            .args(self.dev.then_some("--dev"))
            .arg("--data")
            .arg(self.data())
            .arg("--config")
            .arg(self.directory.path().join("roomwire.toml"))
            .env("ROOMWIRE_LOG__FORMAT", "json")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server's binary starts");
        let stderr = child.stderr.take().expect("stderr is piped");
        self.child = Some(child);
        let (tell, told) = mpsc::channel();
        let log = self.log.clone();
        thread::spawn(move || follow_log(stderr, &log, &tell));
        self.address = told
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| panic!("the server never accepted connections:\n{}", self.log()));
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server is running").id()
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Removes all data; the server must not be running.
    pub fn wipe(&self) {
        assert!(self.child.is_none(), "the server is still running");
        fs::remove_dir_all(self.data()).expect("the data directory is there");
    }

    /// Everything the server has logged, restarts included.
    pub fn log(&self) -> String {
        self.log.lock().expect("no reader panics").join("\n")
    }

    /// `kill -9`: the process is gone when this returns.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the server is ours to kill");
            child.wait().expect("a killed process ends");
        }
    }

    /// Asks the server to stop (SIGTERM), without waiting for it.
    pub fn ask_to_stop(&self) {
        self.signal("-TERM");
    }

    /// Freezes it (SIGSTOP): its connections stay and it does nothing.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets a frozen server go on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.pid().to_string()])
            .status()
            .expect("`kill` is installed");
        assert!(status.success(), "the server was not running any more");
    }

    pub fn await_exit(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the server is running");
        eventually("the server's end", || {
            child.try_wait().expect("it is our child")
        })
    }

    /// SIGTERM, and the status that the server ends with.
    pub fn stop(&mut self) -> ExitStatus {
        self.ask_to_stop();
        self.await_exit()
    }

    pub fn is_running(&mut self) -> bool {
        match &mut self.child {
            Some(child) => child.try_wait().expect("it is our child").is_none(),
            None => false,
        }
    }

    pub fn http(&self) -> Http {
        Http::new(self.address)
    }

    pub fn get(&self, path: &str) -> Reply {
        self.http().request("GET", path, &[], b"")
    }

    pub fn delete(&self, path: &str) -> Reply {
        self.http().request("DELETE", path, &[], b"")
    }

    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Reply {
        self.http().request("POST", path, headers, body.as_ref())
    }

    /// Publishes what must be accepted.
    pub fn publish(&self, room: &str, data: &str) -> Accepted {
        let reply = self.post(&deltas_of(room), &[], data);
        assert_eq!(reply.status, 201, "publishing {data}: {}", reply.text());
        serde_json::from_slice(&reply.body).expect("a position")
    }

    /// Publishes `{"n":first}` and the numbers that follow, a batch at a time, and says what became
    /// of them.
    pub fn publish_numbers(&self, room: &str, first: u64, count: u64) -> Vec<Entry> {
        let numbers: Vec<u64> = (first..first + count).collect();
        let mut http = self.http();
        let mut entries = Vec::new();
        for numbers in numbers.chunks(500) {
            let batch: Vec<Value> = numbers
                .iter()
                .map(|n| json!({"room": room, "data": {"n": n}}))
                .collect();
            let body = serde_json::to_vec(&batch).expect("JSON");
            let reply = http.request("POST", "/v1/deltas", &[JSON], &body);
            assert_eq!(reply.status, 200, "publishing a batch: {}", reply.text());
            let results = reply.json()["results"].as_array().cloned();
            let results = results.expect("a result for each entry");
            assert_eq!(results.len(), numbers.len());
            for (n, result) in numbers.iter().zip(results) {
                assert_eq!(result["status"], 201, "publishing {n}: {result}");
                let offset = result["offset"].as_u64().expect("an offset");
                entries.push(Entry::new(offset, format!("{{\"n\":{n}}}")));
            }
        }
        entries
    }

    /// All that the server keeps of a room, page by page.
    pub fn history(&self, room: &str) -> Vec<Entry> {
        let mut http = self.http();
        let (mut entries, mut after) = (Vec::new(), 0);
        loop {
            let path = format!("{}?after={after}&limit=1000", deltas_of(room));
            let reply = http.request("GET", &path, &[], b"");
            assert_eq!(reply.status, 200, "reading {path}: {}", reply.text());
            let page: Page = serde_json::from_slice(&reply.body).expect("a page of deltas");
            for delta in page.deltas {
                assert!(delta.offset > after, "offset {} came late", delta.offset);
                after = delta.offset;
                entries.push(Entry::new(delta.offset, delta.data.get()));
            }
            if !page.more {
                return entries;
            }
        }
    }

    /// The value of one sample of `/metrics`, named with its labels; what was never counted is 0.
    pub fn metric(&self, sample: &str) -> f64 {
        self.get("/metrics")
            .text()
            .lines()
            .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }

    pub fn await_metric(&self, sample: &str, value: f64) {
        eventually(&format!("{sample} to be {value}"), || {
            (self.metric(sample) == value).then_some(())
        });
    }

    /// How many file descriptors the server holds.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("the process is ours")
            .count()
    }

    /// Resident memory, in bytes.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("the process is ours");
        let kilobytes = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
            .expect("the kernel tells the resident size");
        kilobytes.trim().parse::<u64>().expect("a number") * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill9();
        if thread::panicking() {
            eprintln!("--- the server's log\n{}", self.log());
        }
    }
}

/// A header that says that the body is JSON.
pub const JSON: (&str, &str) = ("Content-Type", "application/json");

/// The path of a room's deltas.
pub fn deltas_of(room: &str) -> String {
    format!("/v1/rooms/{}/deltas", percent_encoded(room))
}

#[derive(serde::Deserialize)]
struct Page {
    deltas: Vec<PageDelta>,
    more: bool,
}

#[derive(serde::Deserialize)]
struct PageDelta {
    offset: u64,
    data: Box<serde_json::value::RawValue>,
}

/// Keeps the log and tells the address once it is in it.
fn follow_log(stderr: ChildStderr, log: &Mutex<Vec<String>>, tell: &mpsc::Sender<SocketAddr>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if let Some(address) = accepting_address(&line) {
            // Nobody waits any more after the first.
            let _ = tell.send(address);
        }
        if let Ok(mut log) = log.lock() {
            log.push(line);
        }
    }
}

fn accepting_address(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    let field = |name: &str| line.get(name).or_else(|| line["fields"].get(name));
    if field("message")? != "accepting connections" {
        return None;
    }
    let url = field("address")?.as_str()?;
    url.strip_prefix("http://")?.parse().ok()
}

/// A port that stays free while its server is down: below those that the kernel gives to outgoing
/// connections.
fn lasting_port() -> u16 {
    let random = || {
        let nanos = std::time::UNIX_EPOCH
            .elapsed()
            .map_or(0, |t| t.subsec_nanos());
        10_000 + (nanos / 100 % 20_000) as u16
    };
    eventually("a free port", || {
        let port = random();
        TcpListener::bind(("127.0.0.1", port)).ok().map(|_| port)
    })
}
