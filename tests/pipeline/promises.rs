//! What publishers and rooms may rely on.

use crate::*;

#[tokio::test]
async fn nobody_is_told_of_a_delta_before_it_is_on_disk() {
    let (path, mut pipeline) = Path::on(memory());
    let watched = pipeline.watch();
    let positions = || (*watched.durable.borrow(), *watched.dispatched.borrow());
    let pending = path.publisher.submit(vec![delta(None)], NOW).unwrap();
    let mut answer = Box::pin(pending.wait(PATIENCE));
    let Next::Batch(batch) = path.log.next(PATIENCE) else {
        panic!("a submitted delta must be there to read");
    };

    let committed = pipeline.commit(batch, NOW).unwrap();
    assert_eq!((path.history.durable(&room()), positions()), (0, (0, 0)));
    let flushed = pipeline.flush(committed, NOW).unwrap();
    assert_eq!((path.history.durable(&room()), positions()), (1, (0, 0)));
    pipeline.announce(&flushed);
    assert_eq!(positions(), (1, 0));
    assert!((&mut answer).now_or_never().is_none());
    pipeline.answer(&flushed);
    let published = (&mut answer).now_or_never().unwrap().remove(0).unwrap();
    assert!(path.recorder.take().is_empty());
    pipeline.dispatch(flushed);
    assert_eq!(path.recorder.take(), [Heard::Dispatched(vec![1])]);
    assert_eq!(positions(), (1, 1));

    assert_eq!(
        (published.offset, published.time, published.repeated),
        (1, NOW, false)
    );
    assert_eq!(published.epoch, path.history.epoch(&room()));
    assert_eq!(path.stored()[&1], published.id);
}

#[tokio::test]
async fn a_repeated_key_is_answered_with_the_first_position_and_not_dispatched() {
    let (path, mut pipeline) = Path::on(memory());
    let first = path.publish(&mut pipeline, Some("k"), NOW).await.unwrap();
    let second = path
        .publish(&mut pipeline, Some("k"), NOW + 5)
        .await
        .unwrap();
    assert_eq!((&*first.id, first.repeated), ("k", false));
    let repeated = true;
    assert_eq!(second, Published { repeated, ..first });
    assert_eq!(path.recorder.take(), [Heard::Dispatched(vec![1])]);
    assert_eq!(
        *pipeline.watch().dispatched.borrow(),
        2,
        "a repeat, too, is done with"
    );
}

#[tokio::test]
async fn what_is_erased_in_its_own_batch_is_shown_to_nobody() {
    let (path, mut pipeline) = Path::on(memory());
    let submit = || path.publisher.submit(vec![delta(None)], NOW).unwrap();
    let deltas = [submit(), submit()];
    let erase = |erasure| path.publisher.submit_erasure(room(), erasure, NOW).unwrap();
    let erasures = [erase(Erasure::One(2)), erase(Erasure::One(7))];
    let Next::Batch(batch) = path.log.next(PATIENCE) else {
        panic!("what was submitted must be there to read");
    };
    pipeline.take(batch, NOW);
    let events = [
        Heard::Erased(Erasure::One(2)),
        Heard::Erased(Erasure::One(7)),
        Heard::Dispatched(vec![1]),
    ];
    assert_eq!(path.recorder.take(), events);
    let mut found = Vec::new();
    for pending in deltas.into_iter().chain(erasures) {
        let published = pending.wait(PATIENCE).await.remove(0).unwrap();
        found.push((published.offset, published.found));
    }
    assert_eq!(found, [(1, true), (2, true), (3, true), (4, false)]);
    assert_eq!(path.stored().into_keys().collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn many_callers_share_batches_on_disk_and_each_gets_its_own_answer() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::open(directory.path(), 1 << 20).unwrap();
    let (path, handle) = Path::spawned(Arc::new(store));
    let caller = async |n: usize| {
        let mut published = Vec::new();
        for round in 0..10 {
            let key = format!("{n}-{round}");
            let results = path
                .publisher
                .publish(vec![delta(Some(&key)), delta(None)])
                .await;
            let results: Vec<_> = results.into_iter().map(Result::unwrap).collect();
            assert_eq!(*results[0].id, *key);
            assert_eq!(
                results[1].offset,
                results[0].offset + 1,
                "a call stays together"
            );
            published.extend(results);
        }
        assert!(published.is_sorted_by(|a, b| a.offset < b.offset));
        published
    };
    let published = join_all((0..20).map(caller)).await.concat();
    path.log.close();
    assert_eq!(handle.join(), End::Closed);

    let answered: HashMap<_, _> = published
        .iter()
        .map(|published| (published.offset, published.id.clone()))
        .collect();
    assert_eq!(answered.len(), 400);
    assert_eq!(answered, path.stored());
    let events = path.recorder.take();
    let offsets = events.iter().flat_map(|event| match event {
        Heard::Dispatched(offsets) => offsets.clone(),
        Heard::Erased(_) | Heard::Reset => panic!("nothing failed"),
    });
    assert!(offsets.eq(1..=400));
}

#[tokio::test]
async fn closing_the_log_ends_the_pipeline_behind_what_was_taken() {
    let (path, pipeline) = Path::on(memory());
    let pending = path
        .publisher
        .submit(vec![delta(None), delta(None)], NOW)
        .unwrap();
    path.log.close();
    let mut handle = pipeline.spawn().unwrap();
    assert_eq!(handle.ended().await, End::Closed);
    assert!(pending.wait(PATIENCE).await.iter().all(Result::is_ok));
    assert_eq!(*handle.watched.dispatched.borrow(), 2);
}

#[tokio::test]
async fn callers_who_go_away_or_lose_patience_leave_nothing_behind() {
    let (path, mut pipeline) = Path::on(memory());
    let answers = path.publisher.answers();
    let gone = path
        .publisher
        .submit(vec![delta(None), delta(None)], NOW)
        .unwrap();
    let impatient = path.publisher.submit(vec![delta(None)], NOW).unwrap();
    assert_eq!(answers.waiting(), 3);
    drop(gone);
    assert_eq!(answers.waiting(), 1);
    let result = impatient.wait(Duration::ZERO).await.remove(0);
    assert_eq!(result, Err(PublishError::OutcomeUnknown));
    assert_eq!(answers.waiting(), 0);
    let Next::Batch(batch) = path.log.next(PATIENCE) else {
        panic!("three deltas wait");
    };
    pipeline.take(batch, NOW);
    assert_eq!(path.stored().len(), 3, "their deltas count nevertheless");
}

#[tokio::test]
async fn a_refused_call_leaves_no_gap_in_the_producers_numbers() {
    let (path, _pipeline) = Path::on(memory());
    let too_many = vec![delta(None); 2_001];
    let full = PublishError::NotTaken {
        why: NotTaken::Full.into(),
    };
    assert!(
        path.publisher
            .publish(too_many)
            .await
            .iter()
            .all(|result| *result == Err(full.clone()))
    );
    assert!(path.publisher.publish(Vec::new()).await.is_empty());
    assert_eq!(path.publisher.answers().waiting(), 0);
    let _pending = path
        .publisher
        .submit(vec![delta(None), delta(None)], NOW)
        .unwrap();
    let Next::Batch(batch) = path.log.next(PATIENCE) else {
        panic!("two deltas wait");
    };
    assert!(
        batch
            .iter()
            .map(|event| event.delta().unwrap().1.sequence)
            .eq([1, 2])
    );
    let [first, second] = [&batch[0], &batch[1]].map(|event| event.delta().unwrap().1);
    assert_eq!(first.producer, second.producer);
    assert_ne!(first.id, second.id);
}
