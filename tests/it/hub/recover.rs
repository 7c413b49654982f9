//! Whoever is cut off at one frame and comes back, on whatever node, ends with what an uncut reader
//! was shown; and so does one that falls behind what is kept. In each vocabulary.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokencast::adapter::SharedMemory;
use tokencast::dialect::Dialects;
use tokencast::domain::{Event, EventKind, Position};
use tokencast::hub::{FromStore, Standing, Start, Stored};

use super::coming_back::{Heard, Reading, all, enter, keeping, supply};
use super::reader::{TestReader, place};
use super::told::Talk;
use super::{session, watch};

#[tokio::test]
async fn cut_between_the_pieces_of_one_end_the_other_pieces_follow_or_all_of_it_again() {
    for dialect in all() {
        for how in 0..3 {
            let (shared, session) = (SharedMemory::default(), session());
            let nodes = [keeping(&shared, 4, 512), keeping(&shared, 4, 512)];
            let first = TestReader::of("ada", dialect);
            watch(&nodes[0], &session, &first, Standing::Belongs).await;
            let root = Reading { had: Heard::default(), node: 0, reader: first, is_whole: true };
            let (mut talk, log) = (Talk::new(&session), nodes[0].adapter.clone());
            talk.say(&*log).await;
            let at = talk.start(&*log).await;
            talk.grow(&*log, at, "né€").await;
            talk.end(&*log, at, how).await;
            let pieces: Vec<usize> = (0..root.reader.frames().len())
                .filter(|n| {
                    let frame = &root.reader.frames()[*n];
                    frame.cursor.as_deref().is_some_and(|cursor| place(cursor).part > 0)
                })
                .collect();
            for _ in 0..6 {
                talk.say(&*log).await;
            }
            let uncut = root.has(&talk);
            for piece in pieces {
                let whole = root.cut(&talk, &nodes, piece, 0).await.unwrap();
                assert!(whole.is_whole);
                whole.check(&talk, &uncut, "the other pieces");
                assert_eq!(whole.has(&talk).said.len(), uncut.said.len());
                let anew = root.cut(&talk, &nodes, piece, 1).await.unwrap();
                assert!(!anew.is_whole);
                anew.check(&talk, &uncut, "all of it again");
                // And once more, at each frame of that.
                for frame in 0..anew.reader.frames().len() {
                    for node in 0..2 {
                        if let Some(twice) = anew.cut(&talk, &nodes, frame, node).await {
                            twice.check(&talk, &uncut, &format!("cut again at {frame}"));
                        }
                    }
                }
            }
        }
    }
}

/// Joins in the middle of an answer, and is cut off before the first text.
#[tokio::test]
async fn who_was_never_told_of_a_running_answer_is_told_once_when_it_comes_back() {
    for dialect in all() {
        let (shared, session) = (SharedMemory::default(), session());
        let (a, b) = (keeping(&shared, 512, 512), keeping(&shared, 512, 512));
        let (mut talk, log) = (Talk::new(&session), a.adapter.clone());
        talk.say(&*log).await;
        let answer = talk.start(&*log).await;
        talk.grow(&*log, answer, "so far").await;
        let told = TestReader::of("ada", dialect);
        watch(&a, &session, &told, Standing::Belongs).await;
        let cut = TestReader::of("ada", dialect);
        let (start, standing) = (Start::Now(&[]), Standing::Belongs);
        let at = a.hub.join(&session, cut.clone(), standing, start, 0).await.unwrap().at;
        for node in [&a, &b] {
            let (next, is_whole) = enter(node, &talk, dialect, &at).await;
            assert!(is_whole);
            assert_eq!(next.shown(), told.shown());
            // From its last place nothing comes twice.
            if let Some(cursor) = next.frames().last().and_then(|frame| frame.cursor.clone()) {
                let (again, _) = enter(node, &talk, dialect, &place(&cursor)).await;
                assert_eq!(again.shown(), []);
            }
        }
    }
}

