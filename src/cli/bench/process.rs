//! What Linux tells about processes: the server's CPU time and memory, and how many descriptors
//! this one may open.

use std::{fs, io};

use anyhow::{Context, ensure};
use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit, setrlimit},
};

/// Descriptors that the generator needs beside its sockets.
const OWN_DESCRIPTORS: u64 = 50;

/// A process that is watched from outside.
#[derive(Debug, Clone, Copy)]
pub struct Watched(pub u32);

impl Watched {
    /// CPU seconds used so far, in user and kernel mode, of all its threads; to a hundredth.
    pub fn cpu_seconds(self) -> anyhow::Result<f64> {
        let text = self.read("stat")?;
        // The name in parentheses may hold anything; times are the 12th and 13th field behind it.
        let fields = text.rsplit(')').next().unwrap_or_default();
        let ticks: u64 = fields
            .split_ascii_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<u64>().ok())
            .sum();
        Ok(ticks as f64 / clock_ticks_per_second() as f64)
    }

    /// Bytes of memory in use.
    pub fn resident_bytes(self) -> anyhow::Result<u64> {
        let text = self.read("statm")?;
        let pages = text.split_ascii_whitespace().nth(1);
        let pages: u64 = pages
            .and_then(|pages| pages.parse().ok())
            .context("can't read /proc: statm has no second field")?;
        Ok(pages * page_size() as u64)
    }

    fn read(self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.0);
        fs::read_to_string(&path).with_context(|| {
            format!("can't read {path}; --pid takes the id of the running server process")
        })
    }
}

/// Makes place for `sockets` sockets, as far as the system allows it without privileges.
pub fn allow_sockets(sockets: usize) -> anyhow::Result<()> {
    let needed = sockets as u64 + OWN_DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    ensure!(
        limit.maximum.is_none_or(|most| most >= needed),
        "{sockets} sockets need {needed} file descriptors, and this process may open {}; \
         take fewer subscribers, or raise the hard limit (`ulimit -Hn`, or nofile in limits.conf)",
        limit.maximum.unwrap_or_default(),
    );
    let raised = rustix::process::Rlimit {
        current: Some(needed),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised)
        .map_err(io::Error::from)
        .context("can't raise the limit of file descriptors")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{process, time::Instant};

    #[test]
    fn work_is_seen_as_cpu_time_and_memory() {
        let this = Watched(process::id());
        let cpu_before = this.cpu_seconds().unwrap();
        let started = Instant::now();
        let mut block = vec![1_u8; 32 << 20];
        while started.elapsed().as_millis() < 100 {
            block
                .iter_mut()
                .for_each(|byte| *byte = byte.wrapping_mul(3));
        }
        assert!(this.cpu_seconds().unwrap() > cpu_before);
        assert!(this.resident_bytes().unwrap() > block.len() as u64);
    }

    #[test]
    fn a_process_that_is_gone_is_named() {
        let error = Watched(u32::MAX).cpu_seconds().unwrap_err();
        assert!(error.to_string().contains("--pid takes"), "{error}");
    }

    #[test]
    fn more_sockets_than_the_system_allows_are_refused_with_the_limit() {
        let Some(most) = getrlimit(Resource::Nofile).maximum else {
            return;
        };
        let error = allow_sockets(most as usize).unwrap_err().to_string();
        assert!(error.contains(&format!("may open {most};")), "{error}");
    }
}
