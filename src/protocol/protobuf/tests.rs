mod reading;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use serde_json::{Value, json};
use uuid::Uuid;

use self::reading::{lines, read};
use super::messages::{self as wire, Command};
use crate::{
    access::Access,
    config::{ClientPublish, Config, Namespace, Namespaces, RoomAccess},
    delta::{Delta, RoomName},
    protocol::{
        codes::{Disconnect, ErrorCode, Unsubscribe},
        format::Codec,
        frame::{self, FrameBuilder},
        reply::{
            self, ClientInfo, Connected, Emulated, Lasting, Outcome, Presence, Publication,
            Refreshed, Subscribed,
        },
        session::{Effect, Policy, Session, SessionSettings},
    },
};

fn some_json() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("null".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<String>().prop_map(|text| json!({ "text": text }).to_string()),
    ]
}

fn some_client() -> impl Strategy<Value = ClientInfo> {
    let info = prop::option::of("[a-z]{0,3}".prop_map(|role| json!({ "role": role }).to_string()));
    (".{0,4}", any::<u128>(), info).prop_map(|(user, id, info)| ClientInfo {
        user: user.into(),
        id: Uuid::from_u128(id),
        info: info.map(Into::into),
    })
}

fn some_delta() -> impl Strategy<Value = Delta> {
    let publisher = prop::option::of(some_client());
    let numbers = (1_u64..1 << 53, 1_u64..1 << 53);
    (numbers, some_json(), publisher, ".{1,4}", any::<bool>()).prop_map(
        |((offset, time), data, publisher, id, keyed)| Delta {
            room: room(),
            offset,
            time,
            id: id.into(),
            keyed,
            data: data.into(),
            info: publisher
                .map(|info| serde_json::to_vec(&info).unwrap().into())
                .unwrap_or_default(),
            exclude: None,
        },
    )
}

fn room() -> RoomName {
    RoomName::new("chat:1").unwrap()
}

