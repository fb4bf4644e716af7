use std::{
    sync::atomic::{AtomicUsize, Ordering},
    task::Wake,
    time::Duration,
};

use super::*;
use crate::actors::{
    life::Life,
    room::Room,
    testing::{Recorder, World, fresh, offsets, room, settle},
};

/// A frame of the client.
#[derive(Message)]
#[rtype(result = "()")]
struct Hear(&'static str);

impl Handler<Hear> for Session {
    type Result = ();

    fn handle(&mut self, Hear(frame): Hear, ctx: &mut Self::Context) {
        self.receive(frame.as_bytes(), ctx);
    }
}

/// Whether the client may be read on.
#[derive(Message)]
#[rtype(result = "bool")]
struct MayRead(Waker);

impl Handler<MayRead> for Session {
    type Result = bool;

    fn handle(&mut self, MayRead(waker): MayRead, _: &mut Self::Context) -> bool {
        self.may_read(&waker)
    }
}

/// What the transport does when the socket is gone.
#[derive(Message)]
#[rtype(result = "()")]
struct Stop;

impl Handler<Stop> for Session {
    type Result = ();

    fn handle(&mut self, Stop: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Client {
    session: Addr<Session>,
    wire: Rc<Recorder>,
    life: Arc<Life>,
}

impl Client {
    /// A session whose client has not spoken yet.
    fn silent(world: &World) -> Self {
        let (wire, life) = (Rc::new(Recorder::default()), Arc::new(Life::default()));
        let admission = life.admit(1).unwrap();
        let session = Session::new(
            Transport::WebSocket,
            None,
            wire.clone(),
            world.hub.clone(),
            world.services.clone(),
            admission,
        );
        Self {
            session: session.start(),
            wire,
            life,
        }
    }

    async fn connected(world: &World) -> Self {
        let client = Self::silent(world);
        client.says(r#"{"id":1,"connect":{}}"#).await;
        assert!(client.wire.take()[0][0]["connect"].is_object());
        client
    }

    async fn says(&self, frame: &'static str) {
        self.session.send(Hear(frame)).await.unwrap();
    }
}

#[actix_rt::test]
async fn who_does_not_connect_in_time_is_closed_as_stale() {
    tokio::time::pause();
    let world = World::start();
    let patience = world.services.limits.connect_timeout + Duration::from_millis(1);
    let (silent, connected) = (Client::silent(&world), Client::connected(&world).await);
    settle().await;
    tokio::time::advance(patience).await;
    settle().await;
    assert_eq!(silent.wire.closed_with(), Some(3502));
    assert_eq!(connected.wire.closed_with(), None);
}

#[actix_rt::test]
async fn a_subscribe_is_answered_and_what_is_live_follows() {
    let mut world = World::start();
    let client = Client::connected(&world).await;
    client.says(r#"{"id":2,"subscribe":{"channel":"a"}}"#).await;
    assert_eq!(client.wire.next().await[0][0]["id"], 2);
    world.publish(&room("a"), 2, 1);
    assert_eq!(offsets(&client.wire.next().await), [1, 2]);
}

#[actix_rt::test]
async fn a_room_that_is_full_holds_up_reading_and_loses_nothing() {
    let world = World::start();
    let client = Client::connected(&world).await;
    // A room that is not run yet, and has no place left.
    let (name, mut context) = (room("a"), Context::new());
    context.set_mailbox_capacity(1);
    let (address, registry) = (context.address(), world.services.registry.clone());
    let ask = |ticket| Ask {
        session: 2,
        hub: (world.hub.id, world.hub.addr.clone()),
        command: 1,
        stats: true,
        ticket,
    };
    assert!(registry.tell(&name, |_| address.clone(), ask).is_ok());

    let wakes = Arc::new(Wakes::default());
    let may_read = || client.session.send(MayRead(wakes.clone().into()));
    assert!(may_read().await.unwrap());
    client
        .says(concat!(
            r#"{"id":2,"subscribe":{"channel":"a"}}"#,
            "\n",
            r#"{"id":3,"unsubscribe":{"channel":"a"}}"#,
            "\n",
            r#"{"id":4,"subscribe":{"channel":"a"}}"#
        ))
        .await;
    assert!(!may_read().await.unwrap());
    assert_eq!(wakes.0.load(Ordering::Relaxed), 0);

    context.run(Room::new(name, 1, world.services.clone()));
    let mut ids = Vec::new();
    while ids.len() < 3 {
        let frames = client.wire.next().await;
        ids.extend(frames.iter().flatten().map(|reply| reply["id"].clone()));
    }
    assert_eq!(ids, [2, 3, 4], "in their order");
    settle().await;
    assert!(wakes.0.load(Ordering::Relaxed) > 0);
    assert!(may_read().await.unwrap());
}

#[actix_rt::test]
async fn a_client_that_publishes_too_much_is_told_so() {
    let world = World::start();
    let client = Client::connected(&world).await;
    client
        .says(r#"{"id":2,"subscribe":{"channel":"typing:a"}}"#)
        .await;
    client.wire.next().await;
    let publish = r#"{"id":3,"publish":{"channel":"typing:a","data":1}}"#;
    client.says(publish).await;
    client.says(publish).await;
    settle().await;
    let frames = client.wire.take();
    let replies = frames.iter().flatten().filter(|reply| reply["id"] == 3);
    let replies: Vec<_> = replies.collect();
    assert!(replies[0]["publish"].is_object(), "{replies:?}");
    assert_eq!(replies[1]["error"]["code"], 111);
    let pushed = |message: &&serde_json::Value| message["push"]["pub"]["data"] == 1;
    assert_eq!(frames.iter().flatten().filter(pushed).count(), 1);
}

#[actix_rt::test]
async fn a_session_that_ends_leaves_its_rooms_and_its_place() {
    tokio::time::pause();
    let world = World::start();
    let client = Client::connected(&world).await;
    client
        .says(concat!(
            r#"{"id":2,"subscribe":{"channel":"a"}}"#,
            "\n",
            r#"{"id":3,"subscribe":{"channel":"b"}}"#
        ))
        .await;
    settle().await;
    assert_eq!(client.wire.take().len(), 2);
    assert_eq!(
        (client.life.sessions(), world.services.registry.len()),
        (1, 2)
    );
    client.session.do_send(Stop);
    settle().await;
    assert_eq!(client.life.sessions(), 0);
    tokio::time::advance(world.services.rooms.linger + Duration::from_millis(1)).await;
    settle().await;
    assert!(world.services.registry.is_empty(), "nobody is there");
}

#[actix_rt::test]
async fn a_session_of_a_room_that_failed_comes_back_even_if_it_unsubscribes_first() {
    let world = World::start();
    let client = Client::connected(&world).await;
    client.says(r#"{"id":2,"subscribe":{"channel":"a"}}"#).await;
    client.wire.next().await;
    let key = world.services.registry.get(&room("a")).unwrap().key;
    world.services.registry.forget(&room("a"), key);
    client
        .says(r#"{"id":3,"unsubscribe":{"channel":"a"}}"#)
        .await;
    assert_eq!(client.wire.closed_with(), Some(3004));
}

#[actix_rt::test]
async fn an_unsubscribe_is_answered_by_a_life_of_the_room_that_does_not_know_the_client() {
    let world = World::start();
    let client = Client::connected(&world).await;
    client.says(r#"{"id":2,"subscribe":{"channel":"a"}}"#).await;
    client.wire.next().await;
    let key = world.services.registry.get(&room("a")).unwrap().key;
    world.services.registry.forget(&room("a"), key);
    let elsewhere = world.start_hub(Context::new());
    let there = world.wire_of(&elsewhere, 2);
    let join = Join {
        hub: elsewhere.id,
        ..fresh(2)
    };
    world.subscribe_through(elsewhere.addr.clone(), &room("a"), join);
    there.next().await;
    client
        .says(r#"{"id":3,"unsubscribe":{"channel":"a"}}"#)
        .await;
    assert!(client.wire.next().await[0][0]["unsubscribe"].is_object());
}
