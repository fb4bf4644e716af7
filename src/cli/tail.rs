//! `roomwire tail`: prints what happens in rooms, and comes back to where the connection was lost.

mod start;

use std::{
    convert::Infallible,
    future,
    io::{self, Write},
    thread,
    time::Duration,
};

use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::{sync::oneshot, time::timeout};
use uuid::Uuid;

use crate::{
    cli::{
        ServerFlags, how_to_reach,
        moment::Moment,
        patience::Patience,
        print::{Form, Line, Printer},
        tail::start::Start,
    },
    client::{
        address::ServerUrl,
        backoff::Backoff,
        follow::{Event, Follower, Stop, closed},
        http::HttpClient,
        socket::{ReadBuffer, Socket, SocketError},
    },
    delta::{Position, RoomName},
};

/// Until a server has said how often it pings, it may be silent for this long.
const FIRST_SILENCE: Duration = Duration::from_secs(10);

#[derive(Args)]
#[command(after_help = "\
Prints a line for each delta: room, offset, JSON; on a terminal with its time. Follows until Ctrl-C.
A lost connection is taken up again behind the last delta printed; where that is no longer possible,
or a part of what --since or --after ask for is gone, it says so on stderr.

With --json, every line is one object:
  {\"room\":\"lobby\",\"offset\":12,\"time\":1764025200000,\"data\":{\"text\":\"hello\"}}
  {\"room\":\"lobby\",\"reload\":true}    deltas were missed for good; load the room's state anew

Examples:
  roomwire tail lobby
  roomwire tail lobby --since 10m          begins with what came in the last ten minutes
  roomwire tail lobby --after 0            begins with all that is kept
  roomwire tail chat:1 chat:2 --json | jq .data.text")]
pub struct Flags {
    /// The rooms
    #[arg(value_name = "ROOM", required = true, value_parser = RoomName::new)]
    rooms: Vec<RoomName>,
    /// Begin with deltas of this time and later: 10m (ago), RFC 3339, or ms since 1970
    #[arg(long, value_name = "TIME", conflicts_with = "after")]
    since: Option<Moment>,
    /// Begin behind this offset; 0 is in front of all that is kept
    #[arg(long, value_name = "OFFSET")]
    after: Option<u64>,
    /// The life of the log that --after belongs to
    #[arg(long, requires = "after")]
    epoch: Option<String>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerFlags,
}

pub async fn run(mut flags: Flags) -> anyhow::Result<()> {
    flags.rooms.sort();
    flags.rooms.dedup();
    let out = io::stdout();
    let form = Form::fitting(&out, flags.json);
    let printer = Printer::new(out, form);
    let server = flags.server.server();
    let client = HttpClient::new(server.clone());
    let start = match (flags.after, flags.since) {
        (Some(offset), _) => Start::After(Position {
            offset,
            epoch: flags.epoch.unwrap_or_default().into(),
        }),
        (None, Some(Moment(time))) => Start::Since(time),
        (None, None) => Start::Now,
    };
    let mut tail = Tail::new(server, flags.rooms.clone(), printer);
    let work = async {
        tail.begin(&client, &flags.rooms, &start).await?;
        tail.run().await
    };
    tokio::select! {
        result = work => result,
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        () = reader_gone() => Ok(()),
    }
}

/// Returns once nobody can read the standard output any more, which a quiet room would never find
/// out by writing.
async fn reader_gone() {
    let (gone, told) = oneshot::channel();
    thread::spawn(move || {
        let stdout = io::stdout();
        // Errors and hang-ups are told without being asked for, and nothing else is.
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        if poll(&mut watched, None).is_ok() {
            let _ = gone.send(());
        }
    });
    if told.await.is_err() {
        future::pending().await
    }
}

struct Tail<W: Write> {
    url: ServerUrl,
    follower: Follower,
    printer: Printer<W>,
    buffer: ReadBuffer,
    backoff: Backoff,
    /// How long a new connection may be silent.
    first_silence: Duration,
    ever_connected: bool,
}

/// Why a session ended.
enum Ended {
    Stopped(Stop),
    /// Nobody reads the output any more.
    ReaderGone,
}

impl<W: Write> Tail<W> {
    fn new(url: ServerUrl, rooms: Vec<RoomName>, printer: Printer<W>) -> Self {
        Self {
            url,
            follower: Follower::new("roomwire tail", rooms),
            printer,
            buffer: ReadBuffer::default(),
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(20)),
            first_silence: FIRST_SILENCE,
            ever_connected: false,
        }
    }

    /// Lets the first session begin where `start` says.
    async fn begin(
        &mut self,
        client: &HttpClient,
        rooms: &[RoomName],
        start: &Start,
    ) -> anyhow::Result<()> {
        let mut patience = Patience::default();
        for room in rooms {
            let place = loop {
                match start.find(client, room).await {
                    Ok(place) => break place,
                    Err(error) => patience.wait_or_fail(error).await?,
                }
            };
            patience.answered();
            let Some(place) = place else { continue };
            if !place.complete {
                announce_reload(&mut self.printer, room);
            }
            self.follower.begin_behind(room, place.position);
        }
        Ok(())
    }

    async fn run(&mut self) -> anyhow::Result<()> {
        loop {
            let why = match Socket::open(&self.url, &self.buffer).await {
                Ok(socket) => {
                    let Err(ended) = self.session(socket).await;
                    match ended {
                        Ended::ReaderGone => return Ok(()),
                        Ended::Stopped(Stop::Over(why)) => anyhow::bail!(why),
                        Ended::Stopped(Stop::Again(why)) => why,
                    }
                }
                Err(error) if self.ever_connected => error.to_string(),
                Err(error @ SocketError::Unreachable { .. }) => {
                    let advice = how_to_reach(&self.url);
                    return Err(anyhow::Error::new(error).context(advice));
                }
                Err(error) => return Err(error.into()),
            };
            let wait = self.backoff.next(Uuid::new_v4().as_u64_pair().0);
            eprintln!("{why}; connecting again in {:.1} s", wait.as_secs_f64());
            tokio::time::sleep(wait).await;
        }
    }

    async fn session(&mut self, mut socket: Socket) -> Result<Infallible, Ended> {
        let mut silence = self.first_silence;
        socket.send(&self.follower.open()).await?;
        loop {
            let (mut answers, mut stop) = (Vec::new(), None);
            let longest = silence;
            let received = socket.receive(|message| {
                if stop.is_some() {
                    return;
                }
                let taken = self.follower.receive(message, |event| match event {
                    Event::Connected { silence: told } => {
                        silence = told.unwrap_or(Duration::MAX);
                        self.ever_connected = true;
                        self.backoff.reset();
                    }
                    Event::Delta {
                        room,
                        offset,
                        time,
                        data,
                    } => self.printer.delta(Line {
                        room,
                        offset,
                        time,
                        id: None,
                        info: None,
                        data,
                    }),
                    Event::Reload { room } => announce_reload(&mut self.printer, room),
                });
                match taken {
                    Ok(answer) => answers.extend(answer),
                    Err(why) => stop = Some(why),
                }
            });
            let received = timeout(longest, received).await;
            self.printer.flush()?;
            if let Some(why) = stop {
                return Err(Ended::Stopped(why));
            }
            received.map_err(|_| {
                let why = format!("the server was silent for {} s", longest.as_secs());
                Ended::Stopped(Stop::Again(why))
            })??;
            if !answers.is_empty() {
                socket.send(&answers.join("\n")).await?;
            }
        }
    }
}

fn announce_reload<W: Write>(printer: &mut Printer<W>, room: &RoomName) {
    eprintln!("deltas of room \"{room}\" were missed and can't be replayed; load its state anew");
    printer.reload(room);
}

impl From<SocketError> for Ended {
    fn from(error: SocketError) -> Self {
        Self::Stopped(match error {
            SocketError::Closed { code, reason } => closed(code, &reason),
            other => Stop::Again(other.to_string()),
        })
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::Stopped(Stop::Over(format!("can't write the output: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_codec::Framed;
    use actix_http::ws::{Codec, Frame, Message, hash_key};
    use futures_util::{SinkExt, StreamExt};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    /// The server's end of one connection.
    struct Session(Framed<TcpStream, Codec>);

    impl Session {
        async fn accept(listener: &TcpListener) -> Self {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut request).await.unwrap();
            }
            let request = String::from_utf8(request).unwrap();
            assert!(request.starts_with("GET /connection/websocket HTTP/1.1\r\n"));
            let (_, key) = request.split_once("Sec-WebSocket-Key: ").unwrap();
            let proof = hash_key(key.trim_end().as_bytes());
            let answer = format!(
                "HTTP/1.1 101 X\r\nSec-WebSocket-Accept: {}\r\n\r\n",
                std::str::from_utf8(&proof).unwrap()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            Self(Framed::new(stream, Codec::new()))
        }

        async fn hears(&mut self) -> String {
            match self.0.next().await.unwrap().unwrap() {
                Frame::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
                other => panic!("{other:?}"),
            }
        }

        async fn says(&mut self, text: &str) {
            self.0.send(Message::Text(text.into())).await.unwrap();
        }
    }

    async fn world() -> (TcpListener, Tail<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let rooms = vec![RoomName::new("lobby").unwrap()];
        let tail = Tail::new(
            url.parse().unwrap(),
            rooms,
            Printer::new(Vec::new(), Form::Plain),
        );
        (listener, tail)
    }

    fn terminal() -> Message {
        Message::Close(Some((3507.into(), "permission denied").into()))
    }

    #[actix_rt::test]
    async fn a_cut_connection_is_taken_up_behind_the_last_line_printed() {
        let (listener, mut tail) = world().await;
        let server = async {
            let mut first = Session::accept(&listener).await;
            first.hears().await;
            first
                .says("{\"id\":1,\"connect\":{\"ping\":25,\"pong\":true}}\n{\"id\":2,\"subscribe\":{\"recoverable\":true,\"epoch\":\"e\",\"offset\":1}}")
                .await;
            first.says("{}").await;
            assert_eq!(first.hears().await, "{}");
            let delta = r#"{"push":{"channel":"lobby","pub":{"data":"a","offset":2}}}"#;
            first.says(delta).await;
            // The answer to a second ping tells that the delta was taken.
            first.says("{}").await;
            first.hears().await;
            drop(first);

            let mut second = Session::accept(&listener).await;
            let opened = second.hears().await;
            assert!(
                opened.contains(r#""recover":true,"offset":2,"epoch":"e""#),
                "{opened}"
            );
            second
                .says(r#"{"id":4,"subscribe":{"recoverable":true,"was_recovering":true,"recovered":true,"epoch":"e","offset":2,"publications":[{"data":"b","offset":3}]}}"#)
                .await;
            second.0.send(terminal()).await.unwrap();
        };
        let (result, ()) = tokio::join!(tail.run(), server);
        assert_eq!(
            result.unwrap_err().to_string(),
            "the server closed the connection: 3507 permission denied"
        );
        assert_eq!(tail.printer.into_inner(), b"lobby 2 \"a\"\nlobby 3 \"b\"\n");
    }

    #[actix_rt::test]
    async fn a_silent_server_is_left_for_a_new_connection() {
        let (listener, mut tail) = world().await;
        tail.first_silence = Duration::from_millis(20);
        tail.ever_connected = true;
        tail.backoff = Backoff::new(Duration::ZERO, Duration::ZERO);
        let server = async {
            let _silent = Session::accept(&listener).await;
            let mut second = Session::accept(&listener).await;
            second.hears().await;
            second.0.send(terminal()).await.unwrap();
        };
        let (result, ()) = tokio::join!(tail.run(), server);
        assert!(result.is_err());
    }

    #[actix_rt::test]
    async fn a_server_that_is_away_at_the_start_is_named_with_what_to_do() {
        let (listener, mut tail) = world().await;
        drop(listener);
        let text = format!("{:#}", tail.run().await.unwrap_err());
        assert!(
            text.contains("start one with `roomwire serve --dev`"),
            "{text}"
        );
        assert_eq!(text.matches("Connection refused").count(), 1, "{text}");
    }
}
