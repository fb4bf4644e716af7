//! What every [`OrderedLog`] promises, whoever keeps it: one suite, run against each of them.

#[cfg(feature = "brokers")]
#[path = "../common/mod.rs"]
mod common;

mod logs;
mod promises;
mod reading;

/// The suite for one kind of log, which `$open` makes anew for each promise.
macro_rules! contract {
    ($kind:ident, $open:expr, [$($promise:ident),* $(,)?]) => {
        mod $kind {
            $(
                #[test]
                fn $promise() {
                    crate::promises::$promise(&$open);
                }
            )*
        }
    };
}

macro_rules! contracts {
    ($promises:tt) => {
        contract!(embedded, crate::logs::Embedded, $promises);
        #[cfg(feature = "brokers")]
        contract!(amqp, crate::logs::Amqp::new(), $promises);
    };
}

contracts!([
    what_is_taken_is_read_once_in_order_and_unchanged,
    the_records_of_one_call_and_the_calls_of_one_thread_keep_their_order,
    of_a_call_that_does_not_fit_nothing_is_taken,
    who_reads_makes_room,
    a_reader_with_nothing_to_read_does_not_wait_for_ever,
    a_reader_that_waits_gets_what_is_published_then,
    a_closed_log_takes_nothing_and_is_read_to_its_end,
    a_reader_that_waits_is_told_of_the_close,
    a_log_goes_on_behind_the_place_where_it_was_left,
]);
