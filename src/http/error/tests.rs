use actix_web::body::to_bytes;

use super::*;
use crate::delta::{RoomName, compact_json};
use crate::log::NotTaken;

fn json(problem: &Problem) -> String {
    serde_json::to_string(problem).unwrap()
}

/// One problem of each kind, in the order of the manual.
fn one_of_each() -> Vec<Problem> {
    vec![
        Problem::bad_json(BadJson::Empty),
        Problem::bad_body("it broke off"),
        Problem::bad_batch("the batch is an object; it takes an array"),
        Problem::bad_fields("an object"),
        Problem::bad_room_name(BadRoomName::Empty),
        Problem::unknown_namespace(UnknownNamespace {
            room: RoomName::new("chat:1").unwrap(),
            namespace: "chat".to_owned(),
            defined: "default".to_owned(),
        }),
        Problem::unknown_parameter("form", &["limit"]),
        Problem::bad_parameter("limit", "x", "a number"),
        Problem::bad_idempotency_key(""),
        Problem::bad_client_id("me"),
        Problem::unsupported_protocol("mqtt"),
        Problem::denied(Denied::NoKey),
        Problem::denied(Denied::Token(TokenError::Expired)),
        Problem::denied(Denied::Room {
            room: RoomName::new("chat:1").unwrap(),
        }),
        Problem::closed(),
        Problem::foreign_origin("https://evil.example"),
        Problem::not_found("/"),
        Problem::no_such_delta(&RoomName::new("chat:1").unwrap(), 7),
        Problem::not_stored(&RoomName::new("chat:1").unwrap()),
        Problem::method_not_allowed("PUT", &["GET"]),
        Problem::too_large("a delta", 1),
        Problem::too_many_deltas(2, 1),
        Problem::upgrade_required("Upgrade is missing"),
        Problem::internal(),
        Problem::not_taken(NotTaken::Full),
        Problem::outcome_unknown(),
        Problem::full(1),
        Problem::draining(),
        Problem::catching_up(&[]),
        Problem::behind(),
        Problem::no_space(),
    ]
}

#[test]
fn the_manual_lists_every_problem_with_its_status_and_title() {
    let told: Vec<String> = include_str!("../../../docs/problems.md")
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.splitn(5, '|').take(4).collect::<Vec<_>>().join("|"))
        .collect();
    let expected: Vec<String> = one_of_each()
        .iter()
        .map(|problem| {
            let (slug, status, title) = problem.kind.row();
            format!(
                "| `urn:roomwire:problem:{slug}` | {} | {title} ",
                status.as_u16()
            )
        })
        .collect();
    assert_eq!(told, expected);
}

#[test]
fn no_kind_of_problem_is_left_out_of_these_tests() {
    let kinds: Vec<_> = one_of_each()
        .iter()
        .map(|problem| problem.kind as usize)
        .collect();
    assert_eq!(kinds, (0..=Kind::NoSpace as usize).collect::<Vec<_>>());
}

#[test]
fn the_manual_tells_the_further_members_of_every_problem() {
    let rows: Vec<&str> = include_str!("../../../docs/problems.md")
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    for (problem, row) in one_of_each().iter().zip(rows) {
        for (member, _) in &problem.members {
            assert!(
                row.contains(&format!("`{member}`")),
                "{member} is not in {row}"
            );
        }
    }
}

#[test]
fn bad_json_is_told_with_its_line_and_column() {
    let problem = Problem::bad_json(compact_json(b"{\n  \"a\": tru }").unwrap_err());
    assert_eq!(
        json(&problem),
        concat!(
            r#"{"type":"urn:roomwire:problem:bad-json","title":"Not JSON","status":400,"#,
            r#""detail":"not one JSON value: expected ident at line 2, column "#,
            r#"11","line":2,"column":11}"#,
        )
    );
}

#[test]
fn a_bad_room_name_is_told_the_rule_and_the_character() {
    let problem = Problem::bad_room_name(RoomName::new("two words").unwrap_err());
    assert_eq!(
        json(&problem),
        concat!(
            r#"{"type":"urn:roomwire:problem:bad-room-name","title":"Bad room name","status":400,"#,
            r#""detail":"room name \"two words\" has ' ' at byte 3; it takes "#,
            r#"letters, digits and _-.:@#,=+~$!&"}"#,
        )
    );
}

