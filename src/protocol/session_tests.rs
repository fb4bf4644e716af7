use super::*;
use crate::{
    config::{Config, RoomAccess},
    protocol::frame::text,
};

fn namespaces() -> Namespaces {
    let default = Namespace {
        access: RoomAccess::Public,
        ..Namespace::default()
    };
    let typing = Namespace {
        client_publish: ClientPublish::Ephemeral,
        ..default.clone()
    };
    let board = Namespace {
        client_publish: ClientPublish::Stored,
        presence: true,
        ..default.clone()
    };
    [("default", default), ("typing", typing), ("board", board)]
        .into_iter()
        .collect()
}

fn anybody() -> Access {
    Access::open(&Config::default().access, &[], true).unwrap()
}

fn policy<'a>(namespaces: &'a Namespaces, access: &'a Access) -> Policy<'a> {
    Policy {
        namespaces,
        access,
        now: 1_764_025_200,
    }
}

struct Client {
    session: Session,
    replies: FrameBuilder,
    effects: Vec<Effect>,
}

impl Client {
    fn fresh() -> Self {
        let settings = SessionSettings {
            ping_interval: 25,
            max_rooms: 2,
            max_delta_bytes: 16,
        };
        Self {
            session: Session::new(Uuid::nil(), None, settings),
            replies: FrameBuilder::default(),
            effects: vec![],
        }
    }

