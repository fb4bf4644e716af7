use super::*;
use std::{cell::RefCell, rc::Rc};

/// Writes down what it is given.
#[derive(Clone, Default)]
struct Recorder(Rc<RefCell<Record>>);

#[derive(Default)]
struct Record {
    frames: Vec<Bytes>,
    ended: Vec<u32>,
    busy: bool,
    behind: bool,
}

impl Recorder {
    fn take(&self) -> Vec<String> {
        let frames = std::mem::take(&mut self.0.borrow_mut().frames);
        let text = |frame: Bytes| String::from_utf8(frame.to_vec()).unwrap();
        frames.into_iter().map(text).collect()
    }

    fn set_busy(&self, busy: bool) {
        self.0.borrow_mut().busy = busy;
    }
}

impl Wire for Recorder {
    fn push(&self, frame: &Bytes) {
        self.0.borrow_mut().frames.push(frame.clone());
    }

    fn is_behind(&self, _: usize) -> bool {
        self.0.borrow().behind
    }

    fn can_take_page(&self) -> bool {
        !self.0.borrow().busy
    }

    fn subscription_ended(&self, number: u32) {
        self.0.borrow_mut().ended.push(number);
    }
}

type Table = FanOut<&'static str, Recorder>;

/// A table with sessions 1 to `sessions`.
fn table(sessions: u64) -> (Table, Vec<Recorder>) {
    let mut table = Table::default();
    let wires: Vec<_> = (1..=sessions).map(|_| Recorder::default()).collect();
    for (id, wire) in (1..).zip(&wires) {
        table.open(id, wire.clone());
    }
    (table, wires)
}

fn sub(session: u64) -> SubId {
    SubId { session, number: 7 }
}

fn attach(session: u64) -> Op {
    Op::Attach {
        sub: sub(session),
        frame: "hello".into(),
        join_leave: session == 1,
    }
}

fn live(frame: &'static str) -> Op {
    Op::Live {
        frame: frame.into(),
        deltas: 2,
        stamped: 5,
        except: None,
        skips: false,
    }
}

fn credit(session: u64) -> Op {
    Op::Credit { sub: sub(session) }
}

fn page(session: u64, frame: &'static str) -> Op {
    Op::Page {
        sub: sub(session),
        frame: frame.into(),
    }
}

fn detach(session: u64) -> Op {
    Op::Detach {
        sub: sub(session),
        frame: Some("bye".into()),
    }
}

/// Lets the room's ops be done at once.
fn work(table: &mut Table, room: &'static str, ops: Vec<Op>) -> Vec<Notice<&'static str>> {
    let mut notices = Vec::new();
    table.accept(room, ops);
    assert!(!table.step(1_000, &mut notices));
    assert_eq!(notices.pop(), Some(Notice::Done(room)));
    notices
}

#[test]
fn a_session_that_is_excluded_is_passed_over_and_not_counted() {
    let (mut table, wires) = table(3);
    work(&mut table, "a", (1..=3).map(attach).collect());
    wires.iter().for_each(|wire| drop(wire.take()));
    let to_others = Op::Live {
        frame: "1".into(),
        deltas: 2,
        stamped: 5,
        except: Some(2),
        skips: false,
    };
    let told = work(&mut table, "a", vec![to_others, live("2")]);
    let delivered = |deliveries| Notice::Delivered {
        deliveries,
        stamped: 5,
    };
    assert_eq!(told, [delivered(4), delivered(6)]);
    assert_eq!(wires[1].take(), ["2"]);
    assert_eq!(wires[2].take(), ["1", "2"]);
}

#[test]
fn where_the_slow_are_skipped_each_is_taken_out_once_and_the_others_go_on() {
    let (mut table, wires) = table(4);
    work(&mut table, "a", (1..=4).map(attach).collect());
    for wire in &wires {
        wire.take();
    }
    let skipping = |frame: &'static str| Op::Live {
        frame: frame.into(),
        deltas: 1,
        stamped: 5,
        except: None,
        skips: true,
    };
    wires[1].0.borrow_mut().behind = true;
    wires[3].0.borrow_mut().behind = true;
    let delivered = Notice::Delivered {
        deliveries: 2,
        stamped: 5,
    };
    let told = work(&mut table, "a", vec![skipping("1"), skipping("2")]);
    let skipped = |session| Notice::Skipped("a", sub(session));
    assert_eq!(told, [skipped(2), skipped(4), delivered.clone(), delivered]);
    for (wire, frames) in wires.iter().zip([2, 0, 2, 0]) {
        assert_eq!(wire.take().len(), frames);
    }
    let end = |session| Op::End {
        sub: sub(session),
        frame: "come back".into(),
    };
    work(&mut table, "a", vec![end(2), end(4), detach(1), detach(3)]);
    assert_eq!(wires[1].take(), ["come back"]);
    assert_eq!(wires[1].0.borrow().ended, [7]);
    assert_eq!(table.rooms(), 0);
}

