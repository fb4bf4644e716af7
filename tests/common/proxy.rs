//! A TCP proxy whose line can be cut and mended, for clients that lose the network while the server
//! lives.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
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

    pub fn mend(&self) {
        self.line.cut.store(false, Ordering::SeqCst);
    }
}

impl Line {
    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().expect("no carrier panics")
    }

    /// Joins a client to the server; dropping either stream tells the client that there is nobody.
    fn carry(&self, client: TcpStream, server: SocketAddr) {
        let mut open = self.connections();
        if self.cut.load(Ordering::SeqCst) {
            return;
        }
        let Ok(server) = TcpStream::connect(server) else {
            return;
        };
        let directions = [(&client, &server), (&server, &client)];
        for (from, to) in directions {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else {
                return;
            };
            thread::spawn(move || pump(from, to));
        }
        open.extend([client, server]);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