#[tokio::test]
async fn a_reader_that_falls_behind_what_is_kept_gets_all_messages_late_in_order_and_once() {
    for dialect in all() {
        let (shared, session) = (SharedMemory::default(), session());
        let node = keeping(&shared, 512, 8);
        let (first, slow) = (TestReader::of("ada", dialect), TestReader::of("bob", dialect));
        watch(&node, &session, &first, Standing::Belongs).await;
        watch(&node, &session, &slow, Standing::Belongs).await;
        let (mut talk, log) = (Talk::new(&session), node.adapter.clone());
        talk.say(&*log).await;
        let slow = Reading { had: Heard::default(), node: 0, reader: slow, is_whole: true };
        slow.reader.full.store(true, Ordering::SeqCst);
        for n in 0..100 {
            talk.say(&*log).await;
            if n % 10 == 0 {
                let at = talk.start(&*log).await;
                talk.grow(&*log, at, "text ").await;
                talk.end(&*log, at, n / 10).await;
            }
            if n > 60 && n % 3 == 0 {
                slow.reader.full.store(false, Ordering::SeqCst);
                slow.reader.full_after_next.store(true, Ordering::SeqCst);
                node.hub.resume(slow.reader.number(), [&session]);
                if n % 2 == 0 {
                    supply(&node, &talk, &slow.reader);
                }
            }
        }
        assert!(!slow.is_quick());
        let at = talk.start(&*log).await;
        talk.grow(&*log, at, "runs").await;
        slow.reader.full.store(false, Ordering::SeqCst);
        slow.reader.full_after_next.store(false, Ordering::SeqCst);
        node.hub.resume(slow.reader.number(), [&session]);
        supply(&node, &talk, &slow.reader);
        let root = Reading { had: Heard::default(), node: 0, reader: first, is_whole: true };
        slow.check(&talk, &root.has(&talk), "late");
        let has_word = Dialects::new(false).vocabulary(dialect).incomplete(&session).is_some();
        assert_eq!(slow.has(&talk).incomplete, usize::from(has_word), "told once");
        // It is live again, and no more behind.
        let told = slow.reader.fell_behind.load(Ordering::SeqCst);
        talk.grow(&*log, at, " on").await;
        talk.say(&*log).await;
        talk.end(&*log, at, 0).await;
        slow.check(&talk, &root.has(&talk), "live");
        assert_eq!(slow.reader.fell_behind.load(Ordering::SeqCst), told);
    }
}

/// Where the store cannot be read, nothing is lost and nothing overtakes.
#[tokio::test]
async fn who_waits_for_the_store_is_shown_nothing_else_meanwhile() {
    let dialect = all()[0];
    let (shared, session) = (SharedMemory::default(), session());
    let node = keeping(&shared, 512, 4);
    let slow = TestReader::of("ada", dialect);
    watch(&node, &session, &slow, Standing::Belongs).await;
    let (mut talk, log) = (Talk::new(&session), node.adapter.clone());
    slow.full.store(true, Ordering::SeqCst);
    for _ in 0..9 {
        talk.say(&*log).await;
    }
    slow.full.store(false, Ordering::SeqCst);
    for _ in 0..3 {
        node.hub.resume(slow.number(), [&session]);
        assert_eq!(node.hub.skip_ahead(&session, slow.number()), Some(0));
        talk.say(&*log).await;
        // It joins again.
        node.hub.join(&session, slow.clone(), Standing::Belongs, Start::Now(&[]), 0).await.unwrap();
        node.hub.go_live(&session, slow.number(), FromStore::default());
        assert!(slow.frames().is_empty());
    }
    assert_eq!(slow.fell_behind.load(Ordering::SeqCst), 1, "told once");
    supply(&node, &talk, &slow);
    assert_eq!(slow.names().iter().filter(|name| *name == "message:new").count(), 12);
    assert_eq!(slow.names().last().unwrap(), "messages:missed");
    assert_eq!(node.hub.skip_ahead(&session, slow.number()), None);
    // What the log had not brought when the store was read is not shown again.
    slow.full.store(true, Ordering::SeqCst);
    for _ in 0..9 {
        talk.say(&*log).await;
    }
    let late = talk.kept.len();
    slow.full.store(false, Ordering::SeqCst);
    node.hub.resume(slow.number(), [&session]);
    let new = super::said(&session, "late");
    let EventKind::MessageNew(new) = new else { unreachable!() };
    talk.ordinal += 1;
    let mut new = (*new).clone();
    new.ordinal = talk.ordinal;
    let event = Arc::new(Event::new(EventKind::MessageNew(Arc::new(new))));
    talk.kept.push(Stored { event: event.clone(), attempt: 0 });
    supply(&node, &talk, &slow);
    let shown = slow.names().len();
    assert_eq!(
        place(slow.frames().last().unwrap().cursor.as_deref().unwrap()).ordinal,
        talk.ordinal
    );
    log.append_event(&session, event).await.unwrap();
    assert_eq!((slow.names().len(), late), (shown, 21));
    talk.say(&*log).await;
    assert_eq!(slow.names().len(), shown + 1);
}