#[test]
fn a_member_gets_its_reply_then_what_is_live_and_nothing_behind_its_detach() {
    let (mut table, wires) = table(2);
    work(&mut table, "a", vec![attach(2), live("1"), attach(1)]);
    work(&mut table, "a", vec![live("2"), detach(2), live("3")]);
    assert_eq!(wires[0].take(), ["hello", "2", "3"]);
    assert_eq!(wires[1].take(), ["hello", "1", "2", "bye"]);
    work(&mut table, "a", vec![detach(1)]);
    assert_eq!(table.rooms(), 0, "a room nobody is live in costs nothing");
}

#[test]
fn deliveries_are_deltas_times_members() {
    let (mut table, _) = table(3);
    let notices = work(
        &mut table,
        "a",
        (1..=3).map(attach).chain([live("1")]).collect(),
    );
    let delivered = Notice::Delivered {
        deliveries: 6,
        stamped: 5,
    };
    assert_eq!(notices, [delivered]);
}

#[test]
fn a_long_walk_lets_other_rooms_in_between_and_goes_on_where_it_stopped() {
    let (mut table, wires) = table(10);
    work(&mut table, "large", (1..=10).map(attach).collect());
    work(&mut table, "small", vec![attach(10)]);
    wires.iter().for_each(|wire| drop(wire.take()));

    table.accept("large", vec![live("1"), live("2")]);
    table.accept("small", vec![live("s")]);
    let mut notices = Vec::new();
    assert!(table.step(4, &mut notices));
    let written = wires.iter().filter(|wire| !wire.take().is_empty()).count();
    assert!((1..10).contains(&written), "{written} of 10 in one step");
    assert!(table.step(4, &mut notices));
    assert!(notices.contains(&Notice::Done("small")), "{notices:?}");
    while table.step(4, &mut notices) {}
    assert_eq!(wires[9].take(), ["s", "1", "2"], "each once, in order");
    assert_eq!(notices.last(), Some(&Notice::Done("large")));
}

#[test]
fn every_member_of_a_cut_walk_gets_every_frame_once() {
    for budget in 0..8 {
        let (mut table, wires) = table(5);
        table.accept("a", (1..=5).map(attach).collect());
        table.accept("b", vec![attach(3), live("b")]);
        let mut notices = Vec::new();
        while table.step(budget, &mut notices) {}
        table.accept("a", vec![live("1"), live("2"), detach(2), live("3")]);
        while table.step(budget, &mut notices) {}
        for (at, wire) in wires.iter().enumerate() {
            let mut seen = wire.take();
            seen.retain(|frame| frame != "hello" && frame != "b");
            let owed: &[&str] = match at {
                1 => &["1", "2", "bye"],
                _ => &["1", "2", "3"],
            };
            assert_eq!(seen, owed, "with a budget of {budget}");
        }
    }
}

#[test]
fn members_that_did_not_ask_are_not_told_who_joins() {
    let (mut table, wires) = table(2);
    let joined = Op::Membership {
        frame: "joined".into(),
    };
    work(&mut table, "a", vec![attach(1), attach(2), joined]);
    assert_eq!(wires[0].take(), ["hello", "joined"]);
    assert_eq!(wires[1].take(), ["hello"]);
}

