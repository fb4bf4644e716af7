//! What a client that follows rooms says and remembers. Pure: [`Follower`] takes the server's
//! messages and returns what to answer; the caller owns the socket and the clock.

use std::time::Duration;

use serde_json::value::RawValue;

use crate::{
    client::message::{self, Connected, PONG, Publication, Refusal, Reply, Subscribed},
    delta::{Position, RoomName},
};

/// What a follower learns, in the order of the log.
#[derive(Debug)]
pub enum Event<'a> {
    /// The session is open; a server that is silent for longer than `silence` is gone.
    Connected { silence: Option<Duration> },
    Delta {
        room: &'a RoomName,
        offset: u64,
        /// Milliseconds since the Unix epoch.
        time: u64,
        /// One line of JSON.
        data: &'a RawValue,
    },
    /// What was missed can't be replayed: the state built from this room's deltas has to be loaded
    /// anew.
    Reload { room: &'a RoomName },
}

/// Why a session ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// Worth another connection, after a while.
    #[error("{0}")]
    Again(String),
    /// Another connection would end the same way.
    #[error("{0}")]
    Over(String),
}

/// Follows rooms over any number of connections, one after the other.
#[derive(Debug)]
pub struct Follower {
    program: &'static str,
    rooms: Vec<Followed>,
    last_id: u32,
    connect_id: u32,
    answers_pings: bool,
}

#[derive(Debug)]
struct Followed {
    name: RoomName,
    /// Up to where this room was seen; `None` before the first answer, unless the caller knows better, and in rooms
    /// without history.
    position: Option<Position>,
    /// Whether the server ever answered for this room.
    known: bool,
    /// The subscribe command under way; 0 if there is none.
    asked: u32,
}

/// How long a server may be late with its ping, in the client protocol's SDKs as well.
const PING_GRACE: Duration = Duration::from_secs(10);

impl Follower {
    /// `program` is the name under which the server knows this client.
    pub fn new(program: &'static str, rooms: impl IntoIterator<Item = RoomName>) -> Self {
        let followed = |name| Followed {
            name,
            position: None,
            known: false,
            asked: 0,
        };
        Self {
            program,
            rooms: rooms.into_iter().map(followed).collect(),
            last_id: 0,
            connect_id: 0,
            answers_pings: false,
        }
    }

    /// Begins with what came behind `position` instead of what comes next.
    pub fn begin_behind(&mut self, room: &RoomName, position: Position) {
        if let Some(room) = self
            .rooms
            .iter_mut()
            .find(|followed| followed.name == *room)
        {
            room.position = Some(position);
        }
    }

    /// What to say first on a new connection: who this is, and all rooms, each from where it was
    /// left.
    pub fn open(&mut self) -> String {
        self.connect_id = next_id(&mut self.last_id);
        self.answers_pings = false;
        let mut frame = message::connect(self.connect_id, self.program);
        for room in &mut self.rooms {
            frame.push('\n');
            frame += &room.subscribe(&mut self.last_id);
        }
        frame
    }

    /// Whether the server has answered for every room.
    pub fn is_complete(&self) -> bool {
        self.rooms.iter().all(|room| room.known)
    }

    /// Takes one message; returns what to answer.
    pub fn receive(
        &mut self,
        message: &[u8],
        mut each: impl FnMut(Event<'_>),
    ) -> Result<Option<String>, Stop> {
        let reply: Reply = serde_json::from_slice(message).map_err(|error| {
            Stop::Over(format!(
                "the server sent what is no message of the client protocol: {error}"
            ))
        })?;
        if reply.id == 0 {
            return match reply.push {
                Some(push) => self.push(push, each),
                None => Ok(self.answers_pings.then(|| PONG.to_owned())),
            };
        }
        if reply.id == self.connect_id {
            let Connected { ping, pong } = answer(reply.connect, reply.error, "the session")?;
            self.answers_pings = pong;
            let silence = (ping > 0).then(|| Duration::from_secs(ping) + PING_GRACE);
            each(Event::Connected { silence });
        } else if let Some(room) = self.rooms.iter_mut().find(|room| room.asked == reply.id) {
            let what = format!("room {:?}", room.name);
            room.subscribed(answer(reply.subscribe, reply.error, &what)?, each);
        }
        Ok(None)
    }

    fn push(
        &mut self,
        push: message::Push<'_>,
        each: impl FnMut(Event<'_>),
    ) -> Result<Option<String>, Stop> {
        if let Some(ended) = push.disconnect {
            return Err(closed(ended.code, &ended.reason));
        }
        let named = |room: &&mut Followed| room.name.as_str() == push.channel;
        let Some(room) = self.rooms.iter_mut().find(named) else {
            return Ok(None);
        };
        if let Some(publication) = push.publication {
            room.delta(&publication, each);
        } else if let Some(ended) = push.unsubscribe {
            if ended.code < 2500 {
                return Err(Stop::Over(format!(
                    "the server ended the subscription to room {:?}: {} {}",
                    room.name, ended.code, ended.reason
                )));
            }
            return Ok(Some(room.subscribe(&mut self.last_id)));
        }
        Ok(None)
    }
}

impl Followed {
    fn subscribe(&mut self, last_id: &mut u32) -> String {
        self.asked = next_id(last_id);
        message::subscribe(self.asked, &self.name, self.position.as_ref())
    }

    fn subscribed(&mut self, result: Subscribed<'_>, mut each: impl FnMut(Event<'_>)) {
        self.asked = 0;
        let replayed = result.was_recovering && result.recovered;
        if (self.known || self.position.is_some()) && !replayed {
            each(Event::Reload { room: &self.name });
        }
        self.known = true;
        self.position = result.recoverable.then(|| Position {
            offset: result.offset,
            epoch: result.epoch.into(),
        });
        for publication in &result.publications {
            self.delta(publication, &mut each);
        }
    }

    fn delta(&mut self, publication: &Publication<'_>, mut each: impl FnMut(Event<'_>)) {
        if let Some(position) = &mut self.position
            && publication.offset > 0
        {
            position.offset = publication.offset;
        }
        each(Event::Delta {
            room: &self.name,
            offset: publication.offset,
            time: publication.time,
            data: publication.data,
        });
    }
}

