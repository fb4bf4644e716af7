use super::*;
use crate::protocol::client_id;
use crate::protocol::session::Recover;

mod replay;

const HUB: HubId = hub(0);

const fn hub(number: usize) -> HubId {
    HubId {
        number,
        format: Format::JSON,
    }
}

fn name() -> RoomName {
    RoomName::new("r").unwrap()
}

fn room_at(position: u64) -> Sequence {
    Sequence::new(name(), "e".into(), position)
}

fn sub(session: u64) -> SubId {
    SubId { session, number: 1 }
}

fn fresh(session: u64) -> Join {
    Join {
        sub: sub(session),
        hub: HUB,
        command: 100 + session as u32,
        start: Start::Now,
        lasting: Default::default(),
        must_recover: false,
        join_leave: false,
        is_named: false,
        info: None,
    }
}

fn from(session: u64, offset: u64) -> Join {
    let epoch = "e".into();
    let start = Start::Behind(Recover { offset, epoch });
    Join {
        start,
        ..fresh(session)
    }
}

fn someone(session: u64) -> ClientInfo {
    ClientInfo {
        user: "".into(),
        id: uuid::Uuid::from_u128(session.into()),
        info: None,
    }
}

fn delta_of(offset: u64, bytes: usize) -> Arc<Delta> {
    Arc::new(Delta {
        room: name(),
        offset,
        time: offset + 1_000,
        id: "".into(),
        keyed: false,
        data: format!("\"{}\"", "x".repeat(bytes)).into(),
        info: Bytes::new(),
        exclude: None,
    })
}

fn deltas(offsets: impl IntoIterator<Item = u64>) -> Vec<Arc<Delta>> {
    offsets
        .into_iter()
        .map(|offset| delta_of(offset, 1))
        .collect()
}

fn page(offsets: impl IntoIterator<Item = u64>) -> PageRead {
    PageRead {
        floor: 0,
        deltas: deltas(offsets),
        more: false,
    }
}

/// What a hub is given, in short: which ops, with the offsets that their frames carry.
fn given(room: &mut Sequence, hub: HubId) -> Vec<String> {
    let mut due = room.next_for_hubs();
    due.retain(|(id, _)| *id == hub);
    let ops = due.into_iter().flat_map(|(_, ops)| ops);
    ops.map(|op| match op {
        Op::Reply { frame, .. } => format!("reply {}", told(&frame)),
        Op::Attach { sub, frame, .. } => format!("attach {} {}", sub.session, told(&frame)),
        Op::Credit { sub } => format!("credit {}", sub.session),
        Op::Page { sub, frame } => format!("page {} {}", sub.session, told(&frame)),
        Op::Detach { sub, frame } => {
            format!(
                "detach {} {}",
                sub.session,
                told(&frame.unwrap_or_default())
            )
        }
        Op::End { sub, frame } => format!("end {} {}", sub.session, told(&frame)),
        Op::Live {
            frame,
            except: Some(session),
            ..
        } => format!("all but {session} {}", told(&frame)),
        Op::Live { frame, .. } => format!("live {}", told(&frame)),
        Op::Membership { frame } => format!("all {}", told(&frame)),
    })
    .collect()
}

