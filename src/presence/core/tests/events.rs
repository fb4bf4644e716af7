use super::*;

fn of_room(present: bool) -> Event {
    Event {
        subject: Subject::Room(room()),
        present,
    }
}

fn of_user(user: &str, present: bool) -> Event {
    Event {
        subject: Subject::User(user.into()),
        present,
    }
}

fn taken(world: &mut World) -> Vec<Event> {
    std::mem::take(&mut world.events)
}

#[test]
fn the_backend_hears_once_of_a_room_that_is_occupied_anywhere_and_vacated_everywhere() {
    let mut world = World::new(3);
    world.come(0, &client("", 1));
    world.run(BEAT);
    world.come(1, &client("", 2));
    world.run(BEAT);
    assert_eq!(taken(&mut world), [of_room(true)]);
    world.go(0, &client("", 1));
    world.run(2 * GRACE);
    assert_eq!(taken(&mut world), []);
    world.go(1, &client("", 2));
    world.run(GRACE - BEAT);
    assert_eq!(taken(&mut world), []);
    world.run(2 * BEAT);
    assert_eq!(taken(&mut world), [of_room(false)]);
    for at in 0..3 {
        assert!(world.core(at).subjects.is_empty(), "nothing is kept of it");
    }
}

#[test]
fn a_user_is_online_with_the_first_session_and_offline_after_the_last() {
    let mut world = World::new(2);
    let anna: Arc<str> = "anna".into();
    let now = world.now;
    for at in [0, 0, 1] {
        world.core(at).user_came(now, &anna);
    }
    world.core(0).user_came(now, &"".into());
    world.run(BEAT);
    assert_eq!(taken(&mut world), [of_user("anna", true)]);
    for at in [0, 1] {
        let now = world.now;
        world.core(at).user_went(now, &anna);
        world.run(2 * GRACE);
    }
    assert_eq!(taken(&mut world), []);
    let now = world.now;
    world.core(0).user_went(now, &anna);
    world.run(GRACE / 2);
    // Back in time, and at another instance.
    let now = world.now;
    world.core(1).user_came(now, &anna);
    world.run(2 * GRACE);
    assert_eq!(taken(&mut world), []);
    let now = world.now;
    world.core(1).user_went(now, &anna);
    world.run(2 * GRACE);
    assert_eq!(taken(&mut world), [of_user("anna", false)]);
}

/// The instance that is to tell the backend of the room.
fn responsible(world: &mut World) -> usize {
    world.come(0, &client("", 1));
    let mut before = Vec::new();
    while world.events.is_empty() {
        let sent = |world: &mut World| -> Vec<usize> {
            let cores = world.cores.iter().flatten();
            cores.map(|core| core.said.len()).collect()
        };
        world.tick();
        before = sent(world);
    }
    let by = before.iter().position(|said| *said > 0);
    world.go(0, &client("", 1));
    world.run(2 * GRACE);
    taken(world);
    by.expect("somebody has said it")
}

#[test]
fn an_event_is_sent_by_another_if_the_one_whose_turn_it_is_dies_first() {
    let mut world = World::new(3);
    let first = responsible(&mut world);
    let other = (first + 1) % 3;
    world.come(other, &client("", 1));
    world.run(BEAT);
    assert_eq!(taken(&mut world), [of_room(true)]);
    world.go(other, &client("", 1));
    world.run(GRACE - BEAT);
    world.kill(first);
    world.run(BEAT + BEAT / 2);
    assert_eq!(taken(&mut world), [], "it was not its turn");
    world.run(4 * BEAT);
    assert_eq!(taken(&mut world), [of_room(false)]);
}

#[test]
fn what_became_of_a_room_during_an_outage_is_sent_when_it_is_over() {
    let mut world = World::new(2);
    world.come(0, &client("", 1));
    world.run(BEAT);
    assert_eq!(taken(&mut world), [of_room(true)]);
    world.outage = true;
    world.cut = [0, 1].into();
    (0..2).for_each(|at| world.core(at).disconnected());
    world.run(2 * BEAT);
    world.go(0, &client("", 1));
    world.run(10 * GRACE);
    world.outage = false;
    world.cut.clear();
    let now = world.now;
    (0..2).for_each(|at| world.core(at).connected(now));
    world.run(REUNION + 10 * BEAT);
    assert_eq!(taken(&mut world), [of_room(false)]);
}

#[test]
fn a_room_that_stayed_occupied_during_an_outage_causes_no_event() {
    let mut world = World::new(2);
    world.come(0, &client("", 1));
    world.run(BEAT);
    taken(&mut world);
    world.cut = [0, 1].into();
    (0..2).for_each(|at| world.core(at).disconnected());
    world.run(10 * GRACE);
    assert_eq!(world.stats(1), (0, 0));
    // The one that has nobody is back first.
    for at in [1, 0] {
        world.cut.remove(&at);
        let now = world.now;
        world.core(at).connected(now);
        world.run(REUNION - 3 * BEAT);
    }
    world.run(REUNION + 10 * BEAT);
    assert_eq!(world.stats(1), (1, 1));
    assert_eq!(taken(&mut world), []);
}

#[test]
fn an_instance_that_comes_later_knows_what_the_backend_was_told() {
    let mut world = World::new(1);
    world.come(0, &client("", 1));
    world.run(BEAT);
    assert_eq!(taken(&mut world), [of_room(true)]);
    let second = world.start();
    world.run(4 * BEAT);
    world.kill(0);
    world.run(10 * BEAT + GRACE);
    assert_eq!(taken(&mut world), [of_room(false)]);
    assert!(world.core(second).subjects.is_empty());
}
