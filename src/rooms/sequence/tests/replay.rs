use super::*;

#[test]
fn a_client_that_missed_nothing_is_live_at_once() {
    let mut room = room_at(7);
    assert_eq!(room.join(from(1, 7)), None);
    assert_eq!(given(&mut room, HUB), ["attach 1 recovered from 7"]);
    assert_eq!(room.take_tally().replay_hits, 1);
}

#[test]
fn a_replay_gives_the_first_page_with_the_reply_and_joins_what_is_live_without_a_gap() {
    let mut room = room_at(9);
    room.join(fresh(2));
    assert_eq!(room.join(from(1, 3)), None);
    room.deltas(&deltas([10]));
    assert_eq!(
        given(&mut room, HUB),
        ["attach 2 at 9", "credit 1", "live 10"]
    );
    room.hub_done(HUB);
    let (after, upto) = (3, 10);
    assert_eq!(
        room.credit(sub(1)),
        Some(Wait::Page {
            sub: sub(1),
            after,
            upto
        })
    );
    room.deltas(&deltas([11]));
    let first = PageRead {
        more: true,
        ..page([4, 6])
    };
    room.page_read(sub(1), 10, first);
    let next = ["page 1 recovered from 3 4 6", "credit 1", "live 11"];
    assert_eq!(given(&mut room, HUB), next);
    room.hub_done(HUB);
    room.deltas(&deltas([12]));
    assert_eq!(
        room.credit(sub(1)),
        Some(Wait::Page {
            sub: sub(1),
            after: 6,
            upto: 12
        })
    );
    room.deltas(&deltas([13]));
    room.page_read(sub(1), 12, page([8, 10, 11, 12]));
    room.deltas(&deltas([14]));
    let last = ["live 12 13", "attach 1 8 10 11 12 13", "live 14"];
    assert_eq!(given(&mut room, HUB), last);
    assert_eq!(room.take_tally().replayed_deltas, 7);
}

#[test]
fn a_replay_in_a_room_that_never_rests_ends_by_what_the_room_remembers() {
    let mut room = room_at(5);
    room.join(from(1, 4));
    room.credit(sub(1));
    // More comes while each page is read: it must not chase the position for ever.
    room.deltas(&deltas([6, 7]));
    room.page_read(sub(1), 5, page([5]));
    assert_eq!(
        given(&mut room, HUB),
        ["credit 1", "attach 1 recovered from 4 5 6 7"]
    );
}

#[test]
fn what_the_room_no_longer_remembers_is_read_from_history() {
    let mut room = room_at(1);
    room.join(from(1, 0));
    room.credit(sub(1));
    let many: Vec<_> = (2..=2 + tail::MAX_DELTAS as u64)
        .map(|n| delta_of(n, 1))
        .collect();
    room.deltas(&many);
    room.page_read(sub(1), 1, page([1]));
    assert_eq!(
        given(&mut room, HUB),
        ["credit 1", "page 1 recovered from 0 1", "credit 1"]
    );
    let upto = room.position();
    assert_eq!(
        room.credit(sub(1)),
        Some(Wait::Page {
            sub: sub(1),
            after: 1,
            upto
        })
    );
}

#[test]
fn what_the_room_remembers_is_given_a_page_at_a_time() {
    let mut room = room_at(1);
    room.join(from(1, 0));
    room.credit(sub(1));
    room.deltas(&[delta_of(2, 40_000), delta_of(3, 40_000)]);
    room.page_read(sub(1), 1, page([1]));
    assert_eq!(
        given(&mut room, HUB),
        ["credit 1", "page 1 recovered from 0 1", "credit 1"]
    );
}

#[test]
fn a_trim_that_overtakes_the_first_page_tells_the_client_to_reload() {
    let mut room = room_at(9);
    room.join(from(1, 3));
    room.credit(sub(1));
    let trimmed = PageRead {
        floor: 4,
        ..page([5, 9])
    };
    room.page_read(sub(1), 9, trimmed);
    room.deltas(&deltas([10]));
    assert_eq!(
        given(&mut room, HUB),
        ["credit 1", "attach 1 lost, at 9", "live 10"]
    );
    assert_eq!(room.take_tally().replay_misses, 1);
}

#[test]
fn a_trim_up_to_the_clients_position_loses_nothing() {
    let mut room = room_at(9);
    room.join(from(1, 4));
    room.credit(sub(1));
    let trimmed = PageRead {
        floor: 4,
        ..page([5, 9])
    };
    room.page_read(sub(1), 9, trimmed);
    assert_eq!(
        given(&mut room, HUB),
        ["credit 1", "attach 1 recovered from 4 5 9"]
    );
}

#[test]
fn a_trim_that_overtakes_a_later_page_sends_the_client_back_to_replay() {
    let mut room = room_at(9);
    room.join(from(1, 3));
    room.credit(sub(1));
    let first = PageRead {
        more: true,
        ..page([4])
    };
    room.page_read(sub(1), 9, first);
    room.credit(sub(1));
    let trimmed = PageRead {
        floor: 6,
        ..page([7, 9])
    };
    room.page_read(sub(1), 9, trimmed);
    room.deltas(&deltas([10]));
    assert_eq!(given(&mut room, HUB).last().unwrap(), "end 1 2500");
    assert!(room.subscribers.is_empty());
}

