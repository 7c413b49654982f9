//! Readers that only hear, as those of SSE: from now on, or on from where one of them stood, also
//! where the log has lost what came since.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokencast::adapter::Log;
use tokencast::chat::Visit;
use tokencast::domain::{
    Action, Command, Cursor, Error, ErrorCode, EventKind, GenerationId, Position, Rate, SessionId,
    TextCursor,
};
use tokencast::store::StopRequested;

use super::{Cluster, Node, caller, messages};
use crate::hub::reader::TestReader;
use crate::support::eventually;

impl Node {
    async fn watch(
        &self,
        user: &str,
        session: &SessionId,
        after: Option<Cursor>,
    ) -> Result<(Visit, Arc<TestReader>), Error> {
        let (mut visit, reader) = self.connected(user).await;
        match self.chat.watch(&mut visit, session.clone(), after).await {
            Ok(waiting) => {
                self.chat.go_live(&visit, waiting);
                Ok((visit, reader))
            }
            Err(error) => {
                assert_eq!(visit.joined().count(), 0);
                Err(error)
            }
        }
    }

    /// Where a reader stands that was shown everything of the session up to now, and of these
    /// running answers so many bytes.
    async fn cursor(&self, session: &SessionId, texts: &[(GenerationId, u64)]) -> Cursor {
        let page = self.adapter.read(session, Position::default(), 1_000).await.unwrap();
        let ordinals = page.events.iter().filter_map(|(_, event)| match &event.kind {
            EventKind::MessageNew(message) => Some(message.ordinal),
            kind => kind.answer().map(|answer| answer.ordinal),
        });
        let text = |(generation, offset): &(GenerationId, u64)| TextCursor {
            generation: *generation,
            attempt: 1,
            offset: *offset,
        };
        Cursor {
            part: 0,
            given: 0,
            ordinal: ordinals.max().unwrap_or(0),
            position: page.events.last().map(|(position, _)| *position).unwrap_or_default(),
            texts: texts.iter().map(text).collect(),
        }
    }

    /// Where a reader of bob's stands that is cut off before it is shown anything.
    async fn looked_in(&self, session: &SessionId, after: Option<Cursor>) -> Cursor {
        let (mut visit, _) = self.connected("bob").await;
        let waiting = self.chat.watch(&mut visit, session.clone(), after).await.unwrap();
        self.chat.depart(visit).await;
        waiting.at().clone()
    }

    /// A prompt of ada's, with the beginning of its answer.
    async fn begun(&self, session: &SessionId, text: &str) -> GenerationId {
        let (visit, reader) = self.watch("ada", session, None).await.unwrap();
        let generation = self.asked("ada", session).await;
        self.say(text);
        let heard = || async { (reader.text(generation) == text).then_some(()) };
        eventually("it begins", heard).await;
        self.chat.depart(visit).await;
        generation
    }

    /// Ends a running answer of ada's.
    async fn ended(&self, session: &SessionId, generation: GenerationId, rest: &str) {
        let (visit, reader) = self.watch("ada", session, None).await.unwrap();
        if !rest.is_empty() {
            self.say(rest);
        }
        self.end();
        let heard = || async { reader.is_complete(generation).then_some(()) };
        eventually("it ends", heard).await;
        self.chat.depart(visit).await;
    }
}

/// The names of what a reader was shown, without who comes and goes.
fn names(reader: &TestReader) -> Vec<String> {
    let mut names = reader.names();
    names.retain(|name| !name.starts_with("user:") && !name.starts_with("presence:"));
    names
}

async fn complete(reader: &TestReader, generation: GenerationId) {
    let heard = || async { reader.is_complete(generation).then_some(()) };
    eventually("it is complete", heard).await;
}

