//! What messages may hold, and what becomes of those that hold no delta.

use lapin::types::AMQPValue;

use crate::{
    common::{Broker, Client, Server, View, eventually, server::deltas_of},
    world::{Message, await_history, header, instances, text},
};

#[test]
fn a_message_is_delivered_like_a_delta_that_was_posted() {
    let ([a, b], producer) = instances(Broker::shared());
    let mut client = Client::connect(&b);
    let mut view = View::new("chat:1");
    client.follow(&mut view);
    producer.delta("chat:1", " { \"n\" : 1 } ");
    a.publish("chat:1", "{\"n\":2}");
    producer.delta("chat:1", "{\"n\":3}");
    client.read_into(&mut view, 3);
    eventually(
        "the delta that was posted, and those that were sent",
        || (a.history("chat:1").len() == 3).then_some(()),
    );
    view.assert_exactly(&a.history("chat:1"));
    let counted =
        |server: &Server| server.metric("roomwire_ingress_messages_total{result=\"taken\"}");
    eventually("both to be counted", || {
        (counted(&a) + counted(&b) == 2.0).then_some(())
    });
}

#[test]
fn a_header_names_one_room_or_several_and_each_gets_the_delta() {
    let ([server], producer) = instances(Broker::shared());
    let several = |rooms: &[&str]| {
        let rooms: Vec<_> = rooms.iter().map(|room| text(room)).collect();
        AMQPValue::FieldArray(rooms.into())
    };
    let send = |room| {
        producer.send(Message {
            key: "not a room",
            body: b"1",
            id: Some("same"),
            headers: vec![("room", room)],
        });
    };
    send(text("a,b"));
    send(several(&["x", "chat:1", "y"]));
    // Of these, only the last is new to its room.
    send(several(&["x", "y", "z"]));
    for room in ["a,b", "x", "chat:1", "y", "z"] {
        await_history(&server, room, &["1".into()]);
    }
}

#[test]
fn an_id_counts_once_whether_it_is_posted_or_sent() {
    let ([a, b], producer) = instances(Broker::shared());
    let send = |id: &str, body: &str| {
        producer.send(Message {
            key: "lobby",
            body: body.as_bytes(),
            id: Some(id),
            headers: vec![],
        });
    };
    send("one", "1");
    let first = await_history(&b, "lobby", &["1".into()]);
    let headers = [("Idempotency-Key", "one")];
    let reply = b.post(&deltas_of("lobby"), &headers, "2");
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["offset"], first[0].offset);
    let headers = [("Idempotency-Key", "two")];
    assert_eq!(a.post(&deltas_of("lobby"), &headers, "3").status, 201);
    send("two", "4");
    send("three", "5");
    await_history(&a, "lobby", &["1", "3", "5"].map(String::from));
}

#[test]
fn what_is_no_delta_is_put_away_with_the_reason_and_holds_up_nobody() {
    let ([server], producer) = instances(Broker::shared());
    let several = AMQPValue::FieldArray(vec![text("lobby"), text("bad room")].into());
    let large = vec![b'1'; 4097];
    let bad = [
        (
            Message {
                key: "lobby",
                body: b"{\"a\":",
                ..Message::default()
            },
            "bad-json",
        ),
        (
            Message {
                key: "lobby",
                body: b"",
                ..Message::default()
            },
            "bad-json",
        ),
        (
            Message {
                key: "a b",
                body: b"1",
                ..Message::default()
            },
            "bad-room-name",
        ),
        (
            Message {
                key: "",
                body: b"1",
                ..Message::default()
            },
            "bad-room-name",
        ),
        (
            Message {
                key: "other:1",
                body: b"1",
                ..Message::default()
            },
            "unknown-namespace",
        ),
        (
            Message {
                key: "lobby",
                body: &large,
                ..Message::default()
            },
            "too-large",
        ),
        (
            Message {
                key: "lobby",
                body: b"1",
                id: Some("a b"),
                ..Message::default()
            },
            "bad-idempotency-key",
        ),
        (
            Message {
                key: "k",
                body: b"1",
                headers: vec![("room", several)],
                id: Some("id"),
            },
            "bad-room-name",
        ),
        (
            Message {
                key: "lobby",
                body: b"1",
                headers: vec![("room", AMQPValue::LongInt(7))],
                ..Message::default()
            },
            "bad-room-name",
        ),
    ];
    let mut expected = Vec::new();
    for (n, (message, code)) in bad.into_iter().enumerate() {
        expected.push((code, message.key.to_owned(), message.body.to_vec()));
        producer.send(message);
        producer.delta("lobby", &n.to_string());
    }
    let good: Vec<_> = (0..expected.len()).map(|n| n.to_string()).collect();
    await_history(&server, "lobby", &good);
    for (code, key, body) in &expected {
        let put_away = producer.rejected();
        assert_eq!(header(&put_away, "rejected-code"), *code);
        assert_eq!(header(&put_away, "rejected-routing-key"), *key);
        assert!(header(&put_away, "rejected-reason").len() > 10);
        assert!(header(&put_away, "rejected-time").starts_with("Some(Timestamp"));
        assert_eq!(put_away.data, *body);
    }
    assert_eq!(
        server.metric("roomwire_ingress_messages_total{result=\"rejected\"}"),
        expected.len() as f64
    );
}