    fn connected() -> Self {
        let mut client = Self::fresh();
        client.send(r#"{"connect":{},"id":41}"#);
        client
    }

    /// The replies' lines and the effects of one frame.
    fn send(&mut self, frame: &str) -> (Vec<String>, Vec<Effect>) {
        self.session.receive(
            frame.as_bytes(),
            policy(&namespaces(), &anybody()),
            &mut self.replies,
            &mut self.effects,
        );
        let frame = self.replies.finish().unwrap_or_default();
        let start = frame.iter().position(|&b| b == b'{').unwrap_or(frame.len());
        let lines = String::from_utf8(frame[start..].to_vec()).unwrap();
        (
            lines.lines().map(str::to_owned).collect(),
            std::mem::take(&mut self.effects),
        )
    }

    fn reply(&mut self, frame: &str) -> String {
        let (replies, effects) = self.send(frame);
        assert_eq!((replies.len(), effects), (1, vec![]), "{frame}");
        replies.into_iter().next().unwrap()
    }

    fn closes_with(mut self, frame: &str) -> Disconnect {
        match self.send(frame).1.pop() {
            Some(Effect::Close(disconnect)) => disconnect,
            other => panic!("{frame} gave {other:?}"),
        }
    }
}

fn subscription(number: u32, room: &str) -> Effect {
    Effect::Subscribe {
        command: 2,
        room: RoomName::new(room).unwrap(),
        number,
        start: Start::Now,
        must_recover: false,
        join_leave: false,
        presence: false,
        lasting: Lasting::default(),
    }
}

#[test]
fn connect_and_subscribes_of_one_frame_are_taken_in_order() {
    let mut client = Client::fresh();
    let (replies, effects) =
        client.send("{\"connect\":{\"name\":\"js\",\"novel\":1},\"id\":41}\n{\"subscribe\":{\"channel\":\"r\",\"flag\":1},\"id\":2}\n");
    assert_eq!(
        replies,
        [concat!(
            r#"{"id":41,"connect":{"client":"00000000-0000-0000-0000-000000000000","version":"roomwire "#,
            env!("CARGO_PKG_VERSION"),
            r#"","ping":25,"pong":true}}"#
        )]
    );
    assert_eq!(effects, [Effect::Connected, subscription(1, "r")]);
}

#[test]
fn what_breaks_the_protocol_ends_the_session_for_good() {
    let bad = Disconnect::BAD_REQUEST;
    assert_eq!(
        Client::fresh().closes_with(r#"{"id":1,"subscribe":{"channel":"r"}}"#),
        bad
    );
    assert_eq!(Client::fresh().closes_with("{}"), bad);
    for frame in [
        r#"{"id":2,"connect":{}}"#,
        r#"{"subscribe":{"channel":"r"}}"#,
        r#"{"id":2,"ping":{}}"#,
        r#"{"id":-1,"subscribe":{"channel":"r"}}"#,
        "",
        "{}\n\n{}",
        "[1]",
        "{\"id\":",
        "\u{feff}{}",
    ] {
        assert_eq!(Client::connected().closes_with(frame), bad, "{frame:?}");
    }
    assert_eq!(
        Client::connected().closes_with(r#"{"send":{"data":1}}"#),
        Disconnect::NOT_AVAILABLE
    );
}

#[test]
fn nothing_behind_a_violation_is_handled() {
    let mut client = Client::connected();
    let (replies, effects) = client.send("[]\n{\"id\":3,\"rpc\":{}}");
    assert_eq!(replies, [""; 0]);
    assert_eq!(effects, [Effect::Close(Disconnect::BAD_REQUEST)]);
    assert_eq!(client.send(r#"{"id":3,"rpc":{}}"#), (vec![], vec![]));
}

#[test]
fn an_empty_object_is_a_pong() {
    let mut client = Client::connected();
    assert_eq!(client.send("{}"), (vec![], vec![Effect::Pong]));
}

#[test]
fn unsubscribe_never_fails_and_a_quick_resubscribe_gets_a_new_number() {
    let mut client = Client::connected();
    assert_eq!(
        client.reply(r#"{"id":2,"unsubscribe":{"channel":"never"}}"#),
        r#"{"id":2,"unsubscribe":{}}"#
    );
    client.send(r#"{"id":2,"subscribe":{"channel":"r"}}"#);
    let (replies, effects) = client.send(
        "{\"id\":3,\"unsubscribe\":{\"channel\":\"r\"}}\n{\"id\":2,\"subscribe\":{\"channel\":\"r\"}}",
    );
    assert_eq!(replies, [""; 0]);
    let left = Effect::Unsubscribe {
        command: 3,
        room: RoomName::new("r").unwrap(),
        number: 1,
    };
    assert_eq!(effects, [left, subscription(2, "r")]);
}

#[test]
fn a_second_subscription_of_a_room_and_one_too_many_are_refused() {
    let mut client = Client::connected();
    client.send(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    assert_eq!(
        client.reply(r#"{"id":3,"subscribe":{"channel":"a"}}"#),
        r#"{"id":3,"error":{"code":105,"message":"already subscribed"}}"#
    );
    client.send(r#"{"id":4,"subscribe":{"channel":"b"}}"#);
    assert_eq!(
        client.reply(r#"{"id":5,"subscribe":{"channel":"c"}}"#),
        r#"{"id":5,"error":{"code":106,"message":"limit exceeded: a session takes at most 2 rooms"}}"#
    );
    client.session.subscription_ended(1);
    let (_, effects) = client.send(r#"{"id":2,"subscribe":{"channel":"c"}}"#);
    assert_eq!(effects, [subscription(3, "c")]);
}

#[test]
fn refusals_name_what_is_wrong() {
    let mut client = Client::connected();
    for (request, error) in [
        (
            r#""subscribe":{"channel":"a b"}"#,
            r#""code":107,"message":"bad request: room name \"a b\" has ' ' at byte 1; it takes letters, digits and _-.:@#,=+~$!&""#,
        ),
        (
            r#""subscribe":{"channel":"nowhere:1"}"#,
            r#""code":102,"message":"unknown channel: room \"nowhere:1\" is in the namespace \"nowhere\", which the configuration does not define; add [namespaces.nowhere] or use one of: board, default, typing""#,
        ),
        (
            r#""subscribe":{"channel":"a","type":1}"#,
            r#""code":108,"message":"not available: only plain subscriptions (type 0) are served""#,
        ),
        (
            r#""subscribe":{"channel":"a","tf":{"op":"and"}}"#,
            r#""code":107,"message":"bad request: filters by tags are not served""#,
        ),
        (
            r#""publish":{"channel":"a","data":1}"#,
            r#""code":108,"message":"not available: publish through the HTTP API""#,
        ),
        (
            r#""publish":{"channel":"typing:1","data":1}"#,
            r#""code":103,"message":"permission denied: only subscribers of the room publish""#,
        ),
        (
            r#""presence":{"channel":"a"}"#,
            r#""code":108,"message":"not available: the room's namespace keeps no presence""#,
        ),
        (
            r#""history":{"channel":"a","reverse":true,"since":{"offset":0,"epoch":""}}"#,
            r#""code":107,"message":"bad request: nothing stands before offset 0""#,
        ),
        (
            r#""rpc":{"method":"m"}"#,
            r#""code":108,"message":"not available: there are no remote procedures; call your own HTTP API""#,
        ),
        (
            r#""sub_refresh":{"channel":"r","token":"t"}"#,
            r#""code":103,"message":"permission denied: there is no such subscription""#,
        ),
        (
            r#""novelty":{}"#,
            r#""code":104,"message":"method not found""#,
        ),
    ] {
        assert_eq!(
            client.reply(&format!(r#"{{"id":9,{request}}}"#)),
            format!(r#"{{"id":9,"error":{{{error}}}}}"#)
        );
    }
}

#[test]
fn a_client_publishes_only_where_its_namespace_says_so_and_on_one_line() {
    let mut client = Client::connected();
    client.send("{\"id\":2,\"subscribe\":{\"channel\":\"typing:1\"}}\n{\"id\":2,\"subscribe\":{\"channel\":\"board:1\"}}");
    let (_, effects) =
        client.send(r#"{"id":3,"publish":{"channel":"typing:1","data":{"a" : 1.0}}}"#);
    let published = |room: &str| {
        (
            RoomName::new(room).unwrap(),
            Bytes::from_static(b"{\"a\":1.0}"),
        )
    };
    let (room, data) = published("typing:1");
    assert_eq!(
        effects,
        [Effect::PublishEphemeral {
            command: 3,
            room,
            data,
            rate: 10
        }]
    );
    let (_, effects) = client.send(r#"{"id":4,"publish":{"channel":"board:1","data":{"a" :1.0}}}"#);
    let (room, data) = published("board:1");
    assert_eq!(
        effects,
        [Effect::PublishStored {
            command: 4,
            room,
            data,
            rate: 10
        }]
    );
    assert_eq!(
        client.reply(r#"{"id":5,"publish":{"channel":"board:1","data":"12345678901234567"}}"#),
        r#"{"id":5,"error":{"code":106,"message":"limit exceeded: a delta takes at most 16 bytes"}}"#
    );
}

#[test]
fn bad_utf8_ends_the_session_and_deep_nesting_does_not_end_the_server() {
    let mut client = Client::connected();
    client.session.receive(
        b"{\"id\":2,\"subscribe\":{\"channel\":\"a\",\"novel\":\"\xff\"}}",
        policy(&namespaces(), &anybody()),
        &mut client.replies,
        &mut client.effects,
    );
    assert_eq!(client.effects, [Effect::Close(Disconnect::BAD_REQUEST)]);

    let deep = format!(
        r#"{{"id":2,"rpc":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let mut client = Client::connected();
    let (replies, effects) = client.send(&deep);
    assert_eq!(
        (replies.len(), effects),
        (1, vec![]),
        "rpc data is skipped, not read"
    );
}

#[test]
fn replies_are_frames_of_their_own_lines() {
    let mut client = Client::connected();
    client.session.receive(
        b"{\"id\":2,\"unsubscribe\":{\"channel\":\"a\"}}\n{\"id\":3,\"unsubscribe\":{\"channel\":\"b\"}}",
        policy(&namespaces(), &anybody()),
        &mut client.replies,
        &mut client.effects,
    );
    assert_eq!(
        client.replies.finish().unwrap(),
        text(b"{\"id\":2,\"unsubscribe\":{}}\n{\"id\":3,\"unsubscribe\":{}}")
    );
}
