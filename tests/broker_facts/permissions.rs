//! The least rights with which others work beside the server, as the operator's guide gives them.

use lapin::{
    ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};

use crate::{
    common::Broker,
    probe::{Probe, reply_code},
};

/// Adds a user with these rights to configure, to write and to read; gives the URL to connect with.
fn add_user(broker: &Broker, name: &str, rights: [&str; 3]) -> String {
    broker.ctl(&["add_user", name, "secret"]);
    let [configure, write, read] = rights;
    broker.ctl(&["set_permissions", name, configure, write, read]);
    let address = broker
        .url(1)
        .rsplit('@')
        .next()
        .expect("a URL has an address");
    format!("amqp://{name}:secret@{address}")
}

async fn declare_exchange(probe: &Probe, name: &str) {
    let declared = probe.channel.exchange_declare(
        name.into(),
        ExchangeKind::Topic,
        ExchangeDeclareOptions::default(),
        FieldTable::default(),
    );
    declared.await.expect("the exchange is declared");
}

#[tokio::test]
async fn a_producer_needs_to_write_to_one_exchange_and_can_be_held_to_some_rooms() {
    let (broker, prefix) = (Broker::shared(), Broker::unique_prefix());
    let owner = Probe::connect(broker.url(1)).await;
    let (exchange, stream) = (format!("{prefix}.in"), format!("{prefix}.ingress"));
    declare_exchange(&owner, &exchange).await;
    owner.declare(&stream, FieldTable::default()).await;
    let bound = owner.channel.queue_bind(
        stream.as_str().into(),
        exchange.as_str().into(),
        "#".into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    bound.await.expect("the queue is bound");

    let user = format!("{prefix}-producer");
    let url = add_user(broker, &user, ["^$", &format!(r"^{prefix}\.in$"), "^$"]);
    let only_chat = ["set_topic_permissions", &user, &exchange, "^chat:", "^$"];
    broker.ctl(&only_chat);

    let producer = Probe::connect(&url).await;
    let taken = producer.publish_to(&exchange, "chat:42", "{}", true).await;
    let confirmed = taken.expect("the room is allowed");
    assert!(confirmed.is_ack() && confirmed.take_message().is_none());
    let other_room = producer
        .publish_to(&exchange, "billing:42", "{}", true)
        .await;
    assert_eq!(
        reply_code(&other_room.expect_err("another room is not")),
        403
    );
    let producer = Probe::connect(&url).await;
    let past_the_exchange = producer.publish_to("", &stream, "{}", true).await;
    assert_eq!(
        reply_code(&past_the_exchange.expect_err("the queue itself is not")),
        403
    );
}

#[tokio::test]
async fn a_reader_of_events_needs_a_queue_of_its_own_and_to_read_one_exchange() {
    let (broker, prefix) = (Broker::shared(), Broker::unique_prefix());
    let owner = Probe::connect(broker.url(1)).await;
    let events = format!("{prefix}.events");
    declare_exchange(&owner, &events).await;
    let user = format!("{prefix}-reader");
    let own = format!("^{user}$");
    let url = add_user(
        broker,
        &user,
        [&own, &own, &format!(r"^({user}|{prefix}\.events)$")],
    );

    let reader = Probe::connect(&url).await;
    let declared = reader.channel.queue_declare(
        user.as_str().into(),
        QueueDeclareOptions::default(),
        FieldTable::default(),
    );
    declared.await.expect("its own queue is allowed");
    let bound = reader.channel.queue_bind(
        user.as_str().into(),
        events.as_str().into(),
        "#".into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    bound.await.expect("binding it to the events is allowed");
    let forged = reader
        .publish_to(&events, "room.occupied", "{}", false)
        .await;
    assert_eq!(
        reply_code(&forged.expect_err("making events up is not")),
        403
    );
}
