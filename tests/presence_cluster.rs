//! Who is where over several servers on one RabbitMQ, and what the backend hears of it.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use common::{Broker, Client, Server, eventually, server::deltas_of};
use futures_util::StreamExt;
use jsonwebtoken::{EncodingKey, Header, encode};
use lapin::{
    Connection, ConnectionProperties, Consumer,
    options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use roomwire::access::api_key;
use serde_json::{Value, json};
use tokio::{runtime::Runtime, time::timeout};
use uuid::Uuid;

/// Signs the tokens of users.
const SECRET: &str = "a secret of these tests, and no other";

/// Servers that are quick to miss each other.
fn config(url: &str, prefix: &str, grace: &str) -> String {
    format!(
        "[limits]\nping_interval = \"1h\"\n\
         [access]\ntoken_secrets = [\"{SECRET}\"]\n\
         [presence]\nbeat = \"500ms\"\nleave_grace = \"{grace}\"\nuser_events = true\n\
         [amqp]\nurl = [\"{url}\"]\nprefix = \"{prefix}\"\npartitions = 1\nheartbeat = \"500ms\"\n\
         [namespaces.people]\npresence = true\njoin_leave = true\nevents = true\n\
         [namespaces.typing]\nclient_publish = \"ephemeral\"\n\
         [namespaces.ticker]\nstore = false\n"
    )
}

fn instances<const N: usize>(broker: &Broker, prefix: &str, grace: &str) -> [Server; N] {
    instances_at(broker.url(1), prefix, grace)
}

fn instances_at<const N: usize>(url: &str, prefix: &str, grace: &str) -> [Server; N] {
    let config = config(url, prefix, grace);
    let servers = std::array::from_fn(|_| Server::start(&config));
    for server in &servers {
        eventually("the servers to know each other", || {
            knows(server, N - 1).then_some(())
        });
    }
    servers
}

/// Whether a server has read its log and hears of so many others.
fn knows(server: &Server, others: usize) -> bool {
    let metrics = server.get("/metrics").text();
    server.get("/readyz").status == 200
        && metrics.contains(&format!("roomwire_presence_instances {others}\n"))
        && metrics.contains("roomwire_bus_connected 1\n")
}

fn user(server: &Server, name: &str) -> Client {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = encode(&Header::default(), &json!({"sub": name}), &key).expect("claims are JSON");
    let mut client = Client::open(server);
    let result = client.result("connect", json!({"token": token}));
    client.id = result["client"].as_str().expect("a client id").into();
    client
}

fn join(client: &mut Client, room: &str) {
    let request = json!({"channel": room, "join_leave": true});
    client.result("subscribe", request);
}

fn stats(client: &mut Client, room: &str) -> (u64, u64) {
    let stats = client.result("presence_stats", json!({"channel": room}));
    let figure = |name: &str| stats[name].as_u64().expect("a number");
    (figure("num_clients"), figure("num_users"))
}

fn await_stats(client: &mut Client, room: &str, expected: (u64, u64)) {
    eventually(&format!("{expected:?} in {room}"), || {
        (stats(client, room) == expected).then_some(())
    });
}

/// The next push: what happened, and to which user.
fn told(client: &mut Client) -> (String, String) {
    let push = client.push();
    let what = ["join", "leave"]
        .into_iter()
        .find(|of| push[of].is_object());
    let what = what.unwrap_or_else(|| panic!("neither join nor leave: {push}"));
    let user = push[what]["info"]["user"].as_str().expect("a user");
    (what.to_owned(), user.to_owned())
}

fn joined(user: &str) -> (String, String) {
    ("join".to_owned(), user.to_owned())
}

fn left(user: &str) -> (String, String) {
    ("leave".to_owned(), user.to_owned())
}

#[test]
fn all_servers_know_who_is_in_a_room_and_tell_their_clients() {
    let [a, b] = instances(Broker::shared(), &Broker::unique_prefix(), "15s");
    let mut ann = user(&a, "ann");
    join(&mut ann, "people:1");
    assert_eq!(told(&mut ann), joined("ann"));
    let mut bert = user(&b, "bert");
    join(&mut bert, "people:1");
    assert_eq!(told(&mut ann), joined("bert"));
    for client in [&mut ann, &mut bert] {
        await_stats(client, "people:1", (2, 2));
        let list = client.result("presence", json!({"channel": "people:1"}));
        assert_eq!(list["presence"].as_object().map(|of| of.len()), Some(2));
    }
    let list = bert.result("presence", json!({"channel": "people:1"}));
    assert_eq!(list["presence"][&ann.id]["user"], "ann");
    // Of a room that keeps no list, the number.
    for client in [&mut ann, &mut bert] {
        client.subscribe("lobby");
    }
    await_stats(&mut ann, "lobby", (2, 2));
    drop(bert);
    await_stats(&mut ann, "lobby", (1, 1));
    await_stats(&mut ann, "people:1", (1, 1));
}

#[test]
fn the_clients_of_a_server_that_is_killed_are_gone_soon_and_left_after_the_grace() {
    let [a, mut b] = instances(Broker::shared(), &Broker::unique_prefix(), "500ms");
    let mut ann = user(&a, "ann");
    join(&mut ann, "people:1");
    let mut bert = user(&b, "bert");
    join(&mut bert, "people:1");
    assert_eq!(
        [told(&mut ann), told(&mut ann)],
        [joined("ann"), joined("bert")]
    );
    b.kill9();
    await_stats(&mut ann, "people:1", (1, 1));
    assert_eq!(told(&mut ann), left("bert"));
}

#[test]
fn a_client_that_moves_to_another_server_has_neither_left_nor_joined() {
    let [a, mut b] = instances(Broker::shared(), &Broker::unique_prefix(), "15s");
    let mut ann = user(&a, "ann");
    join(&mut ann, "people:1");
    let mut bert = user(&b, "bert");
    join(&mut bert, "people:1");
    assert_eq!(
        [told(&mut ann), told(&mut ann)],
        [joined("ann"), joined("bert")]
    );
    // As when a new version is rolled out.
    assert!(b.stop().success());
    await_stats(&mut ann, "people:1", (1, 1));
    let mut bert = user(&a, "bert");
    join(&mut bert, "people:1");
    assert_eq!(told(&mut bert), joined("bert"), "who joins sees itself");
    await_stats(&mut ann, "people:1", (2, 2));
    let mut carl = user(&a, "carl");
    join(&mut carl, "people:1");
    assert_eq!(told(&mut ann), joined("carl"), "something was told of bert");
}

#[test]
fn what_a_client_says_without_storing_it_is_heard_at_the_other_servers() {
    let [a, b] = instances(Broker::shared(), &Broker::unique_prefix(), "15s");
    let (mut ann, mut bert) = (user(&a, "ann"), user(&b, "bert"));
    for client in [&mut ann, &mut bert] {
        client.subscribe("typing:1");
    }
    ann.result(
        "publish",
        json!({"channel": "typing:1", "data": {"typing": true}}),
    );
    for client in [&mut ann, &mut bert] {
        let (room, publication) = client.publication();
        assert_eq!(room, "typing:1");
        assert_eq!(publication["data"], json!({"typing": true}));
        assert_eq!(publication["info"]["user"], "ann");
        assert_eq!(publication["offset"], Value::Null);
    }
    // Once only.
    ann.result("publish", json!({"channel": "typing:1", "data": 2}));
    for client in [&mut ann, &mut bert] {
        assert_eq!(client.publication().1["data"], 2);
    }
}

#[test]
fn what_is_revoked_at_one_server_ends_at_the_others_and_a_return_is_not_ended_again() {
    let (broker, prefix) = (Broker::shared(), Broker::unique_prefix());
    let key = api_key::new_key().expect("the system is random");
    let hash = api_key::KeyHash::of(&key);
    let config = format!(
        "{}[keys.admin]\nhash = \"{hash}\"\nscopes = [\"admin\"]\n",
        config(broker.url(1), &prefix, "1s")
    );
    let [a, b] = [(); 2].map(|()| Server::start(&config));
    for server in [&a, &b] {
        eventually("the servers to know each other", || {
            knows(server, 1).then_some(())
        });
    }
    let revoke = |path: &str, body: Value| {
        let reply = a.post(path, &[("X-API-Key", &*key)], body.to_string());
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.json(), json!({"sessions": 0, "others": 1}));
    };
    let [mut ann, mut bert] = ["ann", "bert"].map(|name| user(&b, name));
    for client in [&mut ann, &mut bert] {
        client.subscribe("lobby");
        client.subscribe("hall");
    }
    let path = "/v1/subscriptions/end";
    revoke(path, json!({"user": "ann", "room": "lobby"}));
    let push = ann.push();
    assert_eq!(push["channel"], "lobby");
    assert_eq!(push["unsubscribe"]["code"], 2000);
    revoke("/v1/sessions/disconnect", json!({"user": "ann"}));
    assert_eq!(ann.closed(), (3503, "force disconnect".to_owned()));
    // It is said again after one second and after four.
    let mut ann = user(&b, "ann");
    std::thread::sleep(std::time::Duration::from_secs(5));
    ann.is_alive();
    bert.is_alive();
}

