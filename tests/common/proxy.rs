//! A TCP proxy whose line can be cut or fall silent, and be mended, for who loses the network while
//! the other side lives.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Lives as long as the test process; its threads end with the connections they carry.
pub struct Proxy {
    address: SocketAddr,
    line: Arc<Line>,
}

#[derive(Default)]
struct Line {
    cut: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
    silent: Mutex<bool>,
    heard: Condvar,
}

impl Proxy {
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let line = Arc::new(Line::default());
        let carried = line.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                carried.carry(client, server);
            }
        });
        Self { address, line }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection and lets no new one through.
    pub fn cut(&self) {
        self.line.cut.store(true, Ordering::SeqCst);
        for stream in self.line.connections().drain(..) {
            // One that has ended by itself is cut already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Keeps every connection and carries nothing more, as when packets are lost.
    pub fn silence(&self) {
        self.line.set_silent(true);
    }

    /// Carries again; what was said into the silence arrives.
    pub fn mend(&self) {
        self.line.cut.store(false, Ordering::SeqCst);
        self.line.set_silent(false);
    }
}

impl Line {
    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().expect("no carrier panics")
    }

    fn set_silent(&self, silent: bool) {
        *self.silent.lock().expect("no carrier panics") = silent;
        self.heard.notify_all();
    }

    fn await_sound(&self) {
        let silent = self.silent.lock().expect("no carrier panics");
        let heard = self.heard.wait_while(silent, |silent| *silent);
        drop(heard.expect("no carrier panics"));
    }

    /// Joins a client to the server; dropping either stream tells the client that there is nobody.
    fn carry(self: &Arc<Self>, client: TcpStream, server: SocketAddr) {
        let mut open = self.connections();
        if self.cut.load(Ordering::SeqCst) {
            return;
        }
        let Ok(server) = TcpStream::connect(server) else {
            return;
        };
        // What has ended on both sides needs no cutting any more.
        open.retain(|stream| stream.peer_addr().is_ok());
        let directions = [(&client, &server), (&server, &client)];
        for (from, to) in directions {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else {
                return;
            };
            if to.set_nodelay(true).is_err() {
                return;
            }
            let line = self.clone();
            thread::spawn(move || line.pump(from, to));
        }
        open.extend([client, server]);
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            self.await_sound();
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        // An end is not heard through the silence either.
        self.await_sound();
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
