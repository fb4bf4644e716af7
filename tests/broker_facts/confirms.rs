//! What a confirm says, and what it does not.

use futures_util::StreamExt;
use lapin::Confirmation;
use tokio::time::timeout;

use crate::{
    common::{Broker, eventually},
    probe::{Probe, SILENCE, delivery, first, next, within},
};

#[tokio::test]
async fn a_publish_to_a_deleted_stream_is_acked_and_only_mandatory_tells() {
    let (probe, stream) = Probe::with_stream().await;
    probe.delete(&stream).await;
    assert_eq!(
        probe.publish(&stream, "lost", false).await,
        Confirmation::Ack(None)
    );
    let confirmed = probe.publish(&stream, "returned", true).await;
    assert!(confirmed.is_ack());
    let returned = confirmed.take_message().expect("the message comes back");
    assert_eq!(
        (returned.reply_code, returned.delivery.data),
        (312, b"returned".to_vec())
    );
}

#[tokio::test]
async fn deleting_a_stream_ends_its_consumer_without_an_error_and_keeps_the_connection() {
    let (probe, stream) = Probe::with_stream().await;
    let mut consumer = probe.consume(&stream, next()).await;
    probe.delete(&stream).await;
    assert!(within(consumer.next()).await.is_none());
    assert!(probe.connection.status().connected());
}

#[tokio::test]
async fn a_memory_alarm_holds_publishers_back_and_lets_readers_read() {
    let broker = Broker::start(1);
    let (publisher, reader) = (
        Probe::connect(broker.url(1)).await,
        Probe::connect(broker.url(1)).await,
    );
    let stream = "blocked";
    publisher.declare(stream, Default::default()).await;
    publisher.publish_numbers(stream, 3).await;
    broker.alarm(true);
    let held = tokio::spawn(async move {
        let confirmed = publisher.publish(stream, "held", false).await;
        (publisher, confirmed)
    });
    let mut consumer = reader.consume(stream, first()).await;
    for n in 0..3 {
        assert_eq!(delivery(&mut consumer).await.data, n.to_string());
    }
    assert!(
        timeout(SILENCE, consumer.next()).await.is_err(),
        "the alarm held nobody"
    );
    broker.alarm(false);
    assert_eq!(delivery(&mut consumer).await.data, "held");
    let (publisher, confirmed) = within(held).await.expect("the publisher goes on");
    assert_eq!(confirmed, Confirmation::Ack(None));
    eventually("the end of the block", || {
        (!publisher.connection.status().blocked()).then_some(())
    });
}
