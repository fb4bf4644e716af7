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
    faults::{Account, shuffled},
    plan::Plan,
    progress::Progress,
    publishers::{Published, Publisher},
    random::Random,
    verdict::{Verdict, seconds},
    world::World,
};

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
        let faults = fail(world, plan, &progress);
        world.is_over.store(true, Ordering::Relaxed);
        progress.says("no more faults; waiting for the last deltas");
        let published: Vec<Published> = publishers
            .into_iter()
            .flat_map(|publisher| publisher.join().expect("a publisher goes on for ever"))
            .collect();
        goal.set(last_offsets(&published)).expect("it is set once");
        let clients: Vec<Client> = clients
            .into_iter()
            .map(|client| client.join().expect("a client notes what is wrong"))
            .collect();
        drop(ending);
        progress.end();
        Verdict::find(world, plan, &published, &clients, &faults)
    })
}

/// One fault after the other: each at least once, and until the time is up.
fn fail(world: &World, plan: &Plan, progress: &Progress) -> Vec<Account> {
    let (start, mut random) = (Instant::now(), Random::new(plan.seed));
    let mut accounts = Vec::new();
    loop {
        for fault in shuffled(&mut random) {
            thread::sleep(plan.rest);
            let began = Instant::now();
            let account = fault.strike(world, plan, &mut random);
            progress.says(&format!(
                "{fault:?}, {} in all, back {} after it was healed",
                seconds(began.elapsed()),
                seconds(account.after)
            ));
            accounts.push(account);
            if accounts.len() >= faults::Fault::ALL.len() && start.elapsed() > plan.duration {
                return accounts;
            }
        }
    }
}

fn last_offsets(published: &[Published]) -> HashMap<String, u64> {
    let mut last = HashMap::new();
    for delta in published {
        let offset = last.entry(delta.room.clone()).or_insert(0);
        *offset = delta.offset.max(*offset);
    }
    last
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
