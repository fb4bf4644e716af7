//! The official SDKs of two languages, in their current and an older version, unmodified against
//! the server. The scenarios stand in `tests/sdk`; `./test` installs what they need.

mod common;
#[path = "sdk/world.rs"]
mod world;

use world::{Sdk, run};

/// Each scenario as a test of its own, for each SDK that it is written for.
macro_rules! scenarios {
    ($module:ident, $sdk:expr, [$($scenario:ident),* $(,)?]) => {
        mod $module {
            use super::{Sdk, run};
            $(
                #[test]
                fn $scenario() {
                    run($sdk, stringify!($scenario));
                }
            )*
        }
    };
}

macro_rules! for_both_versions {
    ($language:ident, [$($scenario:ident),* $(,)?]) => {
        mod $language {
            use super::{Sdk, run};
            scenarios!(current, Sdk::$language("current"), [$($scenario),*]);
            scenarios!(older, Sdk::$language("older"), [$($scenario),*]);
        }
    };
}

for_both_versions!(
    javascript,
    [
        connects_and_disconnects,
        subscribes_to_a_hundred_rooms_at_once,
        receives_in_order,
        reads_history_from_both_ends,
        sees_who_is_present,
        sees_others_join_and_leave,
        may_not_publish_by_default,
        publishes_what_is_never_stored,
        publishes_what_is_stored,
        is_told_that_there_is_no_rpc,
        is_told_that_nobody_takes_messages,
        unsubscribes_and_subscribes_back_to_back,
        unsubscribed_it_gets_nothing_and_recovers_on_return,
        answers_pings,
        recovers_after_the_line_was_cut,
        recovers_after_the_server_was_killed,
        reconnects_after_the_server_was_stopped,
        is_told_to_reload_after_history_was_trimmed,
        is_told_to_reload_after_the_log_was_lost,
        asks_for_state_when_its_position_is_lost,
        fetches_another_token_when_the_first_has_expired,
        refreshes_its_token_and_stays_connected,
        follows_a_room_by_a_token_for_it,
        is_kept_out_for_good_by_a_wrong_token,
    ]
);

for_both_versions!(
    python,
    [
        connects_and_disconnects,
        subscribes_to_a_hundred_rooms_at_once,
        receives_in_order,
        reads_history_from_both_ends,
        sees_who_is_present,
        sees_others_join_and_leave,
        may_not_publish_by_default,
        publishes_what_is_never_stored,
        publishes_what_is_stored,
        is_told_that_there_is_no_rpc,
        unsubscribes_and_subscribes_back_to_back,
        unsubscribes_and_subscribes_under_load,
        unsubscribed_it_gets_nothing_and_recovers_on_return,
        answers_pings,
        recovers_after_the_line_was_cut,
        recovers_after_the_server_was_killed,
        reconnects_after_the_server_was_stopped,
        is_told_to_reload_after_history_was_trimmed,
        is_told_to_reload_after_the_log_was_lost,
        asks_for_state_when_its_position_is_lost,
        fetches_another_token_when_the_first_has_expired,
        refreshes_its_token_and_stays_connected,
        follows_a_room_by_a_token_for_it,
        is_kept_out_for_good_by_a_wrong_token,
    ]
);

scenarios!(
    javascript_only_current,
    Sdk::javascript("current"),
    [unsubscribes_and_subscribes_under_load]
);

/// The SDKs' builds for Protobuf. Data is bytes to them; `follower` makes JSON of it, as an application would.
macro_rules! protobuf {
    ($($module:ident => $sdk:expr),* $(,)?) => {
        $(
            scenarios!(
                $module,
                Sdk::protobuf(&$sdk),
                [
                    connects_and_disconnects,
                    subscribes_to_a_hundred_rooms_at_once,
                    receives_in_order,
                    reads_history_from_both_ends,
                    sees_who_is_present,
                    sees_others_join_and_leave,
                    may_not_publish_by_default,
                    publishes_what_is_never_stored,
                    publishes_what_is_stored,
                    unsubscribes_and_subscribes_back_to_back,
                    unsubscribed_it_gets_nothing_and_recovers_on_return,
                    answers_pings,
                    recovers_after_the_line_was_cut,
                    recovers_after_the_server_was_killed,
                    reconnects_after_the_server_was_stopped,
                    is_told_to_reload_after_history_was_trimmed,
                    is_told_to_reload_after_the_log_was_lost,
                    asks_for_state_when_its_position_is_lost,
                    fetches_another_token_when_the_first_has_expired,
                    refreshes_its_token_and_stays_connected,
                    follows_a_room_by_a_token_for_it,
                    is_kept_out_for_good_by_a_wrong_token,
                ]
            );
        )*
    };
}

protobuf!(
    javascript_protobuf => Sdk::javascript("current"),
    python_protobuf => Sdk::python("current"),
);

macro_rules! emulated {
    ($($transport:ident),*) => {
        $(
            scenarios!(
                $transport,
                Sdk::emulated(stringify!($transport)),
                [
                    connects_and_disconnects,
                    subscribes_to_a_hundred_rooms_at_once,
                    receives_in_order,
                    reads_history_from_both_ends,
                    publishes_what_is_stored,
                    unsubscribes_and_subscribes_back_to_back,
                    answers_pings,
                    recovers_after_the_line_was_cut,
                    recovers_after_the_server_was_killed,
                    reconnects_after_the_server_was_stopped,
                    is_told_to_reload_after_history_was_trimmed,
                ]
            );
        )*
    };
}

emulated!(http_stream, sse);

scenarios!(
    event_source_of_npm,
    Sdk::javascript("current"),
    [
        an_event_source_resumes_after_the_line_was_cut,
        an_event_source_is_told_to_reload_after_history_was_trimmed,
    ]
);

scenarios!(
    event_source_of_httpx,
    Sdk::python("current"),
    [
        an_event_source_resumes_after_the_line_was_cut,
        an_event_source_is_told_to_reload_after_history_was_trimmed,
    ]
);

scenarios!(
    event_source_of_chromium,
    Sdk::browser,
    [
        an_event_source_resumes_after_the_line_was_cut,
        an_event_source_is_told_to_reload_after_history_was_trimmed,
    ]
);
