//! Three servers on three brokers: clients go from one to the other while everything fails that can
//! fail, and in the end each must have seen exactly the log. `dev/soak` runs it for longer.

#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code)]
#[path = "../model/random.rs"]
mod random;

mod clients;
mod faults;
mod plan;
mod producers;
mod progress;
mod publishers;
mod verdict;
mod world;

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use self::{
    clients::{Client, Goal},
    common::Entry,
    faults::{Account, Fault, shuffled},
    plan::Plan,
    producers::{Producer, Sent},
    progress::Progress,
    publishers::{Published, Publisher},
    random::Random,
    verdict::{Log, Verdict, seconds, written},
    world::World,
};

/// One fault in so many comes with another one.
const PAIRED: u64 = 3;

#[test]
fn every_client_sees_exactly_the_log_whatever_fails() {
    let plan = Plan::from_environment();
    println!(
        "seed {}: {} clients, {} publishers",
        plan.seed, plan.clients, plan.publishers
    );
    let world = World::start();
    let verdict = run(&world, &plan);
    println!("{verdict}");
    assert!(verdict.is_good(), "seed {}: see above", plan.seed);
}

fn run(world: &World, plan: &Plan) -> Verdict {
    let (goal, progress, is_shown) = (Goal::new(), Progress::begin(plan), AtomicBool::new(true));
    thread::scope(|scope| {
        scope.spawn(|| {
            while is_shown.load(Ordering::Relaxed) {
                progress.shows(world);
                thread::sleep(Duration::from_millis(200));
            }
        });
        // Also when a fault can't be healed: who waits for the end must not wait for ever.
        let ending = Ending {
            world,
            goal: &goal,
            is_shown: &is_shown,
        };
        let clients: Vec<_> = (0..plan.clients)
            .map(|number| Client::new(world, plan, &goal, number))
            .map(|client| scope.spawn(move || client.run()))
            .collect();
        let publishers: Vec<_> = (0..plan.publishers)
            .map(|name| Publisher::new(world, plan, name))
            .map(|publisher| scope.spawn(move || publisher.run()))
            .collect();
        let producers: Vec<_> = (0..plan.producers)
            .map(|name| Producer::new(world, plan, name))
            .map(|producer| scope.spawn(move || producer.run()))
            .collect();
        let faults = fail(world, plan, &progress);
        world.is_over.store(true, Ordering::Relaxed);
        progress.says("no more faults; waiting for the last deltas");
        let published: Vec<Published> = publishers
            .into_iter()
            .flat_map(|publisher| publisher.join().expect("a publisher goes on for ever"))
            .collect();
        let sent: Vec<Vec<Sent>> = producers
            .into_iter()
            .map(|producer| producer.join().expect("a producer goes on for ever"))
            .collect();
        let log = written(world, plan, &published, &sent);
        goal.set(last_offsets(&log)).expect("it is set once");
        let clients: Vec<Client> = clients
            .into_iter()
            .map(|client| client.join().expect("a client notes what is wrong"))
            .collect();
        drop(ending);
        progress.end();
        Verdict::find(world, plan, &log, (&published, &sent), &clients, &faults)
    })
}

/// One fault after the other: each at least once, and until the time is up.
fn fail(world: &World, plan: &Plan, progress: &Progress) -> Vec<Account> {
    let (start, mut random) = (Instant::now(), Random::new(plan.seed));
    let mut accounts = Vec::new();
    for round in 0.. {
        for fault in shuffled(&mut random) {
            thread::sleep(plan.rest);
            let began = Instant::now();
            let companion = match random.below(PAIRED) {
                0 => fault.companion(&mut random),
                _ => None,
            };
            let struck = strike(world, plan, &mut random, fault, companion);
            let after = struck.iter().map(|account| account.after).max();
            let with = companion.map_or(String::new(), |with| format!(" with {with:?}"));
            progress.says(&format!(
                "{fault:?}{with}, {} in all, back {} after it was healed",
                seconds(began.elapsed()),
                seconds(after.unwrap_or_default())
            ));
            accounts.extend(struck);
            if round > 0 && start.elapsed() > plan.duration {
                return accounts;
            }
        }
        if start.elapsed() > plan.duration {
            break;
        }
    }
    accounts
}

/// One fault, or two at once.
fn strike(
    world: &World,
    plan: &Plan,
    random: &mut Random,
    fault: Fault,
    companion: Option<Fault>,
) -> Vec<Account> {
    let Some(companion) = companion else {
        return vec![fault.strike(world, plan, random)];
    };
    let mut others = Random::new(random.next());
    thread::scope(|scope| {
        let first = scope.spawn(|| fault.strike(world, plan, random));
        let second = companion.strike(world, plan, &mut others);
        let mut first = first.join().expect("a fault is healed");
        // The companion's outage is none of its own.
        first.without_healing = None;
        vec![first, second]
    })
}

fn last_offsets(log: &Log) -> HashMap<String, u64> {
    let last = |entries: &Vec<Entry>| entries.last().map_or(0, |entry| entry.offset);
    let rooms = log.iter();
    rooms
        .map(|(room, entries)| (room.clone(), last(entries)))
        .collect()
}

struct Ending<'a> {
    world: &'a World,
    goal: &'a Goal,
    is_shown: &'a AtomicBool,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.world.is_over.store(true, Ordering::Relaxed);
        self.goal.get_or_init(HashMap::new);
        self.is_shown.store(false, Ordering::Relaxed);
    }
}
