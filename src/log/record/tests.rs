use super::*;
use crate::delta::RoomName;
use proptest::prelude::*;
use uuid::Uuid;

fn delta() -> Entry {
    Entry::Delta {
        record: Record {
            room: RoomName::new("chat:a").unwrap(),
            body: Bytes::from_static(b"{\"a\":1}"),
            id: "k1".into(),
            keyed: true,
            stamped: 0x0102,
            info: Bytes::from_static(b"{}"),
            exclude: Some(Uuid::from_u128(0x0a)),
            erases: None,
            producer: 7,
            sequence: 9,
        },
        tenure: None,
    }
}

fn decode(bytes: Vec<u8>) -> Result<Entry, DecodeError> {
    Entry::decode(&bytes.into())
}

#[test]
fn the_bytes_of_a_delta_never_change_within_a_version() {
    let expected = [
        &[1, 1][..],
        &[1, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7],
        &[2, 8, 0, 0, 0, 0, 0, 0, 0, 9],
        &[3, 8, 0, 0, 0, 0, 0, 0, 1, 2],
        b"\x04\x06chat:a",
        b"\x05\x02k1",
        &[6, 0],
        b"\x08\x02{}",
        &[10, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10],
        b"\x07\x07{\"a\":1}",
    ]
    .concat();
    assert_eq!(delta().encode(), expected);
    assert_eq!(decode(expected).unwrap(), delta());
}

#[test]
fn the_bytes_of_the_other_kinds_never_change_within_a_version() {
    let id = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    let stamped = [3, 8, 0, 0, 0, 0, 0, 0, 0, 5];
    let heartbeat = Entry::Heartbeat(Heartbeat {
        producer: 7,
        beat: 9,
        stamped: 5,
    });
    let beat = [2, 8, 0, 0, 0, 0, 0, 0, 0, 9];
    assert_eq!(
        heartbeat.encode(),
        [&[1, 3, 1, 16][..], &id, &beat, &stamped].concat()
    );
    let fence = Entry::Fence(Fence {
        tenure: 7,
        stamped: 5,
    });
    assert_eq!(fence.encode(), [&[1, 4, 9, 16][..], &id, &stamped].concat());
    let seal = Entry::Seal(Seal {
        producer: 7,
        stamped: 5,
    });
    assert_eq!(seal.encode(), [&[1, 5, 1, 16][..], &id, &stamped].concat());
    let room = b"\x04\x01a";
    for (erasure, tag) in [(Erasure::One(6), 11), (Erasure::Upto(6), 12)] {
        let what = [tag, 8, 0, 0, 0, 0, 0, 0, 0, 6];
        let expected = [&[1, 2, 1, 16][..], &id, &beat, &stamped, room, &what].concat();
        assert_eq!(erasing(7, 9, 5, "a", erasure).encode(), expected);
    }
}

fn erasing(producer: u128, sequence: u64, stamped: u64, room: &str, erasure: Erasure) -> Entry {
    let record = Record {
        room: RoomName::new(room).unwrap(),
        body: Bytes::new(),
        id: "".into(),
        keyed: false,
        stamped,
        info: Bytes::new(),
        exclude: None,
        erases: Some(erasure),
        producer,
        sequence,
    };
    Entry::Delta {
        record,
        tenure: None,
    }
}

#[test]
fn an_erasure_that_does_not_say_what_is_an_error() {
    let whole = erasing(7, 9, 5, "a", Erasure::One(6)).encode();
    for end in 0..whole.len() {
        assert!(decode(whole[..end].to_vec()).is_err(), "cut at {end}");
    }
}

#[test]
fn sections_of_a_later_build_are_passed_over() {
    let mut bytes = delta().encode();
    bytes.extend([200, 3, b'n', b'e', b'w']);
    let mut in_front = vec![VERSION, 1, 77, 0];
    in_front.extend_from_slice(&bytes[2..]);
    assert_eq!(decode(in_front).unwrap(), delta());
}

