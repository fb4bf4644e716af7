//! The replies of the socket's recovery, in the form that makes SDKs keep the right position.

mod common;

use common::{Client, Server};
use serde_json::{Value, json};

#[test]
fn a_recovered_reply_has_the_offset_of_the_request_and_not_the_newest() {
    let server = Server::start("");
    let log = server.publish_numbers("lobby", 0, 10);
    let mut client = Client::connect(&server);
    let epoch = server.publish("elsewhere", "0").epoch;
    let result = client.recover("lobby", log[3].offset, &epoch);
    assert_eq!(result["was_recovering"], true);
    assert_eq!(result["recovered"], true);
    assert_eq!(result["recoverable"], true);
    assert_eq!(result["positioned"], true);
    assert_eq!(result["epoch"], epoch);
    assert_eq!(result["offset"], log[3].offset);
    let missed = result["publications"].as_array().unwrap();
    let offsets: Vec<u64> = missed.iter().filter_map(|p| p["offset"].as_u64()).collect();
    let expected: Vec<u64> = log[4..].iter().map(|entry| entry.offset).collect();
    assert_eq!(offsets, expected);
}

#[test]
fn an_impossible_recovery_is_said_and_gives_the_newest_position_without_publications() {
    let server = Server::start("[namespaces.short]\nhistory_size = 3\n");
    let log = server.publish_numbers("short:a", 0, 10);
    let epoch = server.publish("lobby", "0").epoch;
    let newest = log[9].offset;
    let attempts = [
        (log[3].offset, epoch.as_str(), "trimmed"),
        (log[8].offset, "another", "another epoch"),
        (log[8].offset, "_", "the SDKs' invalid epoch"),
        (newest + 1_000_000, epoch.as_str(), "beyond the newest"),
    ];
    for (offset, epoch_asked, why) in attempts {
        let result = Client::connect(&server).recover("short:a", offset, epoch_asked);
        assert_eq!(result["was_recovering"], true, "{why}");
        assert_ne!(result["recovered"], true, "{why}");
        // Offsets are the log's: the newest position may lie behind the room's last delta.
        assert!(result["offset"].as_u64() >= Some(newest), "{why}");
        assert_eq!(result["epoch"], epoch, "{why}");
        let publications = result.get("publications").and_then(Value::as_array);
        assert!(publications.is_none_or(Vec::is_empty), "{why}");
    }
}

#[test]
fn an_empty_epoch_fits_any() {
    let server = Server::start("");
    let log = server.publish_numbers("lobby", 0, 5);
    let result = Client::connect(&server).recover("lobby", log[2].offset, "");
    assert_eq!(result["recovered"], true);
    assert_eq!(result["publications"].as_array().unwrap().len(), 2);
}

#[test]
fn with_the_flag_an_impossible_recovery_is_error_112_and_the_room_can_be_asked_for_again() {
    let server = Server::start("");
    server.publish_numbers("lobby", 0, 5);
    let mut client = Client::connect(&server);
    let request = json!({"channel": "lobby", "recoverable": true, "recover": true, "offset": 1,
        "epoch": "another", "flag": 2});
    assert_eq!(client.error("subscribe", request), 112);
    client.subscribe("lobby");
}
