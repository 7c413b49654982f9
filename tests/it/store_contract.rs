//! What every store promises, run on SQLite in a temporary file and on PostgreSQL in a schema of
//! its own. `TEST_DATABASE_URL` names a PostgreSQL database in which schemas may be made.

mod accept;
mod change;
mod claim;
mod database;
mod end;
mod history;
mod life;
mod member;
mod node;
mod persona;
mod read;
mod search;
mod send;
mod sessions;

use database::Database;

/// Runs each contract on both databases.
macro_rules! contracts {
    ($($topic:ident: $($name:ident)+;)+) => {
        mod sqlite {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let database = super::Database::sqlite();
                    super::$topic::$name(&database).await;
                }
            )+)+
        }
        mod postgres {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let database = super::Database::postgres().await;
                    super::$topic::$name(&database).await;
                    database.discard().await;
                }
            )+)+
        }
    };
}

contracts! {
    accept:
        a_prompt_is_stored_with_its_generation_and_its_event
        a_repeated_client_id_answers_with_what_it_started
        a_client_id_belongs_to_its_session_and_user
        a_client_id_of_a_message_without_generation_is_no_prompt
        concurrent_duplicates_start_one_generation
        ordinals_are_dense_and_in_time_under_concurrency
        the_limit_of_generations_holds_across_sessions_and_nodes
        a_session_that_is_missing_or_deleted_takes_nothing
        long_and_odd_text_is_kept_as_it_is
        text_with_nul_is_refused_and_stores_nothing;
    send:
        a_message_is_stored_with_its_files_and_its_event
        a_repeated_send_answers_with_the_message_as_it_is_now
        concurrent_duplicates_are_one_message
        a_reply_needs_a_parent_that_its_session_has
        a_send_to_a_session_that_is_missing_or_deleted_stores_nothing
        nothing_with_nul_is_stored;
    change:
        an_edit_changes_the_text_and_tells_of_the_whole_message
        racing_edits_have_rising_revisions_and_the_last_one_stands
        a_deleted_message_is_read_without_what_it_had_and_changed_no_more
        of_racing_deletes_one_deletes
        files_are_added_up_to_a_limit_and_taken_away
        racing_files_stay_within_the_limit
        an_emoji_is_given_and_taken_back
        one_user_leaves_emojis_to_the_others
        emojis_are_counted_in_the_order_in_which_they_were_first_given
        racing_toggles_take_turns
        what_is_stored_in_a_session_has_dense_revisions;
    member:
        a_member_is_added_once_and_removed_once
        racing_members_fill_a_session_to_its_limit
        members_come_and_go_at_once_and_are_counted_right
        a_read_position_moves_only_on
        racing_read_positions_end_at_the_furthest
        a_guest_is_heard_though_nothing_keeps_their_position;
    sessions:
        sessions_are_listed_last_active_first_in_pages
        a_session_is_changed_in_what_is_named
        a_session_that_is_open_no_more_revokes_its_guests
        of_racing_closers_one_revokes
        a_deleted_session_stops_its_generations_and_is_gone
        a_session_may_be_deleted_while_much_happens_in_it
        a_message_is_found_with_ones_part_in_its_session;
    persona:
        a_user_has_one_session_with_each_agent
        of_racing_makers_all_get_the_same_session
        answers_are_found_with_how_they_ended
        the_newest_answers_after_an_ordinal_come_in_their_order
        messages_after_an_ordinal_come_oldest_first_with_their_ends;
    end:
        an_answer_is_stored_with_the_event_that_ends_it
        each_outcome_has_its_status_and_event
        racing_ends_store_one_answer
        only_the_running_attempt_of_the_owner_ends_it
        a_generation_begins_for_its_owner_unless_it_is_to_stop
        a_stop_request_is_kept_until_the_end
        a_stop_and_an_end_may_race;
    claim:
        generations_are_claimable_when_nobody_runs_them
        the_oldest_claimable_come_first
        a_claim_begins_the_next_attempt_and_ends_the_one_before
        of_racing_claims_one_succeeds
        a_claim_that_comes_too_late_changes_nothing
        a_released_generation_is_claimed_at_once
        a_stop_and_the_first_token_outlive_a_takeover
        a_claim_an_end_and_a_release_may_race;
    node:
        a_heartbeat_waits_for_nothing_else
        a_heartbeat_makes_and_renews_the_nodes_row
        nodes_are_those_that_were_heard_lately
        nodes_of_other_versions_are_understood
        a_node_that_is_silent_for_an_hour_is_forgotten
        a_node_that_retires_leaves_what_it_owned;
    read:
        a_session_is_made_once_and_seen_with_ones_own_part_in_it
        of_racing_makers_one_makes_the_session
        a_deleted_session_is_absent_but_its_id_stays_taken
        missed_messages_come_in_pages
        missed_without_a_known_last_is_the_newest_page
        a_deleted_message_keeps_its_place_without_its_text
        context_is_what_was_said_up_to_a_message
        reactions_and_attachments_come_with_their_message;
    life:
        the_outbox_is_read_by_age_and_in_order_and_emptied
        what_was_told_is_kept_for_a_minute
        an_event_of_another_version_is_left_in_the_outbox
        what_was_acknowledged_outlives_a_restart
        nodes_may_start_together
        a_closed_store_is_unavailable
        a_lock_that_is_not_given_back_is_unavailable
        a_call_that_is_dropped_leaves_nothing_half_done;
    history:
        pages_are_counted_from_the_newest_or_after_a_message
        a_page_of_replies_has_the_direct_ones_alone
        a_page_beside_an_unknown_message_is_none
        a_page_has_deleted_messages_blank_and_others_whole
        a_thread_has_the_replies_to_replies
        a_thread_in_a_circle_ends
        no_more_replies_are_counted_than_the_most;
    search:
        words_are_found_in_any_script_and_spelling
        a_session_finds_its_own_messages_alone
        what_is_found_comes_in_pages_newest_first
        a_long_text_is_found_by_its_words
        no_more_are_counted_than_the_most
        what_was_stored_before_there_was_a_search_is_found
        a_message_is_found_by_what_it_says_last
        a_deleted_message_is_not_found;
}
