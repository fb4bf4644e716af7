use super::*;
use std::time::Duration;

use crate::actors::{
    dispatch::RoomDispatch,
    registry::Unsent,
    testing::{World, fresh, from, hub_id, offsets, room, settle},
};
use crate::log::pipeline::Dispatch;

/// Ends a room by a defect.
#[derive(Message)]
#[rtype(result = "()")]
struct Break;

impl Handler<Break> for Room {
    type Result = ();

    fn handle(&mut self, Break: Break, _: &mut Self::Context) {
        panic!("a defect, for a test");
    }
}

fn large(offset: u64, room: &RoomName) -> Deltas {
    Deltas(vec![Arc::new(Delta {
        room: room.clone(),
        offset,
        time: 1,
        id: "".into(),
        keyed: false,
        data: format!("\"{}\"", "x".repeat(100_000)).into(),
        info: Bytes::new(),
        exclude: None,
    })])
}

#[actix_rt::test]
async fn the_reply_comes_before_what_is_live() {
    let mut world = World::start();
    let wire = world.wire(1);
    let room = room("a");
    world.publish(&room, 2, 1);
    world.subscribe(&room, fresh(1));
    world.publish(&room, 1, 1);
    settle().await;
    let frames = wire.take();
    // The room began when both were under way, so the third delta was history to it.
    assert_eq!(frames[0][0]["subscribe"]["offset"], 3);
    assert_eq!(offsets(&frames), [] as [u64; 0]);
    world.publish(&room, 1, 1);
    assert_eq!(offsets(&wire.next().await), [4]);
}

#[actix_rt::test]
async fn deltas_that_come_together_go_out_in_one_frame() {
    let mut world = World::start();
    let wire = world.wire(1);
    let room = room("a");
    world.subscribe(&room, fresh(1));
    wire.next().await;
    for _ in 0..3 {
        world.publish(&room, 1, 1);
    }
    settle().await;
    let frames = wire.take();
    assert_eq!((frames.len(), offsets(&frames)), (1, vec![1, 2, 3]));
}

#[actix_rt::test]
async fn a_replay_joins_what_is_live_without_a_gap_while_publishing_goes_on() {
    let mut world = World::start();
    let wire = world.wire(1);
    let room = room("a");
    world.publish(&room, 5_000, 10);
    world.subscribe(&room, from(1, 1_000));
    let mut frames = Vec::new();
    for _ in 0..500 {
        world.publish(&room, 1, 10);
        frames.extend(wire.take());
        tokio::task::yield_now().await;
    }
    while offsets(&frames).last() != Some(&5_500) {
        frames.extend(wire.next().await);
    }
    assert_eq!(frames[0][0]["subscribe"]["recovered"], true);
    assert!(offsets(&frames).into_iter().eq(1_001..=5_500));
}

#[actix_rt::test]
async fn a_room_that_nobody_is_in_rests_after_its_linger() {
    tokio::time::pause();
    let world = World::start();
    let wire = world.wire(1);
    world.subscribe(&room("a"), fresh(1));
    wire.next().await;
    tokio::time::advance(world.services.rooms.linger * 3).await;
    settle().await;
    assert_eq!(world.services.registry.len(), 1, "somebody is here");
    let (addr, ticket) = world.services.registry.hold(&room("a")).unwrap();
    let leave = Leave {
        sub: fresh(1).sub,
        hub: (world.hub.id, world.hub.addr.clone()),
        command: None,
        ticket,
    };
    addr.send(leave).await.unwrap();
    settle().await;
    assert_eq!(world.services.registry.len(), 1, "not at once");
    // Timers go by whole milliseconds.
    tokio::time::advance(world.services.rooms.linger + Duration::from_millis(1)).await;
    settle().await;
    assert!(world.services.registry.is_empty());
    world.subscribe(&room("a"), fresh(1));
    assert_eq!(wire.next().await.len(), 1, "a new life");
}

#[actix_rt::test]
async fn a_room_does_not_rest_while_somebody_is_on_the_way() {
    tokio::time::pause();
    let world = World::start();
    let wire = world.wire(1);
    let linger = world.services.rooms.linger;
    world.subscribe(&room("a"), fresh(1));
    let (addr, ticket) = world.services.registry.hold(&room("a")).unwrap();
    let leave = Leave {
        sub: fresh(1).sub,
        hub: (world.hub.id, world.hub.addr.clone()),
        command: None,
        ticket,
    };
    addr.send(leave).await.unwrap();
    let held = world.services.registry.hold(&room("a")).unwrap();
    settle().await;
    for _ in 0..3 {
        tokio::time::advance(linger).await;
        settle().await;
        assert_eq!(world.services.registry.len(), 1);
    }
    wire.take();
    let subscribe = Subscribe {
        join: fresh(1),
        hub: world.hub.addr.clone(),
        ticket: held.1,
    };
    held.0.send(subscribe).await.unwrap();
    assert_eq!(wire.next().await.len(), 1, "its reply");
}