#[test]
fn a_client_that_asks_for_it_gets_an_error_instead_of_a_loss() {
    let must = |join| Join {
        must_recover: true,
        ..join
    };
    let mut room = room_at(9);
    let foreign = Start::Behind(Recover {
        offset: 9,
        epoch: "other".into(),
    });
    room.join(must(Join {
        start: foreign.clone(),
        ..fresh(1)
    }));
    room.join(Join {
        start: foreign,
        ..fresh(2)
    });
    assert_eq!(
        given(&mut room, HUB),
        ["end 1 error 112", "attach 2 lost, at 9"]
    );
}

#[test]
fn an_empty_epoch_fits_any() {
    let mut room = room_at(9);
    let start = Start::Behind(Recover {
        offset: 9,
        epoch: "".into(),
    });
    room.join(Join { start, ..fresh(1) });
    assert_eq!(given(&mut room, HUB), ["attach 1 recovered from 9"]);
}

#[test]
fn a_client_that_is_ahead_of_the_room_waits_for_it_and_misses_nothing() {
    let mut room = room_at(5);
    let wait = room.join(from(1, 7));
    assert_eq!(
        wait,
        Some(Wait::Position {
            sub: sub(1),
            offset: 7
        })
    );
    room.deltas(&deltas([6, 7]));
    assert_eq!(
        given(&mut room, HUB),
        [] as [&str; 0],
        "7 is not live to it"
    );
    room.caught_up(sub(1), 7);
    room.deltas(&deltas([8]));
    assert_eq!(
        given(&mut room, HUB),
        ["attach 1 recovered from 7", "live 8"]
    );
}

#[test]
fn a_client_that_is_ahead_of_the_log_is_told_to_reload() {
    let mut room = room_at(5);
    room.join(from(1, 7));
    room.ahead(sub(1));
    assert_eq!(given(&mut room, HUB), ["attach 1 lost, at 5"]);
}

#[test]
fn whoever_unsubscribes_before_the_answer_gets_both_answers() {
    for offset in [3, 7] {
        let mut room = room_at(5);
        room.join(from(1, offset));
        given(&mut room, HUB);
        room.hub_done(HUB);
        room.leave(sub(1), HUB, Some(9));
        assert_eq!(given(&mut room, HUB), ["reply error 100", "detach 1 done"]);
        room.hub_done(HUB);
        assert!(room.is_idle());
    }
}

#[test]
fn a_page_for_somebody_who_has_left_is_dropped() {
    let mut room = room_at(5);
    room.join(from(1, 3));
    room.credit(sub(1));
    room.leave(sub(1), HUB, None);
    assert_eq!(room.page_read(sub(1), 5, page([4, 5])), None);
    assert_eq!(room.credit(sub(1)), None);
    assert_eq!(given(&mut room, HUB), ["credit 1", "detach 1 "]);
}

#[test]
fn a_failing_history_sends_the_client_to_try_again() {
    let mut room = room_at(5);
    room.join(from(1, 3));
    room.join(from(2, 3));
    let first = PageRead {
        more: true,
        ..page([4])
    };
    room.page_read(sub(2), 5, first);
    given(&mut room, HUB);
    room.hub_done(HUB);
    room.failed(sub(1));
    room.failed(sub(2));
    assert_eq!(given(&mut room, HUB), ["end 1 error 100", "end 2 2500"]);
}

#[test]
fn who_asks_for_the_newest_gets_them_with_the_reply_and_no_word_of_recovery() {
    let mut room = room_at(9);
    let newest = Start::Newest(2);
    let join = Join {
        start: newest,
        ..fresh(1)
    };
    let wait = Wait::Newest {
        sub: sub(1),
        count: 2,
    };
    assert_eq!(room.join(join), Some(wait));
    room.deltas(&deltas([10]));
    assert_eq!(room.found(sub(1), 6), None);
    given(&mut room, HUB);
    room.hub_done(HUB);
    room.credit(sub(1));
    let trimmed = PageRead {
        floor: 7,
        ..page([8, 9])
    };
    room.page_read(sub(1), 10, trimmed);
    assert_eq!(given(&mut room, HUB), ["attach 1 at 6 8 9"]);
    assert_eq!(room.take_tally().replay_hits, 0, "it does not come back");
}

const EVENTS: HubId = HubId {
    number: 0,
    format: Format::Events,
};

fn events(join: Join) -> Join {
    Join {
        hub: EVENTS,
        ..join
    }
}