/// A place in no log: only the store can bring it on from there.
#[tokio::test]
async fn in_the_middle_of_what_is_from_the_store_its_place_is_in_no_log() {
    let (shared, session) = (SharedMemory::default(), session());
    let nodes = [keeping(&shared, 4, 512), keeping(&shared, 4, 512)];
    let first = TestReader::of("ada", all()[0]);
    watch(&nodes[0], &session, &first, Standing::Belongs).await;
    let (mut talk, log) = (Talk::new(&session), nodes[0].adapter.clone());
    for _ in 0..20 {
        talk.say(&*log).await;
    }
    let cursor = place(first.frames()[2].cursor.as_deref().unwrap());
    let (next, is_whole) = enter(&nodes[1], &talk, all()[0], &cursor).await;
    assert!(!is_whole);
    let frames = next.frames();
    let places: Vec<_> = frames.iter().map(|f| place(f.cursor.as_deref().unwrap())).collect();
    let (end, middle) = places.split_last().unwrap();
    assert!(middle.iter().all(|place| place.position == Position::default()));
    let ordinals: Vec<_> = middle.iter().map(|place| place.ordinal).collect();
    assert_eq!(ordinals, (4..=20).collect::<Vec<_>>());
    let last = place(first.frames().last().unwrap().cursor.as_deref().unwrap());
    assert_eq!(*end, last, "with the word that it may lack changes it is back in the log");
}

/// Who joined between the store and the log, which had no message, raised everybody's place by
/// that message: those who were there before, and still waited for it, came back without it.
#[tokio::test(start_paused = true)]
async fn whoever_joins_after_a_message_was_stored_says_nothing_for_those_who_wait_for_it() {
    let (shared, session, dialect) = (SharedMemory::default(), session(), all()[0]);
    let node = keeping(&shared, 512, 512);
    let (first, late) = (TestReader::of("ada", dialect), TestReader::of("bob", dialect));
    watch(&node, &session, &first, Standing::Belongs).await;
    let (mut talk, log) = (Talk::new(&session), node.adapter.clone());
    let sent = talk.send();
    let (start, standing) = (Start::Now(&[]), Standing::Belongs);
    node.hub.join(&session, late.clone(), standing, start, talk.ordinal).await.unwrap();
    node.hub.go_live(&session, late.number(), FromStore::default());
    let at = talk.start(&*log).await;
    talk.grow(&*log, at, "text").await;
    let places = [&first, &late]
        .map(|reader| place(reader.frames().last().unwrap().cursor.as_ref().unwrap()));
    assert_eq!(places.each_ref().map(|place| place.ordinal), [0, 1]);
    talk.deliver(&*log, sent).await;
    assert_eq!(first.names().last().unwrap(), "message:new");
    assert_eq!(late.names().last().unwrap(), "stream:chunk", "it had it");
    // Another node, whose log has lost it.
    let other = keeping(&SharedMemory::default(), 512, 512);
    for (place, is_owed) in places.iter().zip([true, false]) {
        let (next, is_whole) = enter(&other, &talk, dialect, place).await;
        assert!(!is_whole);
        assert_eq!(next.names().contains(&"message:new".to_owned()), is_owed);
    }
}

/// A page from the store had a message that the log brought only then: who was cut off between the
/// two and came back was told it twice.
#[tokio::test]
async fn what_a_page_had_before_the_log_is_told_once_also_to_who_is_cut_off_in_between() {
    let (shared, session, dialect) = (SharedMemory::default(), session(), all()[0]);
    let nodes = [keeping(&shared, 4, 512), keeping(&shared, 4, 512)];
    let first = TestReader::of("ada", dialect);
    watch(&nodes[0], &session, &first, Standing::Belongs).await;
    let (mut talk, log) = (Talk::new(&session), nodes[0].adapter.clone());
    for _ in 0..9 {
        talk.say(&*log).await;
    }
    let sent = talk.send();
    let old = place(first.frames()[0].cursor.as_deref().unwrap());
    let (cut, is_whole) = enter(&nodes[1], &talk, dialect, &old).await;
    assert!(!is_whole);
    let said =
        |reader: &TestReader| reader.names().iter().filter(|name| *name == "message:new").count();
    assert_eq!((said(&cut), cut.names().last().unwrap().as_str()), (9, "messages:missed"));
    let at = place(cut.frames().last().unwrap().cursor.as_deref().unwrap());
    let mut back = vec![enter(&nodes[0], &talk, dialect, &at).await];
    talk.deliver(&*log, sent).await;
    for node in &nodes {
        back.push(enter(node, &talk, dialect, &at).await);
    }
    talk.say(&*log).await;
    assert_eq!(said(&cut), 10);
    for (next, is_whole) in &back {
        assert!(is_whole);
        assert_eq!(said(next), 1, "what was said after it");
    }
}
