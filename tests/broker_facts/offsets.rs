//! Where a consumer starts, and what it is not told.

use lapin::types::{AMQPValue, FieldTable};

use crate::{
    common::Broker,
    probe::{Delivered, Probe, deliveries, delivery, first, next, offset, stays_silent},
};

#[tokio::test]
async fn a_numeric_offset_starts_exactly_there() {
    let (probe, stream) = Probe::with_stream().await;
    // Published at once they share chunks, at whose edges other offsets would start.
    probe.publish_numbers(&stream, 50).await;
    for start in [0, 1, 17, 49] {
        let mut consumer = probe.consume(&stream, offset(start)).await;
        let data = start.to_string();
        assert_eq!(
            delivery(&mut consumer).await,
            Delivered {
                offset: start,
                data
            }
        );
    }
}

#[tokio::test]
async fn an_offset_beyond_the_end_hides_what_comes_below_it_without_an_error() {
    let (probe, stream) = Probe::with_stream().await;
    probe.publish_numbers(&stream, 3).await;
    let mut consumer = probe.consume(&stream, offset(6)).await;
    for data in ["3", "4", "5"] {
        probe.publish(&stream, data, false).await;
    }
    assert!(stays_silent(&mut consumer).await);
    probe.publish(&stream, "6", false).await;
    assert_eq!(
        delivery(&mut consumer).await,
        Delivered {
            offset: 6,
            data: "6".into()
        }
    );
}

#[tokio::test]
async fn next_misses_what_came_before_and_gets_what_comes_after_its_reply() {
    let (probe, stream) = Probe::with_stream().await;
    probe.publish_numbers(&stream, 3).await;
    let mut consumer = probe.consume(&stream, next()).await;
    probe.publish(&stream, "3", false).await;
    assert_eq!(
        delivery(&mut consumer).await,
        Delivered {
            offset: 3,
            data: "3".into()
        }
    );
}

#[tokio::test]
async fn an_offset_that_retention_has_passed_starts_at_the_first_retained() {
    let probe = Probe::connect(Broker::shared().url(1)).await;
    let stream = Broker::unique_prefix();
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-stream-max-segment-size-bytes".into(),
        AMQPValue::LongLongInt(20_000),
    );
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(60_000));
    probe.declare(&stream, arguments).await;
    let body = "x".repeat(1_000);
    for _ in 0..200 {
        probe.publish(&stream, &body, false).await;
    }
    let oldest = delivery(&mut probe.consume(&stream, first()).await)
        .await
        .offset;
    assert!(oldest > 50, "retention left offset {oldest}");
    let mut consumer = probe.consume(&stream, offset(10)).await;
    let read = deliveries(&mut consumer, 20).await;
    assert_eq!(read[0].offset, oldest);
}
