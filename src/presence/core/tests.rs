use std::collections::BTreeSet;

use super::*;

mod events;
mod random;

pub const BEAT: u64 = 1_000;
pub const GRACE: u64 = 5_000;
const TICK: u64 = 50;

/// Several instances and what lies between them. Nothing is lost unless a test says so.
pub struct World {
    pub now: u64,
    pub cores: Vec<Option<Core>>,
    /// Who hears nothing and whom nobody hears.
    pub cut: BTreeSet<usize>,
    /// What each instance told the clients of a room.
    pub told: Vec<Vec<Push>>,
    /// What the backend heard.
    pub events: Vec<Event>,
    /// The broker takes no events.
    pub outage: bool,
    last_id: u64,
}

pub fn room() -> RoomName {
    RoomName::new("people:a").unwrap()
}

pub fn counted() -> RoomName {
    RoomName::new("lobby").unwrap()
}

pub fn client(user: &str, id: u128) -> ClientInfo {
    ClientInfo {
        user: user.into(),
        id: Uuid::from_u128(id),
        info: (!user.is_empty()).then(|| r#"{"name":"someone"}"#.into()),
    }
}

impl World {
    pub fn new(instances: usize) -> Self {
        let mut world = Self {
            now: 0,
            cores: Vec::new(),
            cut: BTreeSet::new(),
            told: Vec::new(),
            events: Vec::new(),
            outage: false,
            last_id: 0,
        };
        for _ in 0..instances {
            world.start();
        }
        world.run(3 * BEAT);
        world
    }

    /// Another instance.
    pub fn start(&mut self) -> usize {
        self.last_id += 1;
        let settings = Settings {
            grace: GRACE,
            max_members: 8,
            beat: BEAT,
            user_events: true,
            shared: true,
        };
        let rules = |room: &RoomName| Tracking {
            join_leave: room.namespace() == "people",
            events: true,
        };
        let mut core = Core::new(InstanceId(self.last_id), settings, Box::new(rules));
        core.connected(self.now);
        self.cores.push(Some(core));
        self.told.push(Vec::new());
        self.cores.len() - 1
    }

    pub fn core(&mut self, of: usize) -> &mut Core {
        self.cores[of].as_mut().expect("it runs")
    }

    pub fn come(&mut self, at: usize, info: &ClientInfo) -> Arrival {
        let now = self.now;
        let arrival = self.core(at).come(now, &room(), info);
        self.take(at);
        arrival
    }

    pub fn go(&mut self, at: usize, info: &ClientInfo) {
        let now = self.now;
        self.core(at).go(now, &room(), info.id);
        self.take(at);
    }

    fn take(&mut self, at: usize) {
        let pushes = self.core(at).pushes(&room());
        self.told[at].extend(pushes);
    }

    /// Ends without a word.
    pub fn kill(&mut self, at: usize) {
        self.cores[at] = None;
    }

    /// One look of every instance; everything that is said arrives.
    pub fn tick(&mut self) {
        self.now += TICK;
        for at in 0..self.cores.len() {
            let now = self.now;
            let Some(core) = self.cores[at].as_mut() else {
                continue;
            };
            let output = core.tick(now);
            self.take(at);
            for event in output.events {
                match self.outage || self.cut.contains(&at) {
                    true => self.core(at).unsent(&event),
                    false => {
                        self.events.push(event.clone());
                        self.core(at).sent(now, event);
                    }
                }
            }
            if !self.cut.contains(&at) {
                output.messages.iter().for_each(|message| self.say(message));
            }
        }
    }

    /// Everybody who is not cut off hears it, as it comes over the bus.
    pub fn say(&mut self, message: &Message) {
        let bytes = message.encode();
        let now = self.now;
        for (at, core) in self.cores.iter_mut().enumerate() {
            if let Some(core) = core
                && !self.cut.contains(&at)
            {
                core.heard(now, Message::decode(&bytes).expect("our own form"));
            }
        }
    }

    pub fn run(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(TICK) {
            self.tick();
        }
    }

    pub fn clients(&mut self, at: usize) -> Vec<u128> {
        let list = self.core(at).list(&room()).expect("few are in the room");
        list.iter().map(|info| info.id.as_u128()).collect()
    }

    pub fn stats(&mut self, at: usize) -> (usize, usize) {
        let stats = self.core(at).stats(&room());
        (stats.clients, stats.users)
    }

    pub fn told(&mut self, at: usize) -> Vec<Push> {
        std::mem::take(&mut self.told[at])
    }
}

#[test]
fn all_instances_know_who_is_in_a_room_and_how_many_are_in_any() {
    let mut world = World::new(3);
    world.come(0, &client("anna", 1));
    world.come(1, &client("anna", 2));
    world.come(2, &client("", 3));
    let now = world.now;
    for (at, clients) in [(0, 5), (1, 7)] {
        let anonymous = 2;
        let count = Count {
            clients,
            anonymous,
            is_large: false,
        };
        world.core(at).count(now, &counted(), count);
    }
    world.run(2 * COALESCE);
    for at in 0..3 {
        assert_eq!(world.clients(at), [1, 2, 3]);
        assert_eq!(world.stats(at), (3, 2));
        let stats = world.core(at).stats(&counted());
        // Each of the eight who have a user, and one for the anonymous.
        assert_eq!((stats.clients, stats.users), (12, 9));
    }
}

#[test]
fn an_instance_that_starts_learns_at_once_what_the_others_have() {
    let mut world = World::new(2);
    for id in 0..5 {
        world.come(0, &client("", id));
    }
    world.run(BEAT);
    let third = world.start();
    world.run(BEAT + 2 * COALESCE);
    assert_eq!(world.clients(third), [0, 1, 2, 3, 4]);
}

#[test]
fn whoever_is_with_an_instance_that_dies_is_gone_after_three_beats_and_left_after_the_grace() {
    let mut world = World::new(2);
    let (anna, bert) = (client("anna", 1), client("bert", 2));
    world.come(0, &anna);
    world.come(1, &bert);
    world.run(BEAT);
    world.told(1);
    world.kill(0);
    world.run(2 * BEAT);
    assert_eq!(world.stats(1), (2, 2), "it may still live");
    world.run(BEAT + BEAT / 2);
    assert_eq!(world.stats(1), (1, 1));
    assert_eq!(world.told(1), []);
    world.run(GRACE);
    assert_eq!(world.told(1), [Push::Leave(anna)]);
}

#[test]
fn an_instance_that_stops_says_so() {
    let mut world = World::new(2);
    world.come(0, &client("anna", 1));
    world.come(1, &client("bert", 2));
    world.run(BEAT);
    let bye = world.core(0).bye();
    world.say(&bye);
    world.kill(0);
    world.tick();
    assert_eq!(world.stats(1), (1, 1));
    // What overtook it, or comes twice, brings nobody back.
    let from = InstanceId(1);
    let entries = vec![(
        Key::Member(room(), Uuid::from_u128(9)),
        Some(Value::Who(Who::from(&client("", 9)))),
    )];
    let number = 99;
    world.say(&Message {
        from,
        body: Body::Changes { number, entries },
    });
    assert_eq!(world.stats(1), (1, 1));
}

#[test]
fn who_comes_back_within_the_grace_to_any_instance_has_neither_left_nor_joined() {
    let mut world = World::new(2);
    let watcher = client("watcher", 1);
    world.come(0, &watcher);
    world.come(1, &client("anna", 2));
    world.run(BEAT);
    world.told(0);
    world.go(1, &client("anna", 2));
    world.run(GRACE - 2 * BEAT);
    assert_eq!(world.stats(0), (1, 1), "she is not there");
    assert_eq!(world.come(0, &client("anna", 3)), Arrival::Known);
    world.run(2 * GRACE);
    assert_eq!(world.told(0), []);
}

#[test]
fn a_user_joins_with_the_first_client_and_leaves_with_the_last() {
    let mut world = World::new(2);
    world.come(0, &client("watcher", 1));
    world.told(0);
    assert_eq!(world.come(0, &client("anna", 2)), Arrival::New);
    assert_eq!(world.come(0, &client("anna", 3)), Arrival::Known);
    world.run(BEAT);
    world.come(1, &client("anna", 4));
    world.run(BEAT);
    assert_eq!(world.told(0), [Push::Join(client("anna", 2))]);
    world.go(0, &client("anna", 2));
    world.go(0, &client("anna", 3));
    world.run(2 * GRACE);
    assert_eq!(world.told(0), []);
    world.go(1, &client("anna", 4));
    world.run(2 * GRACE);
    assert_eq!(world.told(0), [Push::Leave(client("anna", 4))]);
}

#[test]
fn a_room_that_grows_too_large_has_only_a_number_until_it_is_small_again() {
    let mut world = World::new(2);
    world.come(1, &client("watcher", 100));
    world.told(1);
    for id in 0..20 {
        world.come(0, &client(&format!("user{id}"), id));
        world.run(2 * COALESCE);
    }
    assert_eq!(world.told(1).len(), 7, "joins up to eight members");
    assert_eq!(world.core(1).list(&room()), Err(TooMany));
    assert_eq!(world.stats(1), (21, 21));
    assert_eq!(
        world.core(0).own.entries().len(),
        2,
        "names of so many are told to nobody"
    );
    world.run(2 * GRACE);
    assert_eq!(world.told(1), []);
    for id in 3..20 {
        world.go(0, &client(&format!("user{id}"), id));
    }
    world.run(2 * COALESCE);
    assert_eq!(world.clients(1), [0, 1, 2, 100]);
    assert_eq!(world.stats(1), (4, 4));
}

#[test]
fn a_room_that_failed_has_nobody_here_until_they_come_back() {
    let mut world = World::new(2);
    world.come(0, &client("anna", 1));
    world.come(1, &client("bert", 2));
    world.run(BEAT);
    world.told(1);
    let now = world.now;
    world.core(0).room_ended(now, &room());
    world.run(BEAT);
    assert_eq!(world.clients(1), [2]);
    world.come(0, &client("anna", 3));
    world.run(2 * GRACE);
    assert_eq!(world.clients(1), [2, 3]);
    assert_eq!(world.told(1), []);
}

#[test]
fn a_large_table_is_said_in_parts_of_a_bounded_size() {
    let mut world = World::new(1);
    let now = world.now;
    for n in 0..20_000 {
        let room = RoomName::new(&format!("room{n}")).unwrap();
        let count = Count {
            clients: 1,
            anonymous: 1,
            is_large: false,
        };
        world.core(0).count(now, &room, count);
    }
    let second = world.start();
    let mut largest = 0;
    for _ in 0..200 {
        world.now += TICK;
        let now = world.now;
        for at in [0, second] {
            let output = world.core(at).tick(now);
            for message in output.messages {
                largest = largest.max(message.encode().len());
                world.say(&message);
            }
        }
    }
    assert!(
        largest < 2 * crate::presence::form::MESSAGE_BYTES,
        "{largest}"
    );
    let last = RoomName::new("room19999").unwrap();
    assert_eq!(world.core(second).stats(&last).clients, 1);
    let copy = world.core(second).peers[&InstanceId(1)].entries().clone();
    assert_eq!(&copy, world.core(0).own.entries());
}

#[test]
fn a_message_of_an_unknown_form_or_with_a_wrong_value_is_refused() {
    let good = Message {
        from: InstanceId(1),
        body: Body::Bye,
    };
    assert_eq!(Message::decode(&good.encode()).unwrap(), good);
    let mut other = good.encode().to_vec();
    other[0] = 2;
    for (bytes, error) in [
        (
            other,
            "a message between instances is in form 2, which this build does not know",
        ),
        (vec![], "a message between instances is empty"),
        (
            b"\x01{\"from\":1,\"body\":{\"changes\":{\"number\":1,\"entries\":[[{\"c\":\"a\"},{\"t\":true}]]}}}"
                .to_vec(),
            "a message between instances has an entry with a value of another kind",
        ),
    ] {
        assert_eq!(Message::decode(&bytes).unwrap_err().to_string(), error);
    }
    // What a later build may add is passed over.
    let later = b"\x01{\"from\":1,\"body\":\"bye\",\"mood\":\"fine\"}";
    assert_eq!(Message::decode(later).unwrap(), good);
}