#[tokio::test]
async fn from_nothing_it_is_shown_what_runs_and_nothing_older() {
    let cluster = Cluster::new().await;
    let node = cluster.node();
    let session = node.open_session().await;
    let first = node.begun(&session, "yes").await;
    node.ended(&session, first, "").await;
    let second = node.begun(&session, "be").await;
    let (_visit, reader) = node.watch("bob", &session, None).await.unwrap();
    assert_eq!((reader.deltas(second), messages(&reader)), (vec!["be".to_owned()], 0));
    node.say("cause");
    node.end();
    complete(&reader, second).await;
    assert_eq!((reader.text(second).as_str(), reader.text(first).as_str()), ("because", ""));
    let fresh = crate::hub::session();
    let (visit, _) = node.watch("bob", &fresh, None).await.unwrap();
    let made = cluster.store.access(&fresh, &caller("bob").user).await.unwrap();
    assert!(made.is_some() && visit.joined().eq([&fresh]), "made as by joining");
}

#[tokio::test]
async fn from_a_cursor_it_goes_on_on_any_node() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(), cluster.node());
    let session = a.open_session().await;
    let generation = a.begun(&session, "be").await;
    let cursor = a.cursor(&session, &[(generation, 2)]).await;
    a.ended(&session, generation, "cause").await;
    a.send("ada", &session).await.unwrap();
    for node in [&a, &b] {
        let (_visit, reader) = node.watch("bob", &session, Some(cursor.clone())).await.unwrap();
        eventually("it is caught up", || async { (messages(&reader) == 1).then_some(()) }).await;
        assert!(reader.is_complete(generation));
        assert_eq!(reader.deltas(generation).concat(), "cause");
        let (_visit, reader) =
            node.watch("bob", &session, Some(node.cursor(&session, &[]).await)).await.unwrap();
        assert_eq!(names(&reader), [""; 0], "it has everything");
    }
}

#[tokio::test]
async fn what_ended_since_is_had_from_the_store_where_the_log_is_lost() {
    let cluster = Cluster::new().await;
    let a = cluster.node();
    let session = a.open_session().await;
    let had = a.begun(&session, "yes").await;
    a.ended(&session, had, "").await;
    let begun = a.begun(&session, "be").await;
    let cursor = a.cursor(&session, &[(begun, 2)]).await;
    a.ended(&session, begun, "cause").await;
    a.send("ada", &session).await.unwrap();
    let stopped = a.begun(&session, "well").await;
    a.chat.stop(&caller("ada"), stopped).await.unwrap();
    let over = || async {
        let asked = cluster.store.request_stop(stopped, &caller("ada").user).await.unwrap();
        (asked == StopRequested::AlreadyFinal).then_some(())
    };
    eventually("it is stopped", over).await;

    let lost = cluster.without_log();
    let b = lost.node();
    let (_visit, reader) = b.watch("bob", &session, Some(cursor)).await.unwrap();
    assert_eq!(reader.deltas(begun).concat(), "cause");
    assert_eq!((reader.text(stopped).as_str(), reader.text(had).as_str()), ("well", ""));
    assert!(reader.is_complete(begun) && !reader.is_complete(had));
    let is_end = |name: &&String| name.ends_with("complete") || name.ends_with("stopped");
    let ends: Vec<String> = reader.names().iter().filter(is_end).cloned().collect();
    assert_eq!(ends, ["stream:complete", "stream:stopped"]);
    assert_eq!(messages(&reader), 0);
    // What runs now goes on behind it.
    let next = b.begun(&session, "so").await;
    b.ended(&session, next, " be it").await;
    complete(&reader, next).await;
    assert_eq!((reader.text(next).as_str(), messages(&reader)), ("so be it", 1));
}