fn told(frame: &Bytes) -> String {
    // A frame's header has no quote, whatever its length.
    let message = frame.windows(2).position(|pair| pair == b"{\"");
    let lines = message.map(|start| frame[start..].split(|&b| b == b'\n').map(word));
    lines.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// One message in short.
fn word(line: &[u8]) -> String {
    let message: serde_json::Value = serde_json::from_slice(line).unwrap();
    if let Some(result) = message.get("subscribe") {
        let recovered = match (result.get("was_recovering"), result.get("recovered")) {
            (None, _) => "at",
            (_, Some(_)) => "recovered from",
            (_, None) => "lost, at",
        };
        let publications = result["publications"].as_array().into_iter().flatten();
        let offsets = publications.map(|publication| format!(" {}", publication["offset"]));
        return format!(
            "{recovered} {}{}",
            result["offset"],
            offsets.collect::<String>()
        );
    }
    if let Some(publication) = message["push"].get("pub") {
        return match publication.get("offset") {
            Some(offset) => offset.to_string(),
            None => "ephemeral".into(),
        };
    }
    let code = |end: &serde_json::Value| end["code"].to_string();
    if let Some(end) = message["push"].get("unsubscribe") {
        return code(end);
    }
    if let Some(error) = message.get("error") {
        return format!("error {}", code(error));
    }
    let kinds = ["join", "leave"].into_iter();
    let mut kinds = kinds.filter(|kind| message["push"].get(kind).is_some());
    kinds.next().unwrap_or("done").into()
}

#[test]
fn who_subscribes_anew_is_told_the_position_and_then_gets_what_is_live() {
    let mut room = room_at(7);
    room.join(fresh(1));
    room.deltas(&deltas([6, 7, 8, 9]));
    assert_eq!(given(&mut room, HUB), ["attach 1 at 7", "live 8 9"]);
}

#[test]
fn what_was_published_before_a_client_came_stands_before_its_reply() {
    let mut room = room_at(0);
    room.join(fresh(1));
    room.deltas(&deltas([1]));
    room.join(fresh(2));
    room.deltas(&deltas([2]));
    room.leave(sub(1), HUB, Some(5));
    room.deltas(&deltas([3]));
    let order = [
        "attach 1 at 0",
        "live 1",
        "attach 2 at 1",
        "live 2",
        "detach 1 done",
        "live 3",
    ];
    assert_eq!(given(&mut room, HUB), order);
}

#[test]
fn what_comes_while_a_hub_is_busy_goes_out_in_one_frame() {
    let mut room = room_at(0);
    room.join(fresh(1));
    given(&mut room, HUB);
    for offset in 1..=3 {
        room.deltas(&deltas([offset]));
        assert_eq!(given(&mut room, HUB), [] as [&str; 0]);
    }
    room.hub_done(HUB);
    assert_eq!(given(&mut room, HUB), ["live 1 2 3"]);
}

#[test]
fn a_delta_that_excludes_a_client_goes_out_apart_and_its_replay_leaves_nobody_out() {
    let not_for = |session, offset| {
        let exclude = Some(client_id::of_session(session));
        Arc::new(Delta {
            exclude,
            ..(*delta_of(offset, 1)).clone()
        })
    };
    let mut room = room_at(0);
    room.join(fresh(1));
    given(&mut room, HUB);
    room.deltas(&deltas([1]));
    room.deltas(&[not_for(1, 2), not_for(1, 3), not_for(2, 4)]);
    room.deltas(&deltas([5]));
    room.hub_done(HUB);
    let order = ["live 1", "all but 1 2 3", "all but 2 4", "live 5"];
    assert_eq!(given(&mut room, HUB), order);
    room.join(from(2, 5));
    room.join(from(3, 4));
    room.deltas(&[not_for(3, 6)]);
    room.credit(sub(3));
    let replay = page([5]);
    room.page_read(sub(3), 5, replay);
    room.hub_done(HUB);
    let order = [
        "attach 2 recovered from 5",
        "credit 3",
        "all but 3 6",
        "attach 3 recovered from 4 5 6",
    ];
    assert_eq!(given(&mut room, HUB), order);
}

#[test]
fn a_hub_that_has_nobody_here_any_more_does_not_cut_the_frames_of_the_others() {
    let mut room = room_at(0);
    room.join(fresh(1));
    room.join(Join {
        hub: hub(1),
        ..fresh(2)
    });
    given(&mut room, HUB);
    room.leave(sub(2), hub(1), None);
    room.hub_done(hub(1));
    given(&mut room, hub(1));
    room.hub_done(hub(1));
    for offset in 1..=3 {
        room.deltas(&deltas([offset]));
        given(&mut room, HUB);
    }
    room.hub_done(HUB);
    assert_eq!(given(&mut room, HUB), ["live 1 2 3"]);
}

#[test]
fn an_unsubscribe_is_answered_even_if_the_room_was_first() {
    let mut room = room_at(5);
    room.leave(sub(1), hub(3), Some(9));
    assert_eq!(given(&mut room, hub(3)), ["reply done"]);
}

fn member(session: u64) -> Join {
    Join {
        join_leave: true,
        info: Some(someone(session)),
        ..fresh(session)
    }
}

#[test]
fn who_came_and_went_is_known_once_they_follow_the_room() {
    let mut room = room_at(5);
    room.join(member(1));
    room.join(Join {
        info: Some(someone(2)),
        ..from(2, 3)
    });
    room.leave(sub(1), HUB, None);
    // Session 2 was replaying all the time.
    room.leave(sub(2), HUB, None);
    let came = Membership::Came {
        sub: sub(1),
        info: someone(1),
    };
    let client = someone(1).id;
    assert_eq!(room.take_news(), [came, Membership::Went { client }]);
    assert_eq!(room.take_news(), []);
}

#[test]
fn those_who_are_not_known_by_name_are_counted_while_they_follow_the_room() {
    let mut room = room_at(5);
    room.join(fresh(1));
    room.join(Join {
        is_named: true,
        ..fresh(2)
    });
    room.join(from(3, 3));
    room.join(member(4));
    let count = |clients, anonymous| Count {
        clients,
        anonymous,
        is_large: false,
    };
    assert_eq!(room.count(), count(2, 1));
    room.leave(sub(1), HUB, None);
    room.leave(sub(3), HUB, None);
    assert_eq!(room.count(), count(1, 0));
}

#[test]
fn a_joiner_is_told_of_itself_behind_its_reply_and_never_after_it_left() {
    let mut room = room_at(0);
    let join = Push::Join(someone(1));
    room.join(member(1));
    room.own_join(sub(1), &someone(1));
    room.membership(&join);
    assert_eq!(
        given(&mut room, HUB),
        ["attach 1 at 0", "reply join", "all join"]
    );
    room.hub_done(HUB);
    room.leave(sub(1), HUB, None);
    room.own_join(sub(1), &someone(1));
    room.membership(&join);
    assert_eq!(given(&mut room, HUB), ["detach 1 "]);
}

#[test]
fn ephemeral_data_stands_in_order_with_the_deltas() {
    let mut room = room_at(0);
    room.ephemeral(&"1".into(), &someone(1));
    room.join(fresh(1));
    room.deltas(&deltas([1]));
    room.ephemeral(&"1".into(), &someone(1));
    room.deltas(&deltas([2]));
    assert_eq!(
        given(&mut room, HUB),
        ["attach 1 at 0", "live 1 ephemeral 2"]
    );
}

#[test]
fn a_room_is_congested_until_a_busy_hub_takes_what_waits() {
    let mut room = room_at(0);
    room.join(fresh(1));
    given(&mut room, HUB);
    let mut offset = 0;
    while !room.is_congested() {
        offset += 1;
        room.deltas(&[delta_of(offset, 50_000)]);
        assert!(offset < 100, "far more than the bound");
    }
    room.hub_done(HUB);
    given(&mut room, HUB);
    assert!(!room.is_congested());
}

#[test]
fn a_room_with_nobody_in_it_keeps_nothing() {
    let mut room = room_at(0);
    room.deltas(&[delta_of(1, 2_000_000)]);
    assert!(room.is_idle() && !room.is_congested());
    room.join(from(1, 0));
    room.deltas(&[delta_of(2, 1_000)]);
    room.leave(sub(1), HUB, None);
    given(&mut room, HUB);
    assert!(!room.is_idle(), "its hub is still at work");
    room.hub_done(HUB);
    assert!(room.is_idle() && room.tail.behind(0).next().is_none());
}

#[test]
fn each_codec_gets_frames_of_its_own_and_only_while_somebody_reads_it() {
    const PROTOBUF: HubId = HubId {
        number: 1,
        format: Format::PROTOBUF,
    };
    let mut room = room_at(7);
    room.join(fresh(1));
    room.deltas(&deltas([8]));
    room.join(Join {
        hub: PROTOBUF,
        ..fresh(2)
    });
    room.deltas(&deltas([9]));
    room.membership(&Push::Join(someone(3)));
    room.ephemeral(&"1".into(), &someone(3));
    let mut told = room.next_for_hubs();
    told.sort_by_key(|(hub, _)| *hub);
    // How a WebSocket frame of text begins, and one of bytes.
    for ((hub, ops), (expected, opcode, deltas)) in
        told.iter().zip([(HUB, 0x81, 2), (PROTOBUF, 0x82, 1)])
    {
        assert_eq!(*hub, expected);
        let mut counts = vec![];
        for op in ops {
            let frame = match op {
                Op::Live { frame, deltas, .. } => {
                    counts.push(*deltas);
                    frame
                }
                Op::Attach { frame, .. } | Op::Membership { frame } => frame,
                other => panic!("{other:?}"),
            };
            assert_eq!(frame[0], opcode, "{op:?}");
        }
        assert_eq!(counts, [deltas, 0], "what is stored, and what is not");
    }
    room.leave(sub(2), PROTOBUF, None);
    told.iter().for_each(|(hub, _)| room.hub_done(*hub));
    room.next_for_hubs();
    let before = room.lanes.waiting_bytes();
    room.leave(sub(1), HUB, None);
    room.deltas(&deltas([10]));
    assert_eq!(room.lanes.waiting_bytes(), before, "nobody reads it");
}

#[test]
fn a_room_that_stores_nothing_promises_nothing() {
    let terms = Terms {
        stored: false,
        ..Terms::default()
    };
    let mut room = room_at(7).on(terms);
    let passing = |exclude| Passing {
        data: "1".into(),
        key: Some("k".into()),
        exclude,
        stamped: 5,
    };
    room.pass(&passing(None));
    room.join(fresh(1));
    assert_eq!(room.join(from(2, 3)), None);
    let must_recover = true;
    room.join(Join {
        must_recover,
        ..from(3, 3)
    });
    room.pass(&passing(Some(client_id::of_session(2))));
    room.pass(&passing(None));
    let told = given(&mut room, HUB);
    let order = [
        "attach 1 at null",
        "attach 2 lost, at null",
        "end 3 error 112",
        "all but 2 ephemeral",
        "live ephemeral",
    ];
    assert_eq!(told, order);
}

#[test]
fn whoever_is_skipped_is_sent_to_come_back_to_where_it_stands() {
    let mut room = room_at(7);
    room.join(fresh(1));
    room.deltas(&deltas([8, 9]));
    room.skipped(sub(1));
    room.skipped(sub(1));
    room.deltas(&deltas([10]));
    assert_eq!(
        given(&mut room, HUB),
        ["attach 1 at 7", "live 8 9", "end 1 2500"]
    );
    room.hub_done(HUB);
    assert!(room.is_idle());
    room.join(from(1, 7));
    assert_eq!(given(&mut room, HUB), ["credit 1"]);
}
