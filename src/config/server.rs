//! Where the server listens, what it runs on, and where its data is.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    thread,
};

use super::reader::Reader;

const MAX_WORKERS: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Port 0 picks a free one.
    pub listen: SocketAddr,
    pub data: PathBuf,
    /// Worker threads, at least 1: a configured 0 is resolved to the number of cores.
    pub workers: usize,
    /// Everybody may subscribe and publish. Only with a loopback address in `listen`.
    pub dev: bool,
}

impl Server {
    pub(super) fn read(from: &mut Reader) -> Self {
        let listen: SocketAddr = from.text(
            "listen",
            (Ipv4Addr::LOCALHOST, 8080).into(),
            "an IP address and a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"",
            |text| text.parse().ok(),
        );
        let data = from.text("data", "./data".to_owned(), "a directory", |text| {
            (!text.is_empty()).then(|| text.to_owned())
        });
        let workers = match from.number("workers", 0, 0..=MAX_WORKERS) {
            0 => thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_WORKERS)),
            workers => workers,
        };
        let dev = from.switch("dev", false);
        from.require(
            !dev || listen.ip().to_canonical().is_loopback(),
            "listen",
            "a loopback address beside",
            "dev",
        );
        Self {
            listen,
            data: data.into(),
            workers,
            dev,
        }
    }
}
