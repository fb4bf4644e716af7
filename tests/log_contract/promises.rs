//! The promises of [`OrderedLog`](roomwire::log::OrderedLog).

use std::{
    thread,
    time::{Duration, Instant},
};

use roomwire::log::{Next, NotTaken};

use crate::{
    logs::{BOUNDS, Kind},
    reading::{LONG, Reader, publish, record, records},
};

pub fn what_is_taken_is_read_once_in_order_and_unchanged(kind: &dyn Kind) {
    let log = kind.open(None);
    let expected = records(1, 1..=1_000);
    let mut reader = Reader::default();
    for calls in expected.chunks(100) {
        publish(&*log, calls);
        reader.until_count(&*log, calls[99].sequence as usize);
    }
    assert_eq!(reader.read, expected);
}

pub fn the_records_of_one_call_and_the_calls_of_one_thread_keep_their_order(kind: &dyn Kind) {
    let log = kind.open(None);
    let mut reader = Reader::default();
    thread::scope(|scope| {
        for producer in 1..=4 {
            let log = &log;
            scope.spawn(move || {
                for call in records(producer, 1..=100).chunks(10) {
                    publish(&**log, call);
                }
            });
        }
        reader.until_count(&*log, 400);
    });
    for producer in 1..=4 {
        let of_one = reader
            .read
            .iter()
            .filter(|record| record.producer == producer);
        assert!(of_one.map(|record| record.sequence).eq(1..=100));
    }
    for call in reader.read.chunks(10) {
        let first = &call[0];
        assert_eq!(first.sequence % 10, 1, "a call begins behind a whole one");
        assert!(call.iter().all(|record| record.producer == first.producer));
    }
}

pub fn of_a_call_that_does_not_fit_nothing_is_taken(kind: &dyn Kind) {
    let log = kind.open(None);
    publish(&*log, &records(1, [1]));
    let too_many = records(1, 2..=BOUNDS.records as u64 + 2);
    assert_eq!(log.publish(too_many), Err(NotTaken::Full));
    let mut too_large = record(1, 2);
    too_large.body = vec![b'1'; BOUNDS.bytes].into();
    assert_eq!(log.publish(vec![too_large]), Err(NotTaken::Full));
    publish(&*log, &records(1, [2]));
    assert_eq!(Reader::default().until_count(&*log, 2), records(1, [1, 2]));
}

pub fn who_reads_makes_room(kind: &dyn Kind) {
    let log = kind.open(None);
    let all = BOUNDS.records as u64;
    let mut reader = Reader::default();
    for round in 0..3 {
        publish(&*log, &records(1, round * all + 1..=(round + 1) * all));
        reader.until_count(&*log, ((round + 1) * all) as usize);
    }
}

pub fn a_reader_with_nothing_to_read_does_not_wait_for_ever(kind: &dyn Kind) {
    let log = kind.open(None);
    let (start, mut reader) = (Instant::now(), Reader::default());
    // A log may hold entries of its own.
    while let Next::Batch(batch) = log.next(Duration::from_millis(1)) {
        reader.take(batch);
        assert!(start.elapsed() < LONG, "it never ends");
    }
    assert_eq!(reader.read, []);
}

pub fn a_reader_that_waits_gets_what_is_published_then(kind: &dyn Kind) {
    let log = kind.open(None);
    thread::scope(|scope| {
        let reading = scope.spawn(|| Reader::default().until_count(&*log, 1).to_vec());
        publish(&*log, &records(1, [1]));
        assert_eq!(reading.join().unwrap(), records(1, [1]));
    });
}

pub fn a_closed_log_takes_nothing_and_is_read_to_its_end(kind: &dyn Kind) {
    let log = kind.open(None);
    let taken = records(1, 1..=300);
    publish(&*log, &taken);
    log.close();
    assert_eq!(log.publish(records(1, [301])), Err(NotTaken::Closed));
    let mut reader = Reader::default();
    assert_eq!(reader.until_closed(&*log), taken);
    assert!(matches!(log.next(LONG), Next::Closed), "it stays closed");
}

pub fn a_reader_that_waits_is_told_of_the_close(kind: &dyn Kind) {
    let log = kind.open(None);
    publish(&*log, &records(1, [1]));
    let mut reader = Reader::default();
    reader.until_count(&*log, 1);
    thread::scope(|scope| {
        let reading = scope.spawn(|| Reader::behind(&reader).until_closed(&*log).to_vec());
        log.close();
        assert_eq!(reading.join().unwrap(), []);
    });
}

pub fn a_log_goes_on_behind_the_place_where_it_was_left(kind: &dyn Kind) {
    let mut reader = Reader::default();
    for life in 0..3 {
        let log = kind.open(reader.place);
        reader = Reader::behind(&reader);
        let expected = records(1, life * 10 + 1..=life * 10 + 10);
        publish(&*log, &expected);
        assert_eq!(reader.until_count(&*log, 10), expected);
        log.close();
        assert_eq!(reader.until_closed(&*log), expected);
    }
}
