//! Any order of what can happen, over a bus that loses, doubles and swaps.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

const INSTANCES: usize = 3;
const CLIENTS: u8 = 7;

#[derive(Debug, Clone)]
enum Step {
    /// A client comes to an instance, from wherever it was.
    Come {
        client: u8,
        at: usize,
    },
    Go {
        client: u8,
    },
    /// A message under way arrives, twice perhaps.
    Deliver {
        which: u8,
        twice: bool,
    },
    Lose {
        which: u8,
    },
    /// An instance looks at what is due.
    Tick {
        at: usize,
        ms: u16,
    },
    /// An instance dies; another one takes its place.
    Die {
        at: usize,
    },
    Disconnect {
        at: usize,
    },
    Connect {
        at: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = || 0..INSTANCES;
    let step = prop_oneof![
        5 => (0..CLIENTS, at()).prop_map(|(client, at)| Step::Come { client, at }),
        3 => (0..CLIENTS).prop_map(|client| Step::Go { client }),
        8 => (any::<u8>(), prop::bool::weighted(0.1))
            .prop_map(|(which, twice)| Step::Deliver { which, twice }),
        1 => any::<u8>().prop_map(|which| Step::Lose { which }),
        8 => (at(), 1..2_000_u16).prop_map(|(at, ms)| Step::Tick { at, ms }),
        1 => at().prop_map(|at| Step::Die { at }),
        1 => at().prop_map(|at| Step::Disconnect { at }),
        1 => at().prop_map(|at| Step::Connect { at }),
    ];
    prop::collection::vec(step, 1..150)
}

/// Every third client is anonymous, the others share three users.
fn info(client: u8) -> ClientInfo {
    let user = match client % 4 {
        0 => String::new(),
        n => format!("user{n}"),
    };
    super::client(&user, client.into())
}

fn person(info: &ClientInfo) -> String {
    match info.user.is_empty() {
        true => info.id.to_string(),
        false => info.user.to_string(),
    }
}

#[derive(Default)]
struct Wire(BTreeMap<usize, VecDeque<Message>>);

struct Run {
    world: World,
    /// Messages on their way to each instance.
    wires: Wire,
    /// Where each client is.
    places: BTreeMap<u8, usize>,
    /// Whom the clients of each instance take for present.
    shown: Vec<BTreeMap<String, u32>>,
}

impl Run {
    fn step(&mut self, step: Step) {
        match step {
            Step::Come { client, at } => {
                self.go(client);
                self.places.insert(client, at);
                self.world.come(at, &info(client));
                self.check(at);
            }
            Step::Go { client } => self.go(client),
            Step::Deliver { which, twice } => {
                let at = usize::from(which) % INSTANCES;
                let wire = self.wires.0.entry(at).or_default();
                let Some(at_most) = wire.len().checked_sub(1) else {
                    return;
                };
                // Mostly in order, as the broker has it.
                let index = (usize::from(which) / 64).min(at_most);
                let message = match twice {
                    true => wire.get(index).cloned(),
                    false => wire.remove(index),
                };
                let now = self.world.now;
                if let Some(message) = message {
                    self.world.core(at).heard(now, message);
                    self.world.take(at);
                    self.check(at);
                }
            }
            Step::Lose { which } => {
                let at = usize::from(which) % INSTANCES;
                self.wires.0.entry(at).or_default().pop_front();
            }
            Step::Tick { at, ms } => {
                self.world.now += u64::from(ms);
                let now = self.world.now;
                let output = self.world.core(at).tick(now);
                for event in output.events {
                    self.world.core(at).sent(now, event.clone());
                    self.world.events.push(event);
                }
                for message in output.messages {
                    for to in 0..INSTANCES {
                        self.wires
                            .0
                            .entry(to)
                            .or_default()
                            .push_back(message.clone());
                    }
                }
                self.world.take(at);
                self.check(at);
            }
            Step::Die { at } => {
                self.places.retain(|_, place| *place != at);
                self.shown[at].clear();
                let new = self.world.start();
                self.world.cores.swap(at, new);
                self.world.cores.truncate(INSTANCES);
                self.world.told.truncate(INSTANCES);
                self.wires.0.remove(&at);
            }
            Step::Disconnect { at } => {
                self.world.core(at).disconnected();
                self.wires.0.remove(&at);
            }
            Step::Connect { at } => {
                let now = self.world.now;
                self.world.core(at).connected(now);
            }
        }
    }

