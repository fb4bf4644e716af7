//! Three nodes, one of which dies.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use lapin::{
    BasicProperties, Confirmation, Consumer,
    options::BasicPublishOptions,
    types::{AMQPValue, FieldTable},
};

use crate::{
    common::{Broker, PATIENCE},
    probe::{Delivered, Probe, delivery, first, next, reply_code, within},
};

const BEFORE: usize = 500;
const AFTER: usize = 500;
/// Publishes that wait for their confirm at a time; below the 256 at which the broker stops reading
/// the connection.
const WINDOW: usize = 100;

/// The stream's leader is the node that it was declared on.
async fn replicated_stream(broker: &Broker, leader: usize) -> String {
    let probe = Probe::connect(broker.url(leader)).await;
    let stream = Broker::unique_prefix();
    let mut arguments = FieldTable::default();
    let locator = AMQPValue::LongString("client-local".into());
    arguments.insert("x-queue-leader-locator".into(), locator);
    probe.declare(&stream, arguments).await;
    broker.settle();
    stream
}

/// Kills the leader after [`BEFORE`] publishes at another node, and publishes [`AFTER`] more.
async fn publish_over_the_leaders_death(broker: &Broker, stream: &str, publisher: &Probe) {
    let mut confirms = futures_util::stream::FuturesOrdered::new();
    for n in 0..BEFORE + AFTER {
        if n == BEFORE {
            broker.kill(1);
        }
        let data = n.to_string();
        let sent = publisher.channel.basic_publish(
            "".into(),
            stream.into(),
            BasicPublishOptions::default(),
            data.as_bytes(),
            BasicProperties::default(),
        );
        confirms.push_back(within(sent).await.expect("the connection lives"));
        if confirms.len() == WINDOW {
            let confirmed = within(confirms.next()).await.expect("there are confirms");
            assert_eq!(confirmed.expect("an answer"), Confirmation::Ack(None));
        }
    }
    while let Some(confirmed) = within(confirms.next()).await {
        assert_eq!(confirmed.expect("an answer"), Confirmation::Ack(None));
    }
}

/// A consumer at a node that has just started. It takes clients before it has opened its streams,
/// and meanwhile answers 404 for a stream that is there, or 406 for want of a replica: neither
/// tells that the stream was deleted.
async fn consume_when_there(url: &str, stream: &str) -> Consumer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let probe = Probe::connect(url).await;
        let error = match probe.try_consume(stream, first()).await {
            Ok(consumer) => return consumer,
            Err(error) => error,
        };
        let temporary = match reply_code(&error) {
            404 => "is down or inaccessible",
            406 => "does not have a replica on the local node",
            code => panic!("answered with {code}: {error}"),
        };
        assert!(error.to_string().contains(temporary), "{error}");
        assert!(
            Instant::now() < deadline,
            "the stream never came back: {error}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_leaders_death_loses_doubles_and_reorders_nothing_for_a_publisher_at_another_node() {
    let broker = Broker::start(3);
    let stream = replicated_stream(&broker, 1).await;
    let (publisher, reader) = (
        Probe::connect(broker.url(2)).await,
        Probe::connect(broker.url(3)).await,
    );
    let mut live = reader.consume(&stream, first()).await;
    // A consumer at the node that dies ends with an error, and not as if it had been cancelled.
    let victim = Probe::connect(broker.url(1)).await;
    let mut cut = victim.consume(&stream, next()).await;
    publish_over_the_leaders_death(&broker, &stream, &publisher).await;
    loop {
        match within(cut.next()).await {
            Some(Ok(_)) => {}
            Some(Err(_)) => break,
            None => panic!("the consumer at the dead node ended as if it had been cancelled"),
        }
    }

    let mut numbers = Vec::new();
    let mut seen = BTreeMap::new();
    while numbers.len() < BEFORE + AFTER {
        let Delivered { offset, data } = delivery(&mut live).await;
        numbers.push(data.parse::<usize>().expect("a number"));
        seen.insert(offset, data);
    }
    assert_eq!(numbers, (0..BEFORE + AFTER).collect::<Vec<_>>());

    // The node returns with a replica of its own, on which all is at the same offsets.
    broker.restart(1);
    let mut consumer = consume_when_there(broker.url(1), &stream).await;
    for (offset, data) in seen {
        assert_eq!(delivery(&mut consumer).await, Delivered { offset, data });
    }
}

#[tokio::test]
async fn what_was_confirmed_survives_the_death_of_all_nodes_at_once() {
    let broker = Broker::start(1);
    let stream = replicated_stream(&broker, 1).await;
    Probe::connect(broker.url(1))
        .await
        .publish_numbers(&stream, 100)
        .await;
    broker.kill_all();
    broker.restart_all();
    let mut consumer = consume_when_there(broker.url(1), &stream).await;
    for n in 0..100 {
        let data = n.to_string();
        assert_eq!(delivery(&mut consumer).await, Delivered { offset: n, data });
    }
}
