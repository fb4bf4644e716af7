//! Whether a stream still is the one that was read before. Pure.
//!
//! No field of AMQP tells a stream from another of the same name, and a number that lies behind a
//! stream's end makes the broker wait in silence. So the reader asks for the last record that it
//! knows, which must be there and be the same, and meanwhile has a marker published: the place
//! where that comes back is a place behind which the stream did not end before.

pub use crate::log::Place as Checkpoint;
use crate::log::record::Identity;

/// What became of the stream since the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The record of the checkpoint is where it was: reading goes on behind it.
    GoOn,
    /// Nothing at or below `floor` can be read; what lies behind it can.
    Floor(u64),
    /// It is another stream, or one that has lost its end.
    Replaced,
}

/// The first record that a reader gets which asked for `checkpoint`, and so gets nothing below it.
/// `identity` is none for a record that nobody of ours wrote.
pub fn first_record(
    checkpoint: Option<Checkpoint>,
    position: u64,
    identity: Option<Identity>,
) -> Verdict {
    match checkpoint {
        Some(checkpoint) if position == checkpoint.position => {
            match identity == Some(checkpoint.identity) {
                true => Verdict::GoOn,
                false => Verdict::Replaced,
            }
        }
        _ => Verdict::Floor(position - 1),
    }
}

/// A marker came back, that was published after the reader had asked for `checkpoint`. None while
/// the first record has yet to tell.
pub fn marker(checkpoint: Option<Checkpoint>, position: u64) -> Option<Verdict> {
    let checkpoint = checkpoint?;
    (position <= checkpoint.position).then_some(Verdict::Replaced)
}

/// A record that is not the first. A new segment of a stream begins with a place that no record
/// has; more than one place missing is a piece that retention has taken from under the reader.
pub fn next_record(last: u64, position: u64) -> Verdict {
    match position - last {
        0..=2 => Verdict::GoOn,
        _ => Verdict::Floor(position - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::record::{Entry, Heartbeat};
    use proptest::prelude::*;

    fn identity(beat: u64) -> Identity {
        Entry::Heartbeat(Heartbeat {
            producer: 1,
            beat,
            stamped: 0,
        })
        .identity()
    }

    fn at(position: u64) -> Option<Checkpoint> {
        Some(Checkpoint {
            position,
            identity: identity(position),
        })
    }

    #[test]
    fn the_same_record_at_the_checkpoint_goes_on() {
        assert_eq!(first_record(at(7), 7, Some(identity(7))), Verdict::GoOn);
    }

    #[test]
    fn another_record_at_the_checkpoint_is_another_stream() {
        assert_eq!(first_record(at(7), 7, Some(identity(8))), Verdict::Replaced);
        assert_eq!(first_record(at(7), 7, None), Verdict::Replaced);
    }

    #[test]
    fn a_first_record_behind_the_checkpoint_raises_the_floor_below_it() {
        assert_eq!(
            first_record(at(7), 40, Some(identity(1))),
            Verdict::Floor(39)
        );
    }

    #[test]
    fn a_reader_without_a_checkpoint_begins_where_the_stream_does() {
        assert_eq!(first_record(None, 1, None), Verdict::Floor(0));
        assert_eq!(first_record(None, 40, None), Verdict::Floor(39));
        assert_eq!(marker(None, 1), None);
    }

    #[test]
    fn a_marker_at_or_before_the_checkpoint_is_a_stream_that_has_lost_its_end() {
        assert_eq!(marker(at(7), 7), Some(Verdict::Replaced));
        assert_eq!(marker(at(7), 1), Some(Verdict::Replaced));
        assert_eq!(marker(at(7), 8), None);
    }

    #[test]
    fn one_place_may_be_missing_and_more_are_a_gap() {
        assert_eq!(next_record(7, 8), Verdict::GoOn);
        assert_eq!(next_record(7, 9), Verdict::GoOn);
        assert_eq!(next_record(7, 10), Verdict::Floor(9));
    }

    proptest! {
        /// A stream is read up to a checkpoint; then it is trimmed, cut or made anew.
        #[test]
        fn a_stream_that_only_grew_or_was_trimmed_is_never_taken_for_another(
            read in 1_u64..50, more in 0_u64..50, trimmed in 0_u64..90,
        ) {
            let end = read + more + 1; // The marker stands there.
            let first = (trimmed + 1).min(end).max(read);
            let verdict = first_record(at(read), first, Some(identity(first)));
            prop_assert_ne!(verdict, Verdict::Replaced);
            prop_assert_eq!(verdict == Verdict::GoOn, first == read);
            prop_assert_eq!(marker(at(read), end), None);
        }

        #[test]
        fn a_stream_that_was_made_anew_is_never_taken_for_the_old_while_its_records_are_there(
            read in 1_u64..50, length in 0_u64..90,
        ) {
            let other = |position: u64| Some(identity(1_000 + position));
            let end = length + 1;
            let verdict = match end <= read {
                // The broker gives nothing below the checkpoint, so only the marker is seen.
                true => marker(at(read), end),
                false => Some(first_record(at(read), read, other(read))),
            };
            prop_assert_eq!(verdict, Some(Verdict::Replaced));
        }
    }
}