fn next_id(last: &mut u32) -> u32 {
    // 0 means "no id" on the wire.
    *last = last.checked_add(1).unwrap_or(1);
    *last
}

fn answer<T>(result: Option<T>, error: Option<Refusal>, what: &str) -> Result<T, Stop> {
    if let Some(Refusal {
        code,
        message,
        temporary,
    }) = error
    {
        let text = format!("the server refused {what}: {code} {message}");
        return Err(if temporary || code < 100 {
            Stop::Again(text)
        } else {
            Stop::Over(text)
        });
    }
    result.ok_or_else(|| Stop::Over(format!("the server's answer for {what} has no result")))
}

/// What the code of a close frame means for the next connection.
pub fn closed(code: u16, reason: &str) -> Stop {
    let text = match reason {
        "" => format!("the server closed the connection: {code}"),
        _ => format!("the server closed the connection: {code} {reason}"),
    };
    match code {
        3500..=3999 | 4500..=4999 => Stop::Over(text),
        _ => Stop::Again(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lobby() -> RoomName {
        RoomName::new("lobby").unwrap()
    }

    /// A follower of one room and a line for each thing it learnt.
    struct Session {
        follower: Follower,
        seen: Vec<String>,
    }

    impl Session {
        fn new() -> Self {
            let follower = Follower::new("test", [lobby()]);
            Self {
                follower,
                seen: Vec::new(),
            }
        }

        fn take(&mut self, message: &str) -> Result<Option<String>, Stop> {
            let seen = &mut self.seen;
            self.follower
                .receive(message.as_bytes(), |event| match event {
                    Event::Connected { silence } => seen.push(format!("connected {silence:?}")),
                    Event::Delta {
                        room, offset, data, ..
                    } => seen.push(format!("{room} {offset} {data}")),
                    Event::Reload { room } => seen.push(format!("reload {room}")),
                })
        }

        fn takes(&mut self, message: &str) {
            assert_eq!(self.take(message), Ok(None), "{message}");
        }
    }

    #[test]
    fn a_lost_connection_is_taken_up_behind_the_last_delta_seen() {
        let mut session = Session::new();
        assert_eq!(
            session.follower.open(),
            concat!(
                r#"{"id":1,"connect":{"name":"test","version":"0.1.0"}}"#,
                "\n",
                r#"{"id":2,"subscribe":{"channel":"lobby"}}"#
            )
        );
        session.takes(r#"{"id":1,"connect":{"client":"c","ping":25,"pong":true,"flag":1}}"#);
        session.takes(
            r#"{"id":2,"subscribe":{"recoverable":true,"positioned":true,"epoch":"e","offset":7}}"#,
        );
        session.takes(
            r#"{"push":{"channel":"lobby","pub":{"data":12345678901234567890,"offset":9,"time":5}}}"#,
        );
        assert!(session.follower.open().ends_with(
            r#"{"id":4,"subscribe":{"channel":"lobby","recover":true,"offset":9,"epoch":"e"}}"#
        ));
        session.takes(r#"{"id":3,"connect":{"client":"d"}}"#);
        session.takes(
            r#"{"id":4,"subscribe":{"recoverable":true,"was_recovering":true,"recovered":true,"epoch":"e","offset":9,"publications":[{"data":{"a":1},"offset":11},{"data":2,"offset":14}]}}"#,
        );
        session.takes(r#"{"push":{"channel":"lobby","pub":{"data":3,"offset":15}}}"#);
        assert_eq!(
            session.seen,
            [
                "connected Some(35s)",
                "lobby 9 12345678901234567890",
                "connected None",
                r#"lobby 11 {"a":1}"#,
                "lobby 14 2",
                "lobby 15 3"
            ]
        );
        assert!(session.follower.open().contains(r#""offset":15"#));
    }

    #[test]
    fn a_lost_position_is_told_and_the_new_one_kept() {
        let mut session = Session::new();
        session.follower.open();
        session.takes(r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"e","offset":7}}"#);
        session.follower.open();
        session.takes(
            r#"{"id":4,"subscribe":{"recoverable":true,"was_recovering":true,"epoch":"f","offset":3}}"#,
        );
        assert_eq!(session.seen, ["reload lobby"]);
        let again = session.follower.open();
        assert!(
            again.contains(r#""recover":true,"offset":3,"epoch":"f""#),
            "{again}"
        );
    }

    #[test]
    fn a_position_to_begin_at_that_is_lost_is_told_too() {
        let mut session = Session::new();
        let position = Position {
            offset: 5,
            epoch: "e".into(),
        };
        session.follower.begin_behind(&lobby(), position);
        let opened = session.follower.open();
        assert!(opened.contains(r#""recover":true,"offset":5,"epoch":"e""#));
        session.takes(r#"{"id":2,"subscribe":{"recoverable":true,"was_recovering":true,"epoch":"e","offset":9}}"#);
        assert_eq!(session.seen, ["reload lobby"]);
    }

    #[test]
    fn a_room_without_history_is_told_to_reload_after_every_gap() {
        let mut session = Session::new();
        session.follower.open();
        assert!(!session.follower.is_complete());
        session.takes(r#"{"id":2,"subscribe":{}}"#);
        assert!(session.follower.is_complete());
        assert!(session.follower.open().ends_with(r#"{"channel":"lobby"}}"#));
        session.takes(r#"{"id":4,"subscribe":{}}"#);
        assert_eq!(session.seen, ["reload lobby"]);
    }

    #[test]
    fn pings_are_answered_only_if_the_server_wants_it() {
        let mut session = Session::new();
        session.follower.open();
        session.takes("{}");
        session.takes(r#"{"id":1,"connect":{"ping":25,"pong":true}}"#);
        assert_eq!(session.take("{}"), Ok(Some("{}".into())));
    }

    #[test]
    fn insufficient_state_resubscribes_at_once_from_the_last_delta() {
        let mut session = Session::new();
        session.follower.open();
        session.takes(r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"e","offset":7}}"#);
        let push = r#"{"push":{"channel":"lobby","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#;
        assert_eq!(
            session.take(push).unwrap().unwrap(),
            r#"{"id":3,"subscribe":{"channel":"lobby","recover":true,"offset":7,"epoch":"e"}}"#
        );
        let push = r#"{"push":{"channel":"lobby","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#;
        assert!(matches!(session.take(push), Err(Stop::Over(_))));
    }

    #[test]
    fn refusals_end_it_unless_they_are_temporary() {
        let mut session = Session::new();
        session.follower.open();
        let busy =
            r#"{"id":1,"error":{"code":111,"message":"too many requests","temporary":true}}"#;
        assert!(matches!(session.take(busy), Err(Stop::Again(_))));
        let unknown = r#"{"id":2,"error":{"code":102,"message":"unknown channel"}}"#;
        assert_eq!(
            session.take(unknown).unwrap_err().to_string(),
            r#"the server refused room "lobby": 102 unknown channel"#
        );
    }

    #[test]
    fn only_terminal_codes_end_it_for_good() {
        for code in [1006, 3001, 3008, 3499, 4000, 4499] {
            assert!(matches!(closed(code, "x"), Stop::Again(_)), "{code}");
        }
        for code in [3500, 3999, 4500, 4999] {
            assert!(matches!(closed(code, "x"), Stop::Over(_)), "{code}");
        }
    }

    #[test]
    fn pushes_that_a_follower_has_no_use_for_change_nothing() {
        let mut session = Session::new();
        session.follower.open();
        session.takes(r#"{"push":{"channel":"lobby","join":{"info":{"user":"","client":"c"}}}}"#);
        session.takes(r#"{"push":{"channel":"other","pub":{"data":1,"offset":1}}}"#);
        session.takes(r#"{"push":{"message":{"data":1}}}"#);
        assert!(session.seen.is_empty());
    }
}