#[test]
fn a_wire_takes_one_page_at_a_time_however_many_rooms_replay() {
    let (mut table, wires) = table(1);
    let granted = |room| [Notice::Credit(room, sub(1))];
    assert_eq!(work(&mut table, "a", vec![credit(1)]), granted("a"));
    assert_eq!(work(&mut table, "b", vec![credit(1)]), []);
    assert_eq!(work(&mut table, "c", vec![credit(1)]), []);
    let notices = work(&mut table, "a", vec![page(1, "a1"), credit(1)]);
    assert_eq!(notices, granted("b"), "in turn, not one room first");
    let last = Op::Attach {
        sub: sub(1),
        frame: "b, all".into(),
        join_leave: false,
    };
    assert_eq!(work(&mut table, "b", vec![last]), granted("c"));
    assert_eq!(wires[0].take(), ["a1", "b, all"]);
}

#[test]
fn the_next_page_waits_until_the_client_has_taken_the_last() {
    let (mut table, wires) = table(1);
    let mut notices = Vec::new();
    wires[0].set_busy(true);
    assert_eq!(work(&mut table, "a", vec![credit(1)]), []);
    table.drained(1, &mut notices);
    assert_eq!(notices, [], "it was not so");
    wires[0].set_busy(false);
    table.drained(1, &mut notices);
    table.drained(1, &mut notices);
    assert_eq!(notices, [Notice::Credit("a", sub(1))], "granted once");
}

#[test]
fn whoever_leaves_with_a_page_under_way_gives_the_turn_on() {
    let (mut table, _) = table(1);
    for leave in [
        detach(1),
        Op::End {
            sub: sub(1),
            frame: "ended".into(),
        },
    ] {
        work(&mut table, "a", vec![credit(1)]);
        let other = SubId {
            session: 1,
            number: 8,
        };
        work(&mut table, "b", vec![Op::Credit { sub: other }]);
        let notices = work(&mut table, "a", vec![leave]);
        assert_eq!(notices, [Notice::Credit("b", other)]);
        let last = Op::Page {
            sub: other,
            frame: "1".into(),
        };
        work(&mut table, "b", vec![last]);
    }
}

#[test]
fn whoever_leaves_while_waiting_for_a_page_is_not_granted_one() {
    let (mut table, _) = table(1);
    work(&mut table, "a", vec![credit(1)]);
    let other = SubId {
        session: 1,
        number: 8,
    };
    work(&mut table, "b", vec![Op::Credit { sub: other }]);
    let leave = Op::Detach {
        sub: other,
        frame: None,
    };
    work(&mut table, "b", vec![leave]);
    assert_eq!(work(&mut table, "a", vec![page(1, "1")]), []);
}

#[test]
fn a_room_that_fails_gives_the_turn_on_and_writes_nothing_more() {
    let (mut table, wires) = table(2);
    work(&mut table, "a", vec![attach(2), credit(1)]);
    work(&mut table, "b", vec![credit(1)]);
    wires[1].take();
    table.accept("a", vec![live("1")]);
    let mut notices = Vec::new();
    table.drop_room(|room| *room == "a", &mut notices);
    assert_eq!(notices, [Notice::Credit("b", sub(1))]);
    assert!(!table.step(1_000, &mut notices));
    assert_eq!(notices.len(), 1, "nor is it done");
    assert_eq!(wires[1].take(), [] as [&str; 0]);
}

#[test]
fn an_ended_subscription_is_told_to_its_client_and_its_session() {
    let (mut table, wires) = table(1);
    let end = Op::End {
        sub: sub(1),
        frame: "ended".into(),
    };
    work(&mut table, "a", vec![attach(1), end, live("1")]);
    assert_eq!(wires[0].take(), ["hello", "ended"]);
    assert_eq!(wires[0].0.borrow().ended, [7]);
}

#[test]
fn ops_for_a_session_that_has_ended_are_done_without_it() {
    let (mut table, wires) = table(2);
    table.close(1);
    let ops = vec![
        credit(1),
        page(1, "1"),
        attach(1),
        attach(2),
        live("2"),
        detach(1),
    ];
    assert!(!work(&mut table, "a", ops).contains(&Notice::Credit("a", sub(1))));
    assert_eq!(wires[0].take(), [] as [&str; 0]);
    assert_eq!(wires[1].take(), ["hello", "2"]);
}