#[tokio::test]
async fn who_is_cut_off_before_it_is_shown_anything_misses_nothing_and_hears_nothing_old() {
    let later = |cluster: &Cluster, is_lost: bool| match cluster.without_log() {
        fresh if is_lost => fresh,
        fresh => Cluster { log: cluster.log.clone(), ..fresh },
    };
    for (lost_before, lost_since) in [(false, false), (false, true), (true, false), (true, true)] {
        let cluster = Cluster::new().await;
        let a = cluster.node();
        let session = a.open_session().await;
        let old = a.begun(&session, "yes").await;
        a.ended(&session, old, "").await;

        let opened = later(&cluster, lost_before);
        let b = opened.node();
        let at = b.looked_in(&session, None).await;
        assert_eq!((at.position == Position::default(), at.ordinal), (lost_before, 2));
        let since = b.begun(&session, "be").await;
        b.ended(&session, since, "cause").await;

        let resumed = later(&opened, lost_since);
        let c = resumed.node();
        assert_eq!(c.looked_in(&session, Some(at.clone())).await, at);
        let (_visit, reader) = c.watch("bob", &session, Some(at)).await.unwrap();
        complete(&reader, since).await;
        let next = c.begun(&session, "so").await;
        c.ended(&session, next, " be it").await;
        complete(&reader, next).await;
        let texts = [old, since, next].map(|generation| reader.text(generation));
        assert_eq!(texts, ["", "because", "so be it"], "{lost_before}, {lost_since}");
        assert!(!reader.is_complete(old));
    }
}

#[tokio::test]
async fn what_ended_since_is_had_from_the_store_where_the_log_was_cut() {
    let cluster = Cluster { events_max: 4, ..Cluster::new().await };
    let (a, b) = (cluster.node(), cluster.node());
    let session = a.open_session().await;
    let generation = a.begun(&session, "be").await;
    let cursor = a.cursor(&session, &[(generation, 2)]).await;
    a.ended(&session, generation, "cause").await;
    for _ in 0..8 {
        a.send("ada", &session).await.unwrap();
    }
    let (_visit, reader) = b.watch("bob", &session, Some(cursor)).await.unwrap();
    assert!(reader.is_complete(generation));
    assert_eq!(reader.deltas(generation).concat(), "cause");
    let heard = messages(&reader);
    b.send("ada", &session).await.unwrap();
    eventually("it goes on", || async { (messages(&reader) == heard + 1).then_some(()) }).await;
}

/// Stored before the reader's place was taken, or while the store was read, and in the log only
/// afterwards.
#[tokio::test]
async fn an_end_that_the_log_gets_later_is_shown_once() {
    let cluster = Cluster::new().await;
    let a = cluster.node();
    let session = a.open_session().await;
    let generation = a.begun(&session, "be").await;
    let cursor = a.cursor(&session, &[(generation, 2)]).await;
    a.adapter.stuck.store(true, Ordering::SeqCst);
    a.say("cause");
    a.end();
    let over = || async {
        let stored = cluster.store.generation(generation).await.unwrap().unwrap();
        stored.completed_at.map(drop)
    };
    eventually("it is stored", over).await;
    drop(a);
    let lost = cluster.without_log();
    let b = lost.node();
    let (_visit, reader) = b.watch("bob", &session, Some(cursor)).await.unwrap();
    assert!(reader.is_complete(generation));
    assert_eq!(reader.deltas(generation).concat(), "cause");
    // The outbox' rows go first.
    b.send("ada", &session).await.unwrap();
    eventually("the next is heard", || async { (messages(&reader) == 1).then_some(()) }).await;
    let logged = b.adapter.read(&session, Position::default(), 9).await.unwrap().events;
    assert!(logged.iter().any(|(_, event)| event.kind.answer().is_some()), "it came");
    assert!(reader.is_complete(generation), "and was not shown again");
    assert_eq!(reader.deltas(generation).concat(), "cause");
}

#[tokio::test]
async fn an_end_around_the_taking_of_a_place_is_shown_once() {
    let cluster = Cluster::new().await;
    let a = cluster.node();
    let session = a.open_session().await;
    let first = a.begun(&session, "yes").await;
    a.ended(&session, first, "").await;
    let cursor = a.cursor(&session, &[]).await;
    let lost = cluster.without_log();
    let b = lost.node();
    // Before it, in the log of today and in the store.
    let before = b.begun(&session, "one").await;
    b.ended(&session, before, "").await;
    let since = b.begun(&session, "two").await;
    let (mut visit, reader) = b.connected("bob").await;
    let waiting = b.chat.watch(&mut visit, session.clone(), Some(cursor)).await.unwrap();
    // After it, and before the reader goes on.
    b.ended(&session, since, "").await;
    b.chat.go_live(&visit, waiting);
    complete(&reader, since).await;
    assert!(reader.is_complete(before));
    assert_eq!((reader.text(before), reader.text(since)), ("one".to_owned(), "two".to_owned()));
    assert_eq!(reader.text(first), "");
}

