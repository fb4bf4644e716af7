//! Full disks, failed writes, panics.

use crate::*;

#[tokio::test]
async fn a_disk_below_its_reserve_takes_nothing_and_still_replays() {
    let store = memory();
    let (path, mut pipeline) = Path::on(store.clone());
    path.publish(&mut pipeline, None, NOW).await.unwrap();
    store.set_full(true);
    let before = store.contents();
    let refused = path.publish(&mut pipeline, None, NOW).await;
    assert_eq!(refused, Err(PublishError::NoSpace));
    pipeline.tend(NOW);
    assert_eq!(store.contents(), before);
    assert_eq!(path.stored().len(), 1);
    store.set_full(false);
    assert!(path.publish(&mut pipeline, None, NOW).await.is_ok());
}

#[tokio::test]
async fn after_a_failed_write_nobody_knows_and_the_next_publish_goes_on() {
    for fault in [Fault::Commit, Fault::Flush { survive: 0 }] {
        let store = memory();
        let (path, mut pipeline) = Path::on(store.clone());
        path.publish(&mut pipeline, None, NOW).await.unwrap();
        store.inject(fault);
        let failed = path.publish(&mut pipeline, Some("k"), NOW).await;
        assert_eq!(failed, Err(PublishError::OutcomeUnknown));
        let retried = path.publish(&mut pipeline, Some("k"), NOW).await.unwrap();
        assert!(!retried.repeated);
        let dispatched = [Heard::Dispatched(vec![1]), Heard::Dispatched(vec![3])];
        assert_eq!(
            path.recorder.take(),
            dispatched,
            "what is known needs no reset"
        );
    }
}

#[tokio::test]
async fn a_delta_that_survived_its_failed_flush_reaches_the_rooms_and_its_retry() {
    let store = memory();
    let (path, mut pipeline) = Path::on(store.clone());
    store.inject(Fault::Flush { survive: 1 });
    let failed = path.publish(&mut pipeline, Some("k"), NOW).await;
    assert_eq!(failed, Err(PublishError::OutcomeUnknown));
    pipeline.tend(NOW);
    assert_eq!(
        path.recorder.take(),
        [Heard::Reset],
        "the rooms must look into history"
    );
    assert_eq!(*pipeline.watch().durable.borrow(), 1);
    assert_eq!(*pipeline.watch().dispatched.borrow(), 1);
    let retried = path.publish(&mut pipeline, Some("k"), NOW).await.unwrap();
    assert_eq!((retried.offset, retried.repeated), (1, true));
}

#[tokio::test]
async fn a_database_that_stays_closed_takes_nothing_until_it_opens() {
    let store = memory();
    let (path, mut pipeline) = Path::on(store.clone());
    store.inject(Fault::Commit);
    let failed = path.publish(&mut pipeline, None, NOW).await;
    assert_eq!(failed, Err(PublishError::OutcomeUnknown));
    store.inject(Fault::Reopen);
    assert_eq!(path.publish(&mut pipeline, None, NOW).await, Err(REOPENING));
    assert_eq!(
        path.publish(&mut pipeline, None, NOW + 499).await,
        Err(REOPENING)
    );
    assert!(path.publish(&mut pipeline, None, NOW + 500).await.is_ok());
}

#[tokio::test]
async fn a_panic_is_noticed_and_leaves_nobody_waiting() {
    let (path, pipeline) = Path::to(memory(), Broken, Recorder::default());
    let mut handle = pipeline.spawn().unwrap();
    assert!(path.publisher.publish(vec![delta(None)]).await[0].is_ok());
    assert_eq!(handle.ended().await, End::Panicked);
    let closed = PublishError::NotTaken {
        why: NotTaken::Closed.into(),
    };
    assert_eq!(
        path.publisher.publish(vec![delta(None)]).await,
        [Err(closed)]
    );
    assert_eq!(handle.join(), End::Panicked);
}

#[tokio::test]
async fn those_who_wait_when_the_pipeline_dies_are_told_that_nobody_knows() {
    let (path, pipeline) = Path::to(memory(), Broken, Recorder::default());
    // More than one batch: the first is answered and kills the pipeline, the rest is never read.
    let pending = path
        .publisher
        .submit(vec![delta(None); 1_500], NOW)
        .unwrap();
    assert_eq!(pipeline.spawn().unwrap().join(), End::Panicked);
    let at_once = Duration::from_secs(10);
    let results = timeout(at_once, pending.wait(PATIENCE)).await.unwrap();
    let answered = results.iter().filter(|result| result.is_ok()).count();
    assert!((1..1_500).contains(&answered));
    assert_eq!(
        results[answered..],
        vec![Err(PublishError::OutcomeUnknown); 1_500 - answered]
    );
}