#[actix_rt::test]
async fn a_room_that_fails_sends_its_sessions_back_and_starts_anew() {
    let mut world = World::start();
    let wire = world.wire(1);
    let room = room("a");
    world.subscribe(&room, fresh(1));
    wire.next().await;
    let old = world.services.registry.get(&room).unwrap();
    old.addr.do_send(Break);
    settle().await;
    assert_eq!(wire.failed.borrow().as_slice(), std::slice::from_ref(&room));
    assert!(world.services.registry.is_empty());
    world.publish(&room, 1, 1);
    world.subscribe(&room, from(1, 0));
    let frames = wire.next().await;
    assert_eq!(frames[0][0]["subscribe"]["recovered"], true);
    world.publish(&room, 1, 1);
    let later = wire.next().await;
    assert_eq!(offsets(&[frames, later].concat()), [1, 2]);
}

#[actix_rt::test]
async fn a_reset_sends_everybody_to_replay_and_nothing_comes_after_it() {
    let mut world = World::start();
    let wire = world.wire(1);
    let room = room("a");
    world.subscribe(&room, fresh(1));
    wire.next().await;
    let live = world.services.registry.get(&room).unwrap();
    live.addr.do_send(Reset);
    // What comes next stands behind deltas that the room was never told of.
    world.publish(&room, 1, 1);
    settle().await;
    assert_eq!(wire.take().len(), 0);
    assert_eq!(*wire.failed.borrow(), [room]);
}

/// Fills a room whose only hub does nothing yet; the number of deltas that it took.
async fn fill(world: &World, room: &RoomName, hub: &Context<Hub>) -> u64 {
    world.subscribe_through(
        hub.address(),
        room,
        Join {
            hub: hub_id(1),
            ..fresh(1)
        },
    );
    settle().await;
    for offset in 1..10_000 {
        let passed = world.services.registry.pass(room, large(offset, room));
        if matches!(passed, Some(Err(Unsent::Full(..)))) {
            return offset - 1;
        }
        tokio::task::yield_now().await;
    }
    panic!("the room took everything");
}

#[actix_rt::test]
async fn a_room_whose_hub_is_slow_takes_no_more_than_its_bounds() {
    let world = World::start();
    let room = room("a");
    let hub = Context::new();
    let taken = fill(&world, &room, &hub).await;
    // A megabyte for the hub and, but for the one by which each address may exceed it, a full mailbox.
    assert!(taken <= 11 + MAILBOX as u64 + 1, "{taken} deltas");
    settle().await;
    let passed = world.services.registry.pass(&room, large(taken + 1, &room));
    assert!(matches!(passed, Some(Err(Unsent::Full(..)))), "still");

    // The hub comes to itself, and everything is there, in order.
    let hub = world.start_hub(hub);
    let wire = world.wire_of(&hub, 1);
    let mut frames = wire.next().await;
    while offsets(&frames).last() != Some(&taken) {
        frames.extend(wire.next().await);
    }
    assert!(offsets(&frames).into_iter().eq(1..=taken));
    let passed = world.services.registry.pass(&room, large(taken + 1, &room));
    assert!(matches!(passed, Some(Ok(()))));
}

#[actix_rt::test]
async fn the_pipeline_waits_for_a_room_that_is_full() {
    let world = World::start();
    let room = room("a");
    let hub = Context::new();
    let taken = fill(&world, &room, &hub).await;
    let (registry, Deltas(next)) = (world.services.registry.clone(), large(taken + 1, &room));
    let (dispatched, mut is_dispatched) = oneshot::channel();
    std::thread::spawn(move || {
        RoomDispatch::new(registry, 0, 1).unwrap().dispatch(next);
        dispatched.send(()).unwrap();
    });
    let early = tokio::time::timeout(Duration::from_millis(50), &mut is_dispatched).await;
    assert!(early.is_err(), "it did not wait");
    world.start_hub(hub);
    is_dispatched.await.unwrap();
}
