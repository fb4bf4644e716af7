//! The process dies between any two steps.

use crate::*;

/// A batch and how far it comes before the process dies, if it does.
#[derive(Debug, Clone)]
struct Round {
    keys: Vec<Option<u8>>,
    dies_after: Option<(usize, Index)>,
    fault: Option<(bool, Index)>,
}

fn round() -> impl Strategy<Value = Round> {
    (
        prop::collection::vec(prop::option::of(0_u8..20), 1..6),
        prop::option::weighted(0.3, (0_usize..5, any::<Index>())),
        prop::option::weighted(0.2, any::<(bool, Index)>()),
    )
        .prop_map(|(keys, dies_after, fault)| Round {
            keys,
            dies_after,
            fault,
        })
}

/// Walks up to `steps` of the five steps with everything that waits.
fn walk(path: &Path, pipeline: &mut Pipeline, steps: usize) {
    let Next::Batch(batch) = path.log.next(PATIENCE) else {
        panic!("something must wait");
    };
    let Some(committed) = (steps > 0).then(|| pipeline.commit(batch, NOW)).flatten() else {
        return;
    };
    let Some(flushed) = (steps > 1)
        .then(|| pipeline.flush(committed, NOW))
        .flatten()
    else {
        return;
    };
    if steps > 2 {
        pipeline.announce(&flushed);
    }
    if steps > 3 {
        pipeline.answer(&flushed);
    }
    if steps > 4 {
        pipeline.dispatch(flushed);
    }
}

async fn lives_through(rounds: Vec<Round>) -> Result<(), TestCaseError> {
    let store = memory();
    let (mut path, mut pipeline) = Path::on(store.clone());
    let mut promised: HashMap<u64, Arc<str>> = HashMap::new();
    for round in rounds {
        let keys = round.keys.iter().map(|key| key.map(|key| key.to_string()));
        let deltas = keys.map(|key| delta(key.as_deref())).collect();
        let pending = path.publisher.submit(deltas, NOW).unwrap();
        match round.fault {
            Some((true, _)) => store.inject(Fault::Commit),
            Some((false, survive)) => {
                let survive = survive.index(store.unflushed() + 2);
                store.inject(Fault::Flush { survive });
            }
            None => {}
        }
        let steps = round.dies_after.map_or(5, |(steps, _)| steps);
        walk(&path, &mut pipeline, steps);
        if let Some((_, survive)) = round.dies_after {
            store.crash(survive.index(store.unflushed() + 1));
            path.publisher.answers().give_up();
        } else {
            pipeline.tend(NOW);
        }
        for published in pending.wait(PATIENCE).await.into_iter().flatten() {
            promised.insert(published.offset, published.id);
        }
        let mut dispatched = Vec::new();
        for event in path.recorder.take() {
            if let Heard::Dispatched(offsets) = event {
                dispatched.extend(offsets);
            }
        }
        if round.dies_after.is_some() {
            (path, pipeline) = Path::on(store.clone());
        }
        let stored = path.stored();
        for (offset, id) in &promised {
            prop_assert_eq!(
                stored.get(offset),
                Some(id),
                "delta {} was promised",
                offset
            );
        }
        for offset in dispatched {
            prop_assert!(stored.contains_key(&offset), "delta {} was shown", offset);
        }
        let keyed = || stored.values().filter(|id| id.len() <= 2);
        prop_assert_eq!(
            keyed().collect::<HashSet<_>>().len(),
            keyed().count(),
            "a key twice"
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_was_promised_or_shown_outlives_any_crash(
        rounds in prop::collection::vec(round(), 1..30)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(lives_through(rounds))?;
    }
}
