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
    silent: Mutex<Option<Silence>>,
    heard: Condvar,
}

/// Which connections carry nothing.
#[derive(Clone, Copy)]
enum Silence {
    All,
    /// Those whose client said this when they began.
    Named(&'static str),
}

/// What the client of a connection said first.
type Opening = Mutex<Vec<u8>>;

/// As much of it as holds a connection's name.
const OPENING_BYTES: usize = 1_024;

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
        self.line.set_silent(Some(Silence::All));
    }

    /// The same for those connections only whose client said `name` when they began.
    pub fn silence_those_named(&self, name: &'static str) {
        self.line.set_silent(Some(Silence::Named(name)));
    }

    /// Carries again; what was said into the silence arrives.
    pub fn mend(&self) {
        self.line.cut.store(false, Ordering::SeqCst);
        self.line.set_silent(None);
    }
}

impl Line {
    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().expect("no carrier panics")
    }

    fn set_silent(&self, silent: Option<Silence>) {
        *self.silent.lock().expect("no carrier panics") = silent;
        self.heard.notify_all();
    }

    fn await_sound(&self, opening: &Opening) {
        let silent = self.silent.lock().expect("no carrier panics");
        let is_silent = |silent: &mut Option<Silence>| match silent {
            None => false,
            Some(Silence::All) => true,
            Some(Silence::Named(name)) => {
                let opening = opening.lock().expect("no carrier panics");
                String::from_utf8_lossy(&opening).contains(*name)
            }
        };
        let heard = self.heard.wait_while(silent, is_silent);
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
        let opening = Arc::new(Opening::default());
        for (from, to, is_client) in [(&client, &server, true), (&server, &client, false)] {
            let (Ok(from), Ok(to), Ok(())) =
                (from.try_clone(), to.try_clone(), to.set_nodelay(true))
            else {
                return;
            };
            let (line, opening) = (self.clone(), opening.clone());
            thread::spawn(move || line.pump(from, to, &opening, is_client));
        }
        open.extend([client, server]);
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, opening: &Opening, is_client: bool) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if is_client {
                let mut opening = opening.lock().expect("no carrier panics");
                if opening.len() < OPENING_BYTES {
                    opening.extend(&buffer[..read]);
                }
            }
            self.await_sound(opening);
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        // An end is not heard through the silence either.
        self.await_sound(opening);
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
