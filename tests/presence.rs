//! Who is in a room, and who comes and goes.

mod common;

use common::{Client, Server, eventually};
use serde_json::json;

#[test]
fn an_anonymous_user_counts_as_one_however_many_clients_there_are() {
    let server = Server::start("[namespaces.people]\npresence = true\n");
    let mut clients = [(); 3].map(|()| Client::connect(&server));
    for client in &mut clients {
        client.subscribe("people:a");
    }
    let stats = clients[0].result("presence_stats", json!({"channel": "people:a"}));
    assert_eq!(
        (&stats["num_clients"], &stats["num_users"]),
        (&json!(3), &json!(1))
    );
    let presence = clients[0].result("presence", json!({"channel": "people:a"}));
    for client in &clients {
        let info = &presence["presence"][&client.id];
        assert_eq!(info["client"], client.id.as_str());
        assert_eq!(info["user"], "");
    }
}

#[test]
fn a_joiner_sees_its_own_join_after_its_reply_and_others_come_and_go_with_a_name() {
    let server = Server::start(
        "[presence]\nleave_grace = \"0s\"\n[namespaces.people]\npresence = true\njoin_leave = true\n",
    );
    let (mut one, mut two) = (Client::connect(&server), Client::connect(&server));
    let request = json!({"channel": "people:a", "join_leave": true});
    one.send(json!({"id": 9, "subscribe": request}));
    assert_eq!(one.next_message()["id"], 9);
    assert_eq!(one.push()["join"]["info"]["client"], one.id.as_str());
    two.subscribe("people:a");
    assert_eq!(one.push()["join"]["info"]["client"], two.id.as_str());
    let name = two.id.clone();
    drop(two);
    assert_eq!(one.push()["leave"]["info"]["client"], name.as_str());
}

#[test]
fn who_lost_its_connection_is_present_no_more() {
    let server = Server::start("[namespaces.people]\npresence = true\n");
    let mut watcher = Client::connect(&server);
    let mut others = [(); 3].map(|()| Client::connect(&server));
    for client in &mut others {
        client.subscribe("people:a");
    }
    others[0].result("unsubscribe", json!({"channel": "people:a"}));
    drop(others);
    eventually("the room to be empty", || {
        let stats = watcher.result("presence_stats", json!({"channel": "people:a"}));
        (stats["num_clients"] == 0).then_some(())
    });
}

#[test]
fn join_and_leave_are_pushed_to_those_who_asked_and_never_split_from_the_reply() {
    let server =
        Server::start("[presence]\nleave_grace = \"0s\"\n[namespaces.people]\njoin_leave = true\n");
    let (mut asked, mut did_not) = (Client::connect(&server), Client::connect(&server));
    did_not.subscribe("people:a");
    asked.result(
        "subscribe",
        json!({"channel": "people:a", "join_leave": true}),
    );
    assert_eq!(asked.push()["join"]["info"]["client"], asked.id.as_str());
    server.publish("people:a", "1");
    assert_eq!(
        did_not.publication().1["data"],
        1,
        "a join came to who did not ask"
    );
    did_not.result("unsubscribe", json!({"channel": "people:a"}));
    assert_eq!(asked.publication().1["data"], 1);
    assert_eq!(asked.push()["leave"]["info"]["client"], did_not.id.as_str());
}

#[test]
fn how_many_are_in_a_room_is_known_of_every_room() {
    let server = Server::start("");
    let mut clients = [(); 3].map(|()| Client::connect(&server));
    for client in &mut clients {
        client.subscribe("lobby");
    }
    let stats = |client: &mut Client| client.result("presence_stats", json!({"channel": "lobby"}));
    assert_eq!(
        stats(&mut clients[0]),
        json!({"num_clients": 3, "num_users": 1})
    );
    let [mut first, second, third] = clients;
    drop((second, third));
    eventually("the others to have left", || {
        (stats(&mut first)["num_clients"] == 1).then_some(())
    });
}

#[test]
fn above_the_configured_size_a_room_has_a_number_and_no_names() {
    let server = Server::start(
        "[presence]\nleave_grace = \"0s\"\nmax_members = 2\n\
         [namespaces.people]\npresence = true\njoin_leave = true\n",
    );
    let request = json!({"channel": "people:a", "join_leave": true});
    let mut clients = [(); 2].map(|()| Client::connect(&server));
    for client in &mut clients {
        client.result("subscribe", request.clone());
    }
    let mut third = Client::connect(&server);
    third.subscribe("people:a");
    let channel = json!({"channel": "people:a"});
    assert_eq!(third.error("presence", channel.clone()), 108);
    assert_eq!(
        third.result("presence_stats", channel.clone())["num_clients"],
        3
    );
    let [mut first, second] = clients;
    drop((second, third));
    eventually("names again, when there are few again", || {
        first.send(json!({"id": 77, "presence": channel}));
        let mut answer = first.next_message();
        while answer["id"] != 77 {
            assert!(answer["push"]["join"].is_object() || answer["push"]["leave"].is_object());
            answer = first.next_message();
        }
        answer["presence"].is_object().then_some(())
    });
}
