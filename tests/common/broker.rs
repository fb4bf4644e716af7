//! Real RabbitMQ nodes, started by `dev/cluster` in a folder and at ports of their own.
//!
//! They end with the value that owns them, and also when the test process ends without dropping it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{self, Command, Output},
    sync::OnceLock,
    thread,
};

use tempfile::TempDir;

/// Lines of each node's log that a failed test shows.
const SHOWN_LINES: usize = 40;

pub struct Broker {
    directory: TempDir,
    urls: Vec<String>,
}

impl Broker {
    /// A cluster of that many nodes, all of them members and serving.
    pub fn start(nodes: usize) -> Self {
        let directory = TempDir::new().expect("a directory for the test");
        let mut broker = Self {
            directory,
            urls: Vec::new(),
        };
        let (nodes, owner) = (nodes.to_string(), process::id().to_string());
        let options = ["--base-port", "auto", "--nodes", &nodes, "--owner", &owner];
        let printed = broker.run_again("up", &options);
        broker.urls = printed.lines().map(str::to_owned).collect();
        broker
    }

    /// The one node that the tests of a binary share where they only need *a* broker: they must not
    /// kill or block it, and name all that they declare with a prefix of their own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(1))
    }

    /// A name that no other test uses.
    pub fn unique_prefix() -> String {
        format!("test-{}", uuid::Uuid::new_v4().simple())
    }

    /// The AMQP URLs of all nodes, in order, whether they run or not.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The AMQP URL of a node; nodes count from 1.
    pub fn url(&self, node: usize) -> &str {
        &self.urls[node - 1]
    }

    /// Where the nodes listen, in order.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let address = |url: &String| {
            let (_, address) = url.rsplit_once('@').expect("it names a user");
            address.parse().expect("it names an address and a port")
        };
        self.urls.iter().map(address)
    }

    /// Has the nodes save which streams and quorum queues they have, to be done after a declaration
    /// and before a kill. They do it by themselves half a second late, and a node killed before
    /// that may never find them again.
    pub fn settle(&self) {
        self.run("settle", &[]);
    }

    /// Kills a node with SIGKILL; it is gone when this returns.
    pub fn kill(&self, node: usize) {
        self.run("kill", &[&node.to_string()]);
    }

    /// Kills all nodes, one right after the other.
    pub fn kill_all(&self) {
        self.run("kill", &["all"]);
    }

    /// Starts a killed node again with the data it has, and returns when it serves.
    pub fn restart(&self, node: usize) {
        self.run_again("start", &[&node.to_string()]);
    }

    /// Starts several killed nodes at once, and returns when they serve.
    pub fn restart_these(&self, nodes: &[usize]) {
        let nodes: Vec<String> = nodes.iter().map(usize::to_string).collect();
        let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
        self.run_again("start", &nodes);
    }

    /// Starts all nodes that were killed, at once, and returns when they serve.
    pub fn restart_all(&self) {
        self.run_again("start", &["all"]);
    }

    /// Freezes a node: its connections stay and it answers nothing.
    pub fn pause(&self, node: usize) {
        self.run("pause", &[&node.to_string()]);
    }

    /// Lets a frozen node go on.
    pub fn resume(&self, node: usize) {
        self.run("resume", &[&node.to_string()]);
    }

    /// Sets or clears a memory alarm, which blocks every publishing connection; it is in force when
    /// this returns.
    pub fn alarm(&self, on: bool) {
        self.run("alarm", &[if on { "on" } else { "off" }]);
    }

    /// The node that leads most of the streams whose names begin so.
    pub fn leader(&self, prefix: &str) -> usize {
        let queues = self.ctl(&["list_queues", "--silent", "name", "leader"]);
        let leads = |node: &usize| {
            let leader = format!("rabbit{node}@");
            let led = |line: &&str| line.starts_with(prefix) && line.contains(&leader);
            queues.lines().filter(led).count()
        };
        let nodes = 1..=self.urls.len();
        nodes.max_by_key(leads).expect("a cluster has nodes")
    }

    /// What `rabbitmqctl` prints on the first node that runs.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        self.run("ctl", arguments)
    }

    /// The same for `rabbitmq-streams`.
    pub fn streams(&self, arguments: &[&str]) -> String {
        self.run("streams", arguments)
    }

    /// As [`Self::run`], for what can be done again: a node that fails to start on a busy machine
    /// should fail nobody's test, but nobody should overlook it either.
    fn run_again(&self, command: &str, arguments: &[&str]) -> String {
        let output = self.try_run(command, arguments);
        if output.status.success() {
            return String::from_utf8(output.stdout).expect("the output is text");
        }
        let told = String::from_utf8_lossy(&output.stderr);
        eprintln!("dev/cluster {command} {arguments:?} failed and is tried again: {told}");
        self.run(command, arguments)
    }

    fn run(&self, command: &str, arguments: &[&str]) -> String {
        let output = self.try_run(command, arguments);
        assert!(
            output.status.success(),
            "dev/cluster {command} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("the output is text")
    }

    fn try_run(&self, command: &str, arguments: &[&str]) -> Output {
        Command::new(script())
            .args([command, "--dir"])
            .arg(self.directory.path())
            .args(arguments)
            .output()
            .expect("dev/cluster can be run")
    }

    fn show_logs(&self) {
        for node in 1..=self.urls.len() {
            let path = self.directory.path().join(format!("node{node}/log"));
            let path = path.join(format!("rabbit{node}@localhost.log"));
            eprintln!("--- the end of node {node}'s log\n{}", last_lines(&path));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if thread::panicking() {
            self.show_logs();
        }
        self.try_run("down", &["--wipe"]);
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dev/cluster")
}

fn last_lines(path: &Path) -> String {
    let log = fs::read(path).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}
