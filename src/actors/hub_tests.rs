use super::*;
use crate::{
    actors::{
        registry::RoomRef,
        room::Room,
        testing::{World, fresh, from, offsets, room, settle},
    },
    rooms::sequence::SubId,
};

/// A room that takes nothing and says nothing: the test gives the hub its messages.
fn silent(key: u64) -> (RoomRef, Context<Room>) {
    let context = Context::new();
    let addr = context.address();
    (RoomRef { key, addr }, context)
}

fn work(room: &RoomRef, ops: Vec<Op>) -> (Work, oneshot::Receiver<()>) {
    let (done, is_done) = oneshot::channel();
    let room = room.clone();
    (Work { room, ops, done }, is_done)
}

fn attach(session: u64) -> Op {
    Op::Attach {
        sub: SubId { session, number: 1 },
        frame: Bytes::new(),
        join_leave: false,
    }
}

fn live(room: &str) -> Op {
    Op::Live {
        frame: frame::text(format!("{{\"room\":\"{room}\"}}").as_bytes()),
        deltas: 1,
        stamped: 0,
        except: None,
        skips: false,
    }
}

#[actix_rt::test]
async fn a_session_that_answers_its_pings_stays_and_one_that_does_not_is_closed() {
    tokio::time::pause();
    let world = World::start();
    let (answers, silent) = (world.wire(1), world.wire(2));
    for session in [1, 2] {
        world.hub.ping(session, 0);
    }
    let second = Duration::from_secs(1);
    let limits = &world.services.limits;
    let mut closed_after = None;
    for elapsed in 1..=2 * limits.ping_interval.as_secs() {
        tokio::time::advance(second).await;
        settle().await;
        if answers.lacks_pong() {
            answers.pong();
        }
        if silent.closed_with() == Some(3012) {
            closed_after.get_or_insert(elapsed);
        }
    }
    assert_eq!(answers.closed_with(), None);
    assert!(answers.pings.get() >= 1);
    let pinged = limits.ping_interval.as_secs() / 2..=limits.ping_interval.as_secs();
    let closed = closed_after.expect("it was closed") - limits.pong_timeout.as_secs();
    assert!(pinged.contains(&closed), "{closed} s");
}

#[actix_rt::test]
async fn the_walk_of_a_large_room_lets_a_small_room_in_between() {
    let world = World::start();
    let wires: Vec<_> = (1..=1_000).map(|session| world.wire(session)).collect();
    let aside = world.wire(0);
    let ((large, _large), (small, _small)) = (silent(1), silent(2));
    for (room, ops) in [
        (&large, (1..=1_000).map(attach).collect()),
        (&small, vec![attach(0)]),
    ] {
        let (work, done) = work(room, ops);
        world.hub.addr.do_send(work);
        done.await.unwrap();
    }
    let (walk, walked) = work(&large, vec![live("large"), live("large")]);
    let (short, is_short) = work(&small, vec![live("small")]);
    world.hub.addr.do_send(walk);
    world.hub.addr.do_send(short);
    is_short.await.unwrap();
    walked.await.unwrap();
    let last = wires
        .iter()
        .map(|wire| wire.last_write.get())
        .max()
        .unwrap();
    let behind = last - aside.last_write.get();
    assert!(behind >= 2_000 - 2 * WALK as u64, "only {behind} behind it");
    assert!(wires.iter().all(|wire| wire.take().len() == 2));
}

#[actix_rt::test]
async fn a_wire_is_given_one_page_at_a_time_however_many_of_its_rooms_replay() {
    let mut world = World::start();
    let wire = world.wire(1);
    let rooms = [room("a"), room("b"), room("c")];
    for (number, room) in (1..).zip(&rooms) {
        world.publish(room, 2_500, 1);
        let mut join = from(1, 0);
        join.sub.number = number;
        world.subscribe(room, join);
    }
    // The client takes no page but when it is told to.
    wire.busy.set(true);
    settle().await;
    let mut replayed = 0;
    let mut pages = 0;
    while replayed < 3 * 2_500 {
        wire.busy.set(false);
        world.hub.drained(1);
        wire.busy.set(true);
        let frames = wire.next().await;
        assert_eq!(frames.len(), 1, "one page, and then no other");
        settle().await;
        assert_eq!(wire.take().len(), 0);
        replayed += offsets(&frames).len();
        pages += 1;
    }
    assert!(pages >= 9, "{pages} pages of at most 1,000 deltas");
}

#[actix_rt::test]
async fn closing_all_reaches_every_session() {
    let world = World::start();
    let wires = [world.wire(1), world.wire(2)];
    world.services.hubs.close_all(Disconnect::SHUTDOWN);
    settle().await;
    assert!(wires.iter().all(|wire| wire.closed_with() == Some(3001)));
}

#[actix_rt::test]
async fn nothing_of_a_failed_room_is_written_any_more() {
    let world = World::start();
    let wire = world.wire(1);
    let (failed, _context) = silent(1);
    let (before, done) = work(&failed, vec![attach(1)]);
    world.hub.addr.do_send(before);
    done.await.unwrap();
    let (late, done) = work(&failed, vec![live("late")]);
    world.hub.addr.do_send(late);
    let (name, key) = (room("a"), 1);
    world.hub.addr.do_send(RoomFailed { name, key });
    assert!(done.await.is_err(), "it is dropped");
    assert_eq!(wire.take().len(), 0);
    assert_eq!(*wire.failed.borrow(), [room("a")]);
    world.subscribe(&room("a"), fresh(1));
    assert_eq!(wire.next().await.len(), 1, "a new life is another room");
}

/// Ends a hub by a defect.
#[derive(Message)]
#[rtype(result = "()")]
struct Break;

impl Handler<Break> for Hub {
    type Result = ();

    fn handle(&mut self, Break: Break, _: &mut Self::Context) {
        panic!("a defect, for a test");
    }
}

#[actix_rt::test]
async fn a_hub_that_fails_closes_its_sessions_for_them_to_come_back_and_is_noticed() {
    let world = World::start();
    let wire = world.wire(1);
    world.hub.addr.do_send(Break);
    let noticed = tokio::time::timeout(Duration::from_secs(20), world.services.hubs.failed());
    noticed.await.unwrap();
    assert_eq!(wire.closed_with(), Some(3004));
}