#[tokio::test]
async fn a_stream_may_be_asked_for_by_whoever_could_open_it() {
    let cluster = Cluster::new().await;
    let node = cluster.node_with(|options| {
        options.rates.chosen.push((Action::InitStream, Rate::per_minute(5)));
    });
    let (open, foreign, fresh) =
        (node.open_session().await, crate::hub::session(), crate::hub::session());
    node.send("bob", &foreign).await.unwrap();
    let may =
        async |session: Option<&SessionId>| node.chat.may_watch(&caller("ada"), session).await;
    assert_eq!(may(None).await, Ok(()));
    assert_eq!(may(Some(&open)).await, Ok(()));
    assert_eq!(may(Some(&foreign)).await, Err(Error::not_found("session")));
    assert_eq!(may(Some(&fresh)).await, Ok(()));
    let made = cluster.store.access(&fresh, &caller("ada").user).await.unwrap();
    assert_eq!(made, None, "not by asking");
    assert_eq!(node.chat.may_watch(&caller("eve"), Some(&open)).await, Ok(()));
    may(None).await.unwrap();
    assert_eq!(may(None).await.map_err(|error| error.code), Err(ErrorCode::RateLimit));

    let strict = cluster.node_with(|options| options.auto_create_sessions = false);
    let refused = strict.chat.may_watch(&caller("eve"), Some(&fresh)).await;
    assert_eq!(refused, Err(Error::not_found("session")));
    assert_eq!(strict.chat.may_watch(&caller("eve"), Some(&open)).await, Ok(()));
}

#[tokio::test]
async fn it_counts_as_a_stream_and_hears_what_its_user_may_see() {
    let cluster = Cluster::new().await;
    let node = cluster.node_with(|options| {
        options.rates.chosen =
            vec![(Action::OpenStream, Rate::per_minute(2)), (Action::Join, Rate::per_minute(1))];
    });
    let foreign = crate::hub::session();
    node.send("bob", &foreign).await.unwrap();
    let refused = async |after| node.watch("ada", &foreign, after).await.map(drop).unwrap_err();
    assert_eq!(refused(None).await, Error::not_found("session"));
    assert_eq!(refused(Some(Cursor::default())).await, Error::not_found("session"));
    assert_eq!(refused(None).await.code, ErrorCode::RateLimit);
    let (mut visit, _) = node.connected("ada").await;
    assert_eq!(node.join(&mut visit, &crate::hub::session()).await, Ok(()));
}

#[tokio::test]
async fn its_user_is_there_as_one_with_a_socket_is() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(), cluster.node());
    let session = a.open_session().await;
    let (_bob, bobs) = a.joined("bob", &session).await;
    let heard = || -> Vec<String> {
        bobs.names().into_iter().filter(|name| name.starts_with("user:")).collect()
    };
    let (first, _) = b.watch("ada", &session, None).await.unwrap();
    let (second, _) = b.watch("ada", &session, None).await.unwrap();
    assert_eq!(heard(), ["user:joined"]);
    let (mut third, _) = b.joined("ada", &session).await;
    b.chat.depart(first).await;
    let leave = Command::Leave { session: session.clone() };
    b.execute(&mut third, leave, "session:leave").await.unwrap();
    assert_eq!(heard(), ["user:joined"]);
    b.chat.depart(second).await;
    eventually("she left", || async { (heard().len() > 1).then_some(()) }).await;
    assert_eq!(heard(), ["user:joined", "user:left"]);
}