/// A backend that hears events.
struct Backend {
    runtime: Runtime,
    _connection: Connection,
    consumer: Consumer,
    /// The last event of each room and user.
    last: BTreeMap<String, String>,
    ids: BTreeSet<Uuid>,
}

/// Makes everything beforehand, so that a backend can bind its queue before the first server comes.
fn set_up(broker: &Broker, prefix: &str) {
    let made = Command::new(env!("CARGO_BIN_EXE_roomwire"))
        .args(["amqp", "setup", "--partitions", "1"])
        .args(["--amqp-url", broker.url(1), "--amqp-prefix", prefix])
        .output()
        .expect("the binary starts");
    let told = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{told}");
}

impl Backend {
    /// After [`set_up`].
    fn listen(url: &str, prefix: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let exchange = format!("{prefix}.events");
        let listening = async {
            let connection = Connection::connect(url, ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            let queue = format!("{prefix}-backend");
            let durable = QueueDeclareOptions {
                durable: true,
                ..QueueDeclareOptions::default()
            };
            channel
                .queue_declare(queue.as_str().into(), durable, FieldTable::default())
                .await?;
            channel
                .queue_bind(
                    queue.as_str().into(),
                    exchange.as_str().into(),
                    "#".into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await?;
            let options = BasicConsumeOptions {
                no_ack: true,
                ..BasicConsumeOptions::default()
            };
            let consumer = channel
                .basic_consume(
                    queue.as_str().into(),
                    "".into(),
                    options,
                    FieldTable::default(),
                )
                .await?;
            Ok::<_, lapin::Error>((connection, consumer))
        };
        let (connection, consumer) = runtime.block_on(listening).expect("the broker is there");
        Self {
            runtime,
            _connection: connection,
            consumer,
            last: BTreeMap::new(),
            ids: BTreeSet::new(),
        }
    }

    /// Takes what has come.
    fn hear(&mut self) {
        let wait = std::time::Duration::from_millis(100);
        while let Ok(Some(Ok(delivery))) = self
            .runtime
            .block_on(async { timeout(wait, self.consumer.next()).await })
        {
            let body: Value = serde_json::from_slice(&delivery.data).expect("JSON");
            let key = delivery.routing_key.to_string();
            assert_eq!(body["event"], key.as_str());
            let of = if key.starts_with("room.") {
                "room"
            } else {
                "user"
            };
            let name = body[of].as_str().expect("a name").to_owned();
            let time = body["time"].as_u64().expect("ms since 1970");
            assert!(time > 1_700_000_000_000);
            assert_eq!(body, json!({"event": key, of: name, "time": time}));
            let properties = &delivery.properties;
            let headers = properties.headers().clone().expect("headers");
            let header = |name: &str| headers.inner().get(name)?.as_long_string();
            assert_eq!(header("event").map(|of| of.to_string()), Some(key.clone()));
            assert_eq!(header(of).map(|of| of.to_string()), Some(name.clone()));
            assert_eq!(headers.inner().len(), 2);
            let id = properties.message_id().as_ref().expect("an id");
            assert!(
                self.ids
                    .insert(Uuid::parse_str(id.as_str()).expect("a UUID"))
            );
            assert_eq!(
                properties.delivery_mode(),
                &Some(2),
                "it survives a restart"
            );
            let form = properties.content_type().as_ref().map(|of| of.as_str());
            assert_eq!(form, Some("application/json"));
            self.last.insert(name, key);
        }
    }

    fn await_last(&mut self, name: &str, event: &str) {
        eventually(&format!("{event} of {name}"), || {
            self.hear();
            (self.last.get(name).map(String::as_str) == Some(event)).then_some(())
        });
    }
}

#[test]
fn the_backend_hears_of_rooms_and_users_once_they_come_and_after_they_have_gone() {
    let (broker, prefix) = (Broker::shared(), Broker::unique_prefix());
    set_up(broker, &prefix);
    let mut backend = Backend::listen(broker.url(1), &prefix);
    let [a, b] = instances(broker, &prefix, "500ms");
    let mut ann = user(&a, "ann");
    join(&mut ann, "people:1");
    ann.subscribe("lobby");
    backend.await_last("people:1", "room.occupied");
    backend.await_last("ann", "user.online");
    let mut elsewhere = user(&b, "ann");
    join(&mut elsewhere, "people:1");
    await_stats(&mut elsewhere, "people:1", (2, 1));
    drop(ann);
    await_stats(&mut elsewhere, "people:1", (1, 1));
    // Another room's coming and going takes longer than the grace.
    let mut bert = user(&a, "bert");
    join(&mut bert, "people:2");
    backend.await_last("people:2", "room.occupied");
    drop(bert);
    backend.await_last("people:2", "room.vacated");
    backend.await_last("bert", "user.offline");
    assert_eq!(backend.last["people:1"], "room.occupied");
    assert_eq!(backend.last["ann"], "user.online");
    drop(elsewhere);
    backend.await_last("people:1", "room.vacated");
    backend.await_last("ann", "user.offline");
    assert!(
        !backend.last.contains_key("lobby"),
        "its namespace sends no events"
    );
}

#[test]
fn events_are_sent_though_servers_are_killed_whose_turn_it_is() {
    let (broker, prefix) = (Broker::shared(), Broker::unique_prefix());
    set_up(broker, &prefix);
    let mut backend = Backend::listen(broker.url(1), &prefix);
    let [a, mut b, mut c] = instances(broker, &prefix, "1s");
    let rooms: Vec<String> = (0..16).map(|n| format!("people:{n}")).collect();
    let mut clients: Vec<Client> = rooms.iter().map(|_| user(&a, "ann")).collect();
    for (client, room) in clients.iter_mut().zip(&rooms) {
        join(client, room);
    }
    // Each of the three sends some of these.
    for room in &rooms {
        backend.await_last(room, "room.occupied");
    }
    drop(clients);
    b.kill9();
    for room in &rooms[..8] {
        backend.await_last(room, "room.vacated");
    }
    c.kill9();
    for room in &rooms {
        backend.await_last(room, "room.vacated");
    }
    backend.await_last("ann", "user.offline");
}

#[test]
fn a_broker_that_was_away_costs_no_event_and_nobody_is_lost_for_good() {
    let (broker, prefix) = (Broker::start(1), Broker::unique_prefix());
    let [a, b] = instances(&broker, &prefix, "500ms");
    let mut backend = Backend::listen(broker.url(1), &prefix);
    let mut ann = user(&a, "ann");
    join(&mut ann, "people:1");
    let mut bert = user(&b, "bert");
    join(&mut bert, "people:2");
    bert.subscribe("lobby");
    ann.subscribe("lobby");
    backend.await_last("people:1", "room.occupied");
    backend.await_last("people:2", "room.occupied");
    await_stats(&mut ann, "lobby", (2, 2));
    broker.settle();
    broker.kill(1);
    // Each server is alone, and tells what it knows.
    await_stats(&mut ann, "lobby", (1, 1));
    await_stats(&mut ann, "people:1", (1, 1));
    bert.result("unsubscribe", json!({"channel": "people:2"}));
    broker.restart(1);
    eventually("the servers to find each other", || {
        (knows(&a, 1) && knows(&b, 1)).then_some(())
    });
    let mut backend = Backend::listen(broker.url(1), &prefix);
    backend.await_last("people:2", "room.vacated");
    await_stats(&mut ann, "lobby", (2, 2));
    // It was occupied all the time. A server that is back long before the other may think that it was not, until then.
    eventually("people:1 to be occupied, for all that was said", || {
        backend.hear();
        let last = backend.last.get("people:1");
        (last.map(String::as_str) != Some("room.vacated")).then_some(())
    });
}

#[test]
fn what_is_not_stored_reaches_the_clients_of_other_servers_once_and_leaves_one_out() {
    let [a, b] = instances(Broker::shared(), &Broker::unique_prefix(), "1s");
    let [mut here, mut there, mut author] = [&a, &b, &b].map(|server| user(server, "ada"));
    for client in [&mut here, &mut there, &mut author] {
        client.subscribe("ticker:a");
    }
    let path = deltas_of("ticker:a");
    let exclude = [("Roomwire-Exclude-Client", author.id.as_str())];
    assert_eq!(a.post(&path, &exclude, "1").status, 202);
    assert_eq!(a.post(&path, &[("Idempotency-Key", "k")], "2").status, 202);
    for client in [&mut here, &mut there] {
        assert_eq!(client.publication().1, json!({"data": 1}));
    }
    let second = json!({"data": 2, "tags": {"id": "k"}});
    for client in [&mut here, &mut there, &mut author] {
        assert_eq!(client.publication().1, second);
    }
}

#[test]
fn servers_and_a_backend_do_with_the_rights_that_the_manual_gives_them() {
    let (broker, prefix) = (Broker::shared(), Broker::unique_prefix());
    set_up(broker, &prefix);
    let (_, address) = broker.url(1).rsplit_once('@').expect("it names a user");
    let with = |role: &str, [configure, write, read]: [&str; 3]| {
        let user = format!("{role}-{prefix}");
        broker.ctl(&["add_user", &user, "s3cret"]);
        broker.ctl(&["set_permissions", &user, configure, write, read]);
        format!("amqp://{user}:s3cret@{address}")
    };
    let (own, all) = (format!(r"^{prefix}\.bus\."), format!(r"^{prefix}\."));
    let sends = format!(r"^{prefix}\.(log|events|bus(\..+)?)$");
    let (queue, hears) = (
        format!("^{prefix}-backend$"),
        format!(r"^({prefix}-backend|{prefix}\.events)$"),
    );
    let backend = with("backend", [&queue, &queue, &hears]);
    let mut backend = Backend::listen(&backend, &prefix);
    let [a, b] = instances_at(&with("server", [&own, &sends, &all]), &prefix, "500ms");
    let (mut ann, mut bert) = (user(&a, "ann"), user(&b, "bert"));
    for client in [&mut ann, &mut bert] {
        join(client, "people:1");
    }
    await_stats(&mut ann, "people:1", (2, 2));
    backend.await_last("people:1", "room.occupied");
    backend.await_last("ann", "user.online");
    for role in ["server", "backend"] {
        broker.ctl(&["delete_user", &format!("{role}-{prefix}")]);
    }
}