    fn go(&mut self, client: u8) {
        if let Some(at) = self.places.remove(&client) {
            self.world.go(at, &info(client));
            self.check(at);
        }
    }

    /// Joins and leaves take turns for each person, and nobody leaves who is at this very instance.
    fn check(&mut self, at: usize) {
        let pushes = self.world.told(at);
        // What clients of an instance without any here saw is over.
        if !self.places.values().any(|place| *place == at) {
            self.shown[at].clear();
            return;
        }
        for push in pushes {
            match push {
                Push::Join(info) => {
                    let name = person(&info);
                    assert_eq!(
                        self.shown[at].insert(name.clone(), 1),
                        None,
                        "{name} joined twice"
                    );
                }
                Push::Leave(info) => {
                    let name = person(&info);
                    let here = self.places.iter().filter(|(_, place)| **place == at);
                    let mut here = here.map(|(client, _)| person(&super::random::info(*client)));
                    assert!(!here.any(|of| of == name), "{name} is here");
                    self.shown[at].remove(&name);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    /// Whatever was lost, doubled, swapped, cut off or killed: soon afterwards all instances know
    /// the same, and it is what is so.
    #[test]
    fn all_instances_come_to_know_who_is_where(steps in steps()) {
        let mut run = Run {
            world: World::new(INSTANCES),
            wires: Wire::default(),
            places: BTreeMap::new(),
            shown: vec![BTreeMap::new(); INSTANCES],
        };
        // An instance that dies may be the only one that knew of something.
        let nobody_died = !steps.iter().any(|step| matches!(step, Step::Die { .. }));
        steps.into_iter().for_each(|step| run.step(step));
        // From here on nothing is lost. What was on its way is.
        let mut world = run.world;
        let now = world.now;
        (0..INSTANCES).for_each(|at| world.core(at).connected(now));
        // Requests in vain have made them patient.
        world.run(70 * BEAT + 2 * GRACE);
        let present: Vec<u128> = run.places.keys().map(|client| u128::from(*client)).collect();
        for at in 0..INSTANCES {
            prop_assert_eq!(world.clients(at), present.clone());
        }
        // The backend knows what is so, too.
        let mut known = BTreeMap::new();
        for event in &world.events {
            known.insert(format!("{:?}", event.subject), event.present);
        }
        known.retain(|_, present| *present);
        if nobody_died {
            prop_assert_eq!(known.len(), usize::from(!present.is_empty()));
        }
        for at in 0..INSTANCES {
            prop_assert_eq!(world.core(at).due(), 0);
        }
    }

    /// Without faults every person joins once when they appear and leaves once when they are missed.
    #[test]
    fn joins_and_leaves_are_told_exactly(
        moves in prop::collection::vec((0..CLIENTS, 0..=INSTANCES, 0..2 * GRACE), 1..40)
    ) {
        let mut world = World::new(INSTANCES);
        let watcher = super::client("watcher", 1_000);
        world.come(0, &watcher);
        world.told(0);
        let mut places: BTreeMap<u8, usize> = BTreeMap::new();
        let mut gone: BTreeMap<String, u64> = BTreeMap::new();
        let mut shown: BTreeSet<String> = BTreeSet::new();
        for (client, to, ms) in moves {
            // The last is nowhere. Who moves is nowhere for a moment.
            if let Some(at) = places.remove(&client) {
                world.go(at, &info(client));
            }
            if to < INSTANCES {
                world.come(to, &info(client));
                places.insert(client, to);
            }
            world.run(ms.max(4 * COALESCE));
            for push in world.told(0) {
                match push {
                    Push::Join(info) => prop_assert!(shown.insert(person(&info)), "joined twice"),
                    Push::Leave(info) => prop_assert!(shown.remove(&person(&info)), "left twice"),
                }
            }
            let here: BTreeSet<String> = places.keys().map(|client| person(&info(*client))).collect();
            prop_assert!(here.is_subset(&shown), "{:?} not in {:?}", here, shown);
            // Nobody is shown for longer than the grace.
            gone.retain(|name, _| shown.contains(name) && !here.contains(name));
            for name in shown.difference(&here) {
                let since = *gone.entry(name.clone()).or_insert(world.now - ms.max(4 * COALESCE));
                prop_assert!(world.now - since <= GRACE + 4 * COALESCE + 2 * TICK, "{} stays", name);
            }
        }
    }
}
