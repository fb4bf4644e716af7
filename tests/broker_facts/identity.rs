//! How a stream that was deleted and made anew under the same name is told from the old one. The
//! broker gives it no identity of its own, and its offsets start again at 0.

use lapin::types::{AMQPValue, FieldTable};

use crate::probe::{Delivered, Probe, delivery, next, offset, reply_code};

/// The offset at which a message comes back that is published after the consumer was confirmed.
async fn marker_offset(probe: &Probe, stream: &str) -> i64 {
    let mut consumer = probe.consume(stream, next()).await;
    probe.publish(stream, "marker", false).await;
    let marker = delivery(&mut consumer).await;
    assert_eq!(marker.data, "marker");
    marker.offset
}

#[tokio::test]
async fn a_marker_at_or_below_the_checkpoint_tells_a_recreated_stream() {
    let (probe, stream) = Probe::with_stream().await;
    probe.publish_numbers(&stream, 10).await;
    let checkpoint = 9;
    assert!(marker_offset(&probe, &stream).await > checkpoint);
    probe.delete(&stream).await;
    probe.declare(&stream, FieldTable::default()).await;
    probe.publish_numbers(&stream, 3).await;
    assert!(marker_offset(&probe, &stream).await <= checkpoint);
}

#[tokio::test]
async fn another_message_at_the_checkpoint_tells_a_recreated_stream_that_has_outgrown_it() {
    let (probe, stream) = Probe::with_stream().await;
    probe.publish_numbers(&stream, 10).await;
    let kept = Delivered {
        offset: 9,
        data: "9".into(),
    };
    probe.delete(&stream).await;
    probe.declare(&stream, FieldTable::default()).await;
    for n in 0..12 {
        probe.publish(&stream, &format!("new {n}"), false).await;
    }
    // The marker alone would let it pass.
    assert!(marker_offset(&probe, &stream).await > kept.offset);
    let there = delivery(&mut probe.consume(&stream, offset(kept.offset)).await).await;
    assert_eq!(there.offset, kept.offset);
    assert_ne!(there.data, kept.data);
}

#[tokio::test]
async fn another_argument_is_refused_with_406_and_a_passive_declaration_compares_none() {
    let (probe, stream) = Probe::with_stream().await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-age".into(), AMQPValue::LongString("1h".into()));
    let passive = lapin::options::QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    let declared = probe
        .channel
        .queue_declare(stream.as_str().into(), passive, arguments.clone());
    declared
        .await
        .expect("a passive declaration asks for existence only");
    let refused = probe.try_declare(&stream, arguments).await;
    assert_eq!(reply_code(&refused.expect_err("an argument differs")), 406);
}

#[tokio::test]
async fn a_passive_declaration_of_a_stream_that_is_not_there_is_answered_with_404() {
    let (probe, stream) = Probe::with_stream().await;
    let passive = lapin::options::QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    let name = format!("{stream}.other").as_str().into();
    let refused = probe
        .channel
        .queue_declare(name, passive, FieldTable::default())
        .await;
    assert_eq!(
        reply_code(&refused.expect_err("there is no such stream")),
        404
    );
}