/// The same in both codecs.
fn same(encode: impl Fn(Codec) -> Bytes) {
    let told = read(&encode(Codec::Protobuf));
    assert_eq!(told, lines(&encode(Codec::Json)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_a_room_says_reads_the_same_as_in_json(
        deltas in prop::collection::vec(some_delta(), 1..4),
        clients in prop::collection::vec(some_client(), 1..4),
        recovered in any::<bool>(),
        offset in 1_u64..1 << 53,
        id in 1_u32..,
        ttl in prop::option::of(1_u32..),
    ) {
        let publications = || deltas.iter().map(Publication::from).collect();
        same(|codec| {
            let mut frame = FrameBuilder::new(codec);
            for delta in &deltas {
                reply::write_delta(&mut frame, delta);
                reply::write_unstored(&mut frame, &delta.room, &delta.data, delta.keyed.then_some(&delta.id));
                reply::write_ephemeral(&mut frame, &delta.room, &delta.data, &clients[0]);
            }
            frame.finish().unwrap()
        });
        same(|codec| reply::join_frame(codec, &room(), &clients[0]));
        same(|codec| reply::leave_frame(codec, &room(), &clients[0]));
        same(|codec| reply::unsubscribe_frame(codec, &room(), Unsubscribe::INSUFFICIENT_STATE));
        let emulated = recovered.then(|| Emulated { session: "s".into(), node: "n".into() });
        let lasting = ttl.map(Lasting::seconds).unwrap_or_default();
        for outcome in [
            Outcome::Connect(Connected {
                client: clients[0].id.to_string(),
                version: "v",
                ping: 25,
                pong: true,
                lasting,
                emulated,
            }),
            Outcome::Subscribe(Subscribed {
                recoverable: true,
                positioned: true,
                epoch: "e",
                offset,
                recovered,
                was_recovering: true,
                publications: publications(),
                lasting,
            }),
            Outcome::SubscribeUnstored { was_recovering: recovered },
            Outcome::Refresh(Refreshed {
                client: clients[0].id.to_string(),
                version: "v",
                lasting,
            }),
            Outcome::SubRefresh(lasting),
            Outcome::Unsubscribe {},
            Outcome::Publish {},
            Outcome::Presence { presence: Presence(&clients) },
            Outcome::PresenceStats { num_clients: clients.len(), num_users: 0 },
            Outcome::History { publications: publications(), epoch: "e", offset },
            Outcome::History { publications: vec![], epoch: "e", offset: 0 },
            Outcome::Error(ErrorCode::INTERNAL),
            Outcome::Error(ErrorCode::BAD_REQUEST.because("x")),
        ] {
            same(|codec| reply::reply_frame(codec, id, &outcome));
        }
    }

    #[test]
    fn whatever_a_client_says_does_the_same_as_in_json(
        commands in prop::collection::vec(some_command(), 1..6),
    ) {
        let text: Vec<String> = commands.iter().map(|(json, _)| json.to_string()).collect();
        let mut bytes = vec![];
        for (_, command) in &commands {
            command.encode_length_delimited(&mut bytes).unwrap();
        }
        let (mut json, mut protobuf) = (Client::new(Codec::Json), Client::new(Codec::Protobuf));
        json.hear(text.join("\n").as_bytes());
        protobuf.hear(&bytes);
        prop_assert_eq!(&json.effects, &protobuf.effects);
        let told = json.replies.finish().as_ref().map(lines);
        prop_assert_eq!(protobuf.replies.finish().as_ref().map(read), told);
    }
}

struct Client {
    session: Session,
    replies: FrameBuilder,
    effects: Vec<Effect>,
}

impl Client {
    /// A client that has connected.
    fn new(codec: Codec) -> Self {
        let settings = SessionSettings {
            ping_interval: 25,
            max_rooms: 2,
            max_delta_bytes: 64,
        };
        let mut client = Self {
            session: Session::new(Uuid::nil(), None, settings),
            replies: FrameBuilder::new(codec),
            effects: vec![],
        };
        let connect = Command {
            id: 1,
            connect: Some(Default::default()),
            ..Default::default()
        };
        client.hear(&match codec {
            Codec::Json => br#"{"id":1,"connect":{}}"#.to_vec(),
            Codec::Protobuf => connect.encode_length_delimited_to_vec(),
        });
        assert_eq!(client.effects, [Effect::Connected]);
        client
    }

    fn hear(&mut self, frame: &[u8]) {
        let open = Namespace {
            access: RoomAccess::Public,
            client_publish: ClientPublish::Stored,
            presence: true,
            join_leave: true,
            ..Namespace::default()
        };
        let namespaces: Namespaces = [("default", open)].into_iter().collect();
        let access = Access::open(&Config::default().access, &[], true).unwrap();
        let policy = Policy {
            namespaces: &namespaces,
            access: &access,
            now: 1_764_025_200,
        };
        let Self {
            session,
            replies,
            effects,
        } = self;
        session.receive(frame, policy, replies, effects);
    }
}

/// The same command in JSON and in Protobuf.
fn some_command() -> impl Strategy<Value = (Value, Command)> {
    let room = prop_oneof![
        Just("a"),
        Just("b"),
        Just("c"),
        Just("no room"),
        Just("un:known")
    ];
    let position = (0_u64..1 << 53, "[a-z]{0,3}");
    let flags = (
        any::<bool>(),
        any::<bool>(),
        0_i64..4,
        0_i32..2,
        any::<bool>(),
    );
    let data = prop_oneof![3 => some_json().prop_filter("null is missing", |json| json != "null"), 1 => Just(String::new())];
    (0_usize..12, 1_u32.., room, position, flags, data, -2_i32..5).prop_map(
        |(kind, id, room, (offset, epoch), (recover, join_leave, flag, special, filter), data, limit)| {
            let channel = || Some(wire::ChannelRequest { channel: room.into() });
            let mut command = Command { id, ..Default::default() };
            let (name, request) = match kind {
                0..4 => {
                    command.subscribe = Some(wire::SubscribeRequest {
                        channel: room.into(),
                        token: String::new(),
                        recover,
                        epoch: epoch.clone(),
                        offset,
                        join_leave,
                        tf: (filter && special == 1).then_some(()),
                        flag,
                        kind: special,
                    });
                    let mut request = json!({"channel": room, "recover": recover, "epoch": epoch, "offset": offset,
                        "join_leave": join_leave, "flag": flag, "type": special});
                    if filter && special == 1 {
                        request["tf"] = json!({});
                    }
                    ("subscribe", request)
                }
                4 => {
                    command.unsubscribe = channel();
                    ("unsubscribe", json!({ "channel": room }))
                }
                5 => {
                    command.presence = channel();
                    ("presence", json!({ "channel": room }))
                }
                6 => {
                    command.presence_stats = channel();
                    ("presence_stats", json!({ "channel": room }))
                }
                7 => {
                    let mut request = json!({ "channel": room });
                    if !data.is_empty() {
                        request["data"] = serde_json::from_str(&data).unwrap();
                    }
                    command.publish = Some(wire::PublishRequest {
                        channel: room.into(),
                        data: data.into_bytes(),
                    });
                    ("publish", request)
                }
                8 => {
                    command.history = Some(wire::HistoryRequest {
                        channel: room.into(),
                        limit,
                        since: recover.then(|| wire::StreamPosition { offset, epoch: epoch.clone() }),
                        reverse: join_leave,
                    });
                    let since = recover.then(|| json!({"offset": offset, "epoch": epoch}));
                    ("history", json!({"channel": room, "limit": limit, "since": since, "reverse": join_leave}))
                }
                9 => {
                    command.rpc = Some(());
                    ("rpc", json!({}))
                }
                10 => {
                    command.sub_refresh = Some(wire::SubRefreshRequest {
                        channel: room.into(),
                        token: epoch.clone(),
                    });
                    ("sub_refresh", json!({"channel": room, "token": epoch}))
                }
                _ => {
                    command.send = Some(());
                    ("send", json!({}))
                }
            };
            (json!({"id": id, (name): request}), command)
        },
    )
}

#[test]
fn a_message_of_no_bytes_is_a_ping_and_a_pong() {
    assert_eq!(frame::ping(Codec::Protobuf)[..], [0x82, 1, 0]);
    let mut client = Client::new(Codec::Protobuf);
    client.hear(&[0]);
    assert_eq!(client.effects, [Effect::Connected, Effect::Pong]);
}

#[test]
fn a_frame_that_is_empty_cut_short_or_no_command_ends_the_session_and_what_came_before_counts() {
    let unsubscribe = Command {
        id: 7,
        unsubscribe: Some(wire::ChannelRequest {
            channel: "a".into(),
        }),
        ..Default::default()
    };
    let whole = unsubscribe.encode_length_delimited_to_vec();
    let behind = |rest: &[u8]| [&whole[..], rest].concat();
    let close = [Effect::Connected, Effect::Close(Disconnect::BAD_REQUEST)];
    for bad in [
        behind(&whole[..whole.len() - 1]),
        behind(&[2, 8]),
        behind(&[0xFF; 11]),
        // Text that is no UTF-8, and the wrong kind of field.
        behind(&[5, 0x22, 3, 0x0A, 1, 0xFF]),
        behind(&[2, 0x20, 1]),
    ] {
        let mut client = Client::new(Codec::Protobuf);
        client.replies.finish();
        client.hear(&bad);
        assert_eq!(client.effects, close, "{bad:?}");
        let told = read(&client.replies.finish().unwrap());
        assert_eq!(told, [json!({"id": 7, "unsubscribe": {}})]);
    }
    let mut client = Client::new(Codec::Protobuf);
    client.hear(&[]);
    assert_eq!(client.effects, close);
}

#[test]
fn fields_that_no_one_here_knows_are_skipped() {
    // An unsubscribe with a field of tomorrow.
    let mut client = Client::new(Codec::Protobuf);
    let request = [0x0A, 1, b'a', 0x92, 0x03, 2, b'x', b'y'];
    let mut command = vec![0x08, 9, 0x32, request.len() as u8];
    command.extend(request);
    command.insert(0, command.len() as u8);
    client.replies.finish();
    client.hear(&command);
    let told = read(&client.replies.finish().unwrap());
    assert_eq!(told, [json!({"id": 9, "unsubscribe": {}})]);
}

#[test]
fn data_that_is_no_json_is_refused() {
    let mut client = Client::new(Codec::Protobuf);
    let subscribe = Command {
        id: 2,
        subscribe: Some(wire::SubscribeRequest {
            channel: "a".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    client.hear(&subscribe.encode_length_delimited_to_vec());
    let publish = Command {
        id: 3,
        publish: Some(wire::PublishRequest {
            channel: "a".into(),
            data: vec![1, 2, 3],
        }),
        ..Default::default()
    };
    client.replies.finish();
    client.hear(&publish.encode_length_delimited_to_vec());
    let told = read(&client.replies.finish().unwrap());
    assert_eq!(told[0]["error"]["code"], 107);
}

#[test]
fn tokens_are_not_shown() {
    let request = wire::ConnectRequest {
        token: "secret".into(),
    };
    assert!(!format!("{request:?}").contains("secret"));
    let request = wire::SubscribeRequest {
        token: "secret".into(),
        ..Default::default()
    };
    assert!(!format!("{request:?}").contains("secret"));
    let request = wire::RefreshRequest {
        token: "secret".into(),
    };
    assert!(!format!("{request:?}").contains("secret"));
    let request = wire::SubRefreshRequest {
        token: "secret".into(),
        ..Default::default()
    };
    assert!(!format!("{request:?}").contains("secret"));
}
