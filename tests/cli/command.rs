//! `roomwire` as a child process.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
};

use crate::common::{PATIENCE, Server};

/// One call of `roomwire`, in an environment without settings.
pub struct Call(Command);

impl Call {
    pub fn new(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roomwire"));
        command.args(arguments).current_dir(std::env::temp_dir());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROOMWIRE_")) {
            command.env_remove(name);
        }
        Self(command)
    }

    /// A call that talks to `server`.
    pub fn to(server: &Server, arguments: &[&str]) -> Self {
        Self::new(arguments).with("ROOMWIRE_URL", &format!("http://{}", server.address()))
    }

    /// With an environment variable.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    /// Starts it, to be read while it runs.
    pub fn start(mut self) -> Running {
        let mut child = self
            .0
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the binary starts");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        Running { child, lines }
    }

    pub fn run(self) -> Ran {
        self.fed("")
    }

    /// With `input` on its standard input.
    pub fn fed(mut self, input: &str) -> Ran {
        let mut child = self
            .0
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let input = input.to_owned();
        // A command that does not read its input to the end is judged by what it says.
        let feeding = thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        let output = child.wait_with_output().expect("it is our child");
        feeding.join().expect("writing does not panic");
        Ran(output)
    }
}

/// A call that goes on; killed when it is dropped.
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    /// The next line that it prints.
    pub fn line(&self) -> String {
        let line = self.lines.recv_timeout(PATIENCE);
        line.expect("the command prints another line")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a call ended.
#[derive(Debug)]
pub struct Ran(Output);

impl Ran {
    pub fn code(&self) -> i32 {
        self.0.status.code().expect("it was not killed")
    }

    pub fn stdout(&self) -> &str {
        std::str::from_utf8(&self.0.stdout).expect("text")
    }

    pub fn stderr(&self) -> &str {
        std::str::from_utf8(&self.0.stderr).expect("text")
    }

    /// The standard output of a call that must have succeeded.
    pub fn out(&self) -> &str {
        assert_eq!(self.code(), 0, "{}", self.stderr());
        self.stdout()
    }

    /// The standard error of a call that must have ended with `code`.
    pub fn failed(&self, code: i32) -> &str {
        assert_eq!(self.code(), code, "{}{}", self.stdout(), self.stderr());
        self.stderr()
    }
}
