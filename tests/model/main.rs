//! The whole server without threads, clocks or sockets, in an order that a seed decides: publishes, every step of the
//! pipeline, every message of every room and hub, pages that trims overtake, clients that read slowly, leave and come
//! back, rooms that come to rest, failures of the disk and of rooms, and crashes between any two of these.
//!
//! Whatever the order, each client gets exactly its rooms' sequence, or is told that it must reload. A seed that fails is
//! printed; `ROOMWIRE_SEED=7 cargo test --test model` runs seed 7 alone and tells all that happens.

mod client;
mod ledger;
mod path;
mod random;
mod rooms;
mod server;
mod step;
mod wire;
mod world;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use proptest::prelude::*;

use crate::{
    random::Random,
    step::{Step, Steps},
    world::World,
};

const SEED: &str = "ROOMWIRE_SEED";
const SEEDS: u64 = 2_000;
const STEPS: usize = 600;

/// Of the steps before a failure.
const SHOWN: usize = 60;

/// A value, or what is wrong.
type Checked<T = ()> = Result<T, String>;

fn ensure(right: bool, wrong: impl FnOnce() -> String) -> Checked {
    match right {
        true => Ok(()),
        false => Err(wrong()),
    }
}

/// Tells what happens, when one seed is run alone.
fn tell(what: impl FnOnce() -> String) {
    static TOLD: LazyLock<bool> = LazyLock::new(|| env::var_os(SEED).is_some());
    if *TOLD {
        eprintln!("{}", what());
    }
}

/// Performs `steps`, then lets everything come to rest. An error ends with the last steps.
fn run(random: &mut Random, steps: impl IntoIterator<Item = Step>) -> Checked {
    // The publishers' patience is a timer, though none ever runs out.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| error.to_string())?;
    let _entered = runtime.enter();
    let mut world = World::new(random);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for step in steps {
            world.perform(step)?;
        }
        world.settle()
    }));
    outcome
        .unwrap_or_else(|_| Err("a panic".into()))
        .map_err(|wrong| {
            let from = world.trace.len().saturating_sub(SHOWN);
            let tail = world.trace[from..].iter();
            let tail: String = tail
                .map(|Step { kind, a, b }| format!("{kind:?} {a} {b}\n"))
                .collect();
            format!("{tail}{wrong}")
        })
}

fn run_seed(seed: u64) -> Checked {
    let mut steps = Steps::of_seed(seed);
    let steps = std::iter::from_fn(move || Some(steps.draw())).take(STEPS);
    run(&mut Random::new(!seed), steps)
}

#[test]
fn clients_get_their_rooms_sequence_or_a_word_of_the_loss_whatever_comes_between() {
    let chosen = env::var(SEED).map(|seed| seed.parse().expect("a seed is a number"));
    let (first, end) = chosen.map_or((0, SEEDS), |seed: u64| (seed, seed + 1));
    let next = AtomicU64::new(first);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return Ok(());
            }
            run_seed(seed).map_err(|wrong| format!("{wrong}\nwith {SEED}={seed}"))?;
        }
    };
    let workers = thread::available_parallelism().map_or(1, Into::into);
    let outcomes: Vec<Checked> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| worker.join());
        joined
            .map(|outcome| outcome.expect("panics are caught in each run"))
            .collect()
    });
    for outcome in outcomes {
        outcome.unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_gives_each_client_its_rooms_sequence_or_no_recovery(
        bounds in any::<u64>(),
        numbers in prop::collection::vec(any::<(u16, u16, u16)>(), 0..400),
    ) {
        let steps = numbers.into_iter().map(|(roll, a, b)| Steps::from_numbers(roll, a, b));
        run(&mut Random::new(bounds), steps).map_err(TestCaseError::fail)?;
    }
}