#[test]
fn a_wrong_parameter_is_told_what_would_be_right() {
    assert_eq!(
        json(&Problem::unknown_parameter("form", &["after", "epoch"])),
        concat!(
            r#"{"type":"urn:roomwire:problem:unknown-parameter","#,
            r#""title":"Unknown parameter","status":400,"#,
            r#""detail":"there is no parameter \"form\" here; it takes after, "#,
            r#"epoch","allowed":["after","epoch"]}"#,
        )
    );
    assert_eq!(
        Problem::unknown_parameter("x", &[]).detail,
        "there is no parameter \"x\" here; it takes none"
    );
    assert_eq!(
        json(&Problem::bad_parameter(
            "limit",
            "many",
            "a number from 1 to 1000"
        )),
        concat!(
            r#"{"type":"urn:roomwire:problem:bad-parameter","title":"Bad parameter","status":400,"#,
            r#""detail":"the parameter limit is \"many\"; it takes a number from 1 "#,
            r#"to 1000","parameter":"limit"}"#,
        )
    );
}

#[test]
fn a_limit_is_a_number_that_programs_can_read() {
    assert_eq!(
        json(&Problem::too_large("a delta", 65_536)),
        concat!(
            r#"{"type":"urn:roomwire:problem:too-large","title":"Too large","status":413,"#,
            r#""detail":"a delta takes up to 65536 bytes, and this one is "#,
            r#"larger","limit":65536}"#,
        )
    );
    assert_eq!(
        json(&Problem::too_many_deltas(1001, 1000)),
        concat!(
            r#"{"type":"urn:roomwire:problem:too-many-deltas","#,
            r#""title":"Too many deltas","status":413,"#,
            r#""detail":"a batch takes up to 1000 deltas, and this one has "#,
            r#"1001","limit":1000}"#,
        )
    );
}

#[test]
fn what_may_help_later_says_when_in_the_header_and_the_document() {
    for problem in one_of_each() {
        let (status, headers, body) = problem.to_response_parts();
        let document: Value = serde_json::from_slice(&body).unwrap();
        let header = headers
            .iter()
            .find(|(name, _)| name == header::RETRY_AFTER)
            .map(|(_, value)| value.to_str().unwrap().parse::<u64>().unwrap());
        assert_eq!(document["retry_after"].as_u64(), header);
        let temporary = matches!(status.as_u16(), 503 | 507);
        assert_eq!(header.is_some(), temporary, "{problem}");
    }
}

#[test]
fn not_taken_and_outcome_unknown_are_told_apart_by_type() {
    assert_eq!(
        json(&Problem::not_taken(NotTaken::Full)),
        concat!(
            r#"{"type":"urn:roomwire:problem:not-taken","title":"Not taken","status":503,"#,
            r#""detail":"nothing was published: the log's queue is "#,
            r#"full","retry_after":1}"#,
        )
    );
    assert_eq!(
        json(&Problem::outcome_unknown()),
        concat!(
            r#"{"type":"urn:roomwire:problem:outcome-unknown","#,
            r#""title":"Outcome unknown","status":503,"#,
            r#""detail":"it is not known whether this was published; with the same "#,
            r#"idempotency key, trying again is safe","retry_after":1}"#,
        )
    );
}

#[test]
fn a_request_that_is_repeated_in_the_detail_is_cut_and_escaped() {
    let problem = Problem::not_found(&format!("/\n\u{1b}[31m{}", "é".repeat(8000)));
    assert!(
        problem
            .detail
            .starts_with(r#"there is nothing at "/\n\u{1b}[31mé"#)
    );
    assert!(problem.detail.chars().count() < 200, "{}", problem.detail);
}

#[actix_web::test]
async fn a_handler_that_fails_answers_with_the_same_parts() {
    let problem = Problem::method_not_allowed("PUT", &["GET", "POST"]);
    let (status, parts, body) = problem.to_response_parts();
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(
        &body[..],
        concat!(
            r#"{"type":"urn:roomwire:problem:method-not-allowed","#,
            r#""title":"Method not allowed","status":405,"#,
            r#""detail":"\"PUT\" is not possible here; it takes GET, "#,
            r#"POST","allowed":["GET","POST"]}"#,
        )
        .as_bytes()
    );
    let response = problem.error_response();
    assert_eq!(response.status(), status);
    assert_eq!(response.headers().get(header::ALLOW).unwrap(), "GET, POST");
    assert_eq!(
        response.headers().get(header::CONTENT_TYPE).unwrap(),
        "application/problem+json"
    );
    assert_eq!(response.headers().len(), parts.len());
    assert_eq!(to_bytes(response.into_body()).await.unwrap(), body);
}

#[test]
fn a_path_for_sockets_says_what_to_upgrade_to() {
    let (status, headers, _) = Problem::upgrade_required("Upgrade is missing").to_response_parts();
    assert_eq!(status, StatusCode::UPGRADE_REQUIRED);
    assert!(headers.contains(&(header::UPGRADE, HeaderValue::from_static("websocket"))));
}