/// What a hub of event readers is given: which ops, with the events that their frames hold.
fn told_events(room: &mut Sequence) -> Vec<(String, String)> {
    let mut due = room.next_for_hubs();
    due.retain(|(id, _)| *id == EVENTS);
    let ops = due.into_iter().flat_map(|(_, ops)| ops);
    ops.map(|op| {
        let (kind, frame) = match op {
            Op::Attach { frame, .. } => ("attach", frame),
            Op::Page { frame, .. } => ("page", frame),
            Op::Live { frame, .. } => ("live", frame),
            Op::End { frame, .. } => ("end", frame),
            _ => ("other", Bytes::new()),
        };
        let lines = frame.split(|&byte| byte == b'\n');
        let told = lines.filter_map(|line| {
            let line = std::str::from_utf8(line).unwrap();
            if let Some(name) = line.strip_prefix("event: ") {
                return Some(name.to_owned());
            }
            let data: serde_json::Value =
                serde_json::from_str(line.strip_prefix("data: ")?).unwrap();
            Some(data["offset"].to_string())
        });
        (kind.to_owned(), told.collect::<Vec<_>>().join(" "))
    })
    .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |&(kind, told): &(&str, &str)| (kind.to_owned(), told.to_owned());
    expected.iter().map(owned).collect()
}

#[test]
fn who_reads_events_gets_the_same_deltas_beside_who_reads_frames() {
    let mut room = room_at(5);
    room.join(Join {
        hub: hub(1),
        ..fresh(2)
    });
    room.join(events(Join {
        start: Start::Kept(5),
        ..fresh(1)
    }));
    room.deltas(&deltas([6, 7]));
    room.ephemeral(&"1".into(), &someone(2));
    assert_eq!(
        told_events(&mut room),
        pairs(&[("attach", ""), ("live", "6 7")])
    );
    let mut room = room_at(5);
    room.join(events(fresh(1)));
    room.join(Join {
        hub: hub(1),
        ..fresh(2)
    });
    room.deltas(&deltas([6]));
    room.ephemeral(&"1".into(), &someone(2));
    assert_eq!(
        given(&mut room, hub(1)),
        ["attach 2 at 5", "live 6 ephemeral"]
    );
}

#[test]
fn a_reader_of_events_whose_replay_is_overtaken_is_told_to_reload_and_goes_on() {
    let mut room = room_at(9);
    room.join(events(from(1, 3)));
    told_events(&mut room);
    room.hub_done(EVENTS);
    room.credit(sub(1));
    let first = PageRead {
        more: true,
        ..page([4])
    };
    room.page_read(sub(1), 9, first);
    assert_eq!(
        told_events(&mut room),
        pairs(&[("page", "4"), ("other", "")])
    );
    room.hub_done(EVENTS);
    room.credit(sub(1));
    let trimmed = PageRead {
        floor: 6,
        ..page([7, 9])
    };
    room.page_read(sub(1), 9, trimmed);
    room.deltas(&deltas([10]));
    assert_eq!(
        told_events(&mut room),
        pairs(&[("attach", "reload 9"), ("live", "10")])
    );
}

#[test]
fn a_reader_of_events_that_can_not_be_served_is_ended_without_a_word() {
    let mut room = room_at(5);
    room.join(events(from(1, 3)));
    room.failed(sub(1));
    let ended = pairs(&[("other", ""), ("end", "")]);
    assert_eq!(told_events(&mut room), ended);
    assert!(room.subscribers.is_empty());
}

#[test]
fn what_is_erased_while_its_page_is_read_is_not_sent() {
    let mut room = room_at(9);
    room.join(from(1, 3));
    given(&mut room, HUB);
    room.hub_done(HUB);
    room.credit(sub(1));
    room.erase(Erasure::One(5));
    let first = PageRead {
        more: true,
        ..page([4, 5])
    };
    room.page_read(sub(1), 9, first);
    room.deltas(&deltas([10, 11]));
    room.erase(Erasure::One(10));
    let told = ["page 1 recovered from 3 4", "credit 1"];
    assert_eq!(given(&mut room, HUB), told);
    room.hub_done(HUB);
    let wait = room.credit(sub(1));
    let (after, upto) = (5, 11);
    let page_behind = Wait::Page {
        sub: sub(1),
        after,
        upto,
    };
    assert_eq!(wait, Some(page_behind), "the erased delta moved the cursor");
    room.page_read(sub(1), 9, page([6]));
    assert_eq!(given(&mut room, HUB), ["attach 1 6 11"]);
}

#[test]
fn a_page_that_more_was_erased_under_than_is_remembered_is_read_again() {
    let mut room = room_at(9);
    room.join(from(1, 3));
    room.credit(sub(1));
    (0..300).for_each(|_| room.erase(Erasure::Upto(5)));
    let again = Wait::Page {
        sub: sub(1),
        after: 3,
        upto: 9,
    };
    assert_eq!(room.page_read(sub(1), 9, page([4, 6])), Some(again));
    assert_eq!(room.page_read(sub(1), 9, page([6])), None);
    assert_eq!(
        given(&mut room, HUB),
        ["credit 1", "attach 1 recovered from 3 6"]
    );
}