#[test]
fn a_later_version_or_kind_is_told_from_garbage() {
    let newer = decode(vec![2, 1, 0]).unwrap_err();
    assert_eq!(
        newer.to_string(),
        "a record has version 2; this build reads up to 1"
    );
    assert!(newer.is_newer());
    assert!(decode(vec![1, 99]).unwrap_err().is_newer());
    assert!(!decode(vec![0, 1]).unwrap_err().is_newer());
    assert!(!decode(vec![1, 1, 1, 99]).unwrap_err().is_newer());
}

#[test]
fn every_cut_is_an_error_and_none_a_shorter_record() {
    let bytes = delta().encode();
    // The body stands last, so whatever is cut off, it is missing.
    for end in 0..bytes.len() {
        assert!(decode(bytes[..end].to_vec()).is_err(), "cut at {end}");
    }
}

#[test]
fn a_wrong_section_is_named() {
    let narrow = [&[1, 3, 1, 2, 0, 0][..], &[2, 8, 0, 0, 0, 0, 0, 0, 0, 9]].concat();
    assert_eq!(
        decode(narrow).unwrap_err().to_string(),
        "a record's producer has 2 bytes; it takes 16"
    );
    let beatless = [&[1, 3, 1, 16][..], &[0; 16]].concat();
    assert_eq!(
        decode(beatless).unwrap_err(),
        DecodeError::Missing { section: "number" }
    );
}

#[test]
fn a_length_that_never_ends_is_an_error() {
    let endless = [&[1, 1, 7][..], &[0xff; 12]].concat();
    assert_eq!(decode(endless).unwrap_err(), DecodeError::Cut { at: 2 });
}

fn entries() -> impl Strategy<Value = Entry> {
    let body = prop::collection::vec(any::<u8>(), 0..400);
    let info = prop::collection::vec(any::<u8>(), 0..20);
    let delta = (
        "[a-zé]{1,20}(:[a-z]{1,9})?",
        body,
        ".{0,40}",
        any::<bool>(),
        any::<u64>(),
        info,
        any::<(u128, u64)>(),
        any::<[Option<u128>; 2]>(),
    )
        .prop_map(
            |(room, body, id, keyed, stamped, info, of, [tenure, exclude])| {
                let record = Record {
                    room: RoomName::new(&room).unwrap(),
                    body: body.into(),
                    id: id.into(),
                    keyed,
                    stamped,
                    info: info.into(),
                    exclude: exclude.map(Uuid::from_u128),
                    erases: None,
                    producer: of.0,
                    sequence: of.1,
                };
                Entry::Delta { record, tenure }
            },
        );
    let number = any::<(u128, u64, u64)>();
    let erasure = (any::<bool>(), any::<u64>()).prop_map(|(one, offset)| match one {
        true => Erasure::One(offset),
        false => Erasure::Upto(offset),
    });
    let erasing =
        (number, "[a-z]{1,9}", erasure).prop_map(|((of, number, stamped), room, erasure)| {
            erasing(of, number, stamped, &room, erasure)
        });
    prop_oneof![
        delta,
        erasing,
        number.prop_map(|(producer, beat, stamped)| Entry::Heartbeat(Heartbeat {
            producer,
            beat,
            stamped,
        })),
        any::<(u128, u64)>().prop_map(|(tenure, stamped)| Entry::Fence(Fence { tenure, stamped })),
        any::<(u128, u64)>()
            .prop_map(|(producer, stamped)| Entry::Seal(Seal { producer, stamped })),
    ]
}

proptest! {
    #[test]
    fn whatever_is_encoded_is_read_back(entry in entries()) {
        prop_assert_eq!(decode(entry.encode()).unwrap(), entry);
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = decode([vec![VERSION, 1], bytes].concat());
    }

    #[test]
    fn identities_survive_storage(entry in entries()) {
        let identity = entry.identity();
        prop_assert_eq!(Identity::from_bytes(identity.to_bytes()), identity);
    }
}
