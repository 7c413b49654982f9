//! Logs, texts and hearing of them.

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokencast::adapter::{Appended, Earlier, News, Notice, StoredAppended};
use tokencast::domain::{
    GenerationId, NodeId, Position, PresenceChange, Signal, Timestamp, UserId,
};

use super::{EVENTS_MAX, Node, chunk, event, on_every_backend, session, someone};
use crate::support::eventually;

on_every_backend!(
    a_chunk_reaches_the_text_and_the_nodes_that_subscribed,
    a_repeated_chunk_is_applied_once_and_an_overlapping_one_adds_its_rest,
    a_chunk_beyond_the_end_is_refused_with_the_length,
    attempts_have_texts_of_their_own,
    appends_in_flight_together_are_applied_in_order,
    events_get_dense_positions_and_are_read_on_from_any_of_them,
    a_repeated_event_stands_twice_under_one_id,
    a_log_that_dropped_what_was_asked_for_says_so,
    a_position_of_another_epoch_is_not_contiguous,
    a_head_tells_how_far_log_and_texts_reach,
    a_session_without_a_log_reads_as_empty,
    an_unsubscribed_node_hears_nothing,
    signals_pass_to_subscribed_nodes_only,
    a_notice_reaches_the_node_it_is_for,
    news_reach_every_node,
    stored_events_stand_in_the_order_of_their_revisions,
    nodes_that_race_keep_the_order_of_revisions,
);

async fn a_chunk_reaches_the_text_and_the_nodes_that_subscribed(a: Node, b: Node) {
    let (session, generation) = (session(), GenerationId::new());
    let appended = a.adapter.append_chunk(&session, chunk(generation, 0, "one ")).await.unwrap();
    assert_eq!(appended, Appended::Done { heard: 0 }, "nobody listens");

    b.adapter.subscribe(&session).await.unwrap();
    let appended = a.adapter.append_chunk(&session, chunk(generation, 4, "two 😀")).await.unwrap();
    assert_eq!(appended, Appended::Done { heard: 1 });

    eventually("b hears the second chunk", || async {
        (b.chunk_texts() == "two 😀").then_some(())
    })
    .await;
    let heard = b.heard.chunks.lock().unwrap().first().cloned();
    assert_eq!(heard, Some(chunk(generation, 4, "two 😀")));
    assert_eq!(b.adapter.text(&session, generation, 1, 0).await.unwrap(), "one two 😀");
    assert_eq!(b.adapter.text(&session, generation, 1, 4).await.unwrap(), "two 😀");
}

async fn a_repeated_chunk_is_applied_once_and_an_overlapping_one_adds_its_rest(a: Node, b: Node) {
    let (session, generation) = (session(), GenerationId::new());
    for _ in 0..2 {
        a.adapter.append_chunk(&session, chunk(generation, 0, "abc")).await.unwrap();
    }
    let repeated = a.adapter.append_chunk(&session, chunk(generation, 1, "bc")).await.unwrap();
    assert_eq!(repeated, Appended::Done { heard: 0 });
    a.adapter.append_chunk(&session, chunk(generation, 2, "cde")).await.unwrap();
    assert_eq!(b.adapter.text(&session, generation, 1, 0).await.unwrap(), "abcde");
}

async fn a_chunk_beyond_the_end_is_refused_with_the_length(a: Node, b: Node) {
    let (session, generation) = (session(), GenerationId::new());
    let refused = a.adapter.append_chunk(&session, chunk(generation, 3, "x")).await.unwrap();
    assert_eq!(refused, Appended::Short { len: 0 });
    a.adapter.append_chunk(&session, chunk(generation, 0, "ab")).await.unwrap();
    let refused = a.adapter.append_chunk(&session, chunk(generation, 3, "x")).await.unwrap();
    assert_eq!(refused, Appended::Short { len: 2 });
    assert_eq!(b.adapter.text(&session, generation, 1, 0).await.unwrap(), "ab");
}

async fn attempts_have_texts_of_their_own(a: Node, b: Node) {
    let (session, generation) = (session(), GenerationId::new());
    a.adapter.append_chunk(&session, chunk(generation, 0, "first")).await.unwrap();
    let mut second = chunk(generation, 0, "second");
    second.attempt = 2;
    b.adapter.append_chunk(&session, second).await.unwrap();
    assert_eq!(a.adapter.text(&session, generation, 1, 0).await.unwrap(), "first");
    assert_eq!(a.adapter.text(&session, generation, 2, 0).await.unwrap(), "second");
}

async fn appends_in_flight_together_are_applied_in_order(a: Node, b: Node) {
    let (session, generation) = (session(), GenerationId::new());
    b.adapter.subscribe(&session).await.unwrap();
    let words: Vec<String> = (0..1000).map(|n| format!("{n} ")).collect();
    let mut offset = 0;
    let mut appends = FuturesOrdered::new();
    for word in &words {
        appends.push_back(a.adapter.append_chunk(&session, chunk(generation, offset, word)));
        offset += word.len() as u64;
    }
    while let Some(appended) = appends.next().await {
        assert_eq!(appended.unwrap(), Appended::Done { heard: 1 });
    }
    assert_eq!(b.adapter.text(&session, generation, 1, 0).await.unwrap(), words.concat());
    eventually("b hears all, in order", || async {
        (b.chunk_texts() == words.concat()).then_some(())
    })
    .await;
}

async fn events_get_dense_positions_and_are_read_on_from_any_of_them(a: Node, b: Node) {
    let session = session();
    b.adapter.subscribe(&session).await.unwrap();
    let events: Vec<_> = (0..10).map(|_| event()).collect();
    let mut positions = Vec::new();
    for (n, event) in events.iter().enumerate() {
        let node = if n % 2 == 0 { &a } else { &b };
        positions.push(node.adapter.append_event(&session, event.clone()).await.unwrap());
    }
    assert_eq!(positions[0].seq, 1);
    assert!(positions.windows(2).all(|pair| pair[1].follows(pair[0])), "{positions:?}");
    let all: Vec<_> = positions.iter().copied().zip(events).collect();

    let page = b.adapter.read(&session, Position::default(), 4).await.unwrap();
    assert_eq!((page.events.as_slice(), page.contiguous, page.has_more), (&all[..4], true, true));
    let page = b.adapter.read(&session, positions[3], 100).await.unwrap();
    assert_eq!((page.events.as_slice(), page.contiguous, page.has_more), (&all[4..], true, false));
    let page = b.adapter.read(&session, positions[9], 100).await.unwrap();
    assert_eq!((page.events.len(), page.contiguous, page.has_more), (0, true, false));

    eventually("b hears all of a's and its own", || async {
        let heard = b.heard.events.lock().unwrap().clone();
        all.iter().all(|event| heard.contains(event)).then_some(())
    })
    .await;
}

async fn a_repeated_event_stands_twice_under_one_id(a: Node, b: Node) {
    let (session, event) = (session(), event());
    let first = a.adapter.append_event(&session, event.clone()).await.unwrap();
    let second = b.adapter.append_event(&session, event.clone()).await.unwrap();
    assert!(second.follows(first));
    let page = a.adapter.read(&session, Position::default(), 10).await.unwrap();
    assert!(page.events.iter().all(|(_, found)| found.id == event.id));
    assert_eq!(page.events.len(), 2);
}

async fn a_log_that_dropped_what_was_asked_for_says_so(a: Node, b: Node) {
    let session = session();
    let first = a.adapter.append_event(&session, event()).await.unwrap();
    for _ in 0..EVENTS_MAX * 2 {
        a.adapter.append_event(&session, event()).await.unwrap();
    }
    // Redis is trimmed by a periodic check.
    let page = eventually("the log is trimmed", || async {
        let page = b.adapter.read(&session, first, 1000).await.unwrap();
        (page.events.len() == EVENTS_MAX).then_some(page)
    })
    .await;
    assert!(!page.contiguous);
    let (last, _) = page.events[EVENTS_MAX - 1];
    assert_eq!(last.seq, 1 + EVENTS_MAX as u64 * 2);
}

async fn a_position_of_another_epoch_is_not_contiguous(a: Node, b: Node) {
    let session = session();
    let here = a.adapter.append_event(&session, event()).await.unwrap();
    for epoch in [here.epoch - 1, here.epoch + 1] {
        let page = b.adapter.read(&session, Position { epoch, seq: 1 }, 10).await.unwrap();
        assert!(!page.contiguous, "epoch {epoch}");
        assert_eq!(page.events.len(), 1);
    }
}

async fn a_head_tells_how_far_log_and_texts_reach(a: Node, b: Node) {
    let (session, generation) = (session(), GenerationId::new());
    let none = b.adapter.head(&session, &[(generation, 1)]).await.unwrap();
    assert_eq!((none.position, none.text_lens), (Position::default(), vec![0]));
    a.adapter.append_event(&session, event()).await.unwrap();
    let last = a.adapter.append_event(&session, event()).await.unwrap();
    a.adapter.append_chunk(&session, chunk(generation, 0, "é")).await.unwrap();
    let head = b.adapter.head(&session, &[(generation, 1), (generation, 2)]).await.unwrap();
    assert_eq!((head.position, head.text_lens), (last, vec![2, 0]));
}

async fn a_session_without_a_log_reads_as_empty(a: Node, _b: Node) {
    let session = session();
    let page = a.adapter.read(&session, Position::default(), 10).await.unwrap();
    assert_eq!((page.events.len(), page.contiguous, page.has_more), (0, true, false));
    assert_eq!(a.adapter.text(&session, GenerationId::new(), 1, 0).await.unwrap(), "");
}

async fn an_unsubscribed_node_hears_nothing(a: Node, b: Node) {
    let (session, generation) = (session(), GenerationId::new());
    b.adapter.subscribe(&session).await.unwrap();
    b.adapter.unsubscribe(&session).await.unwrap();
    // What is published at that moment may still find the subscription.
    let append = async |generation, offset, text| {
        a.adapter.append_chunk(&session, chunk(generation, offset, text)).await.unwrap()
    };
    let unheard = Appended::Done { heard: 0 };
    eventually("nobody hears", || async {
        (append(GenerationId::new(), 0, "-").await == unheard).then_some(())
    })
    .await;
    assert_eq!(append(generation, 0, "x").await, unheard);
    a.adapter.append_event(&session, event()).await.unwrap();
    b.adapter.subscribe(&session).await.unwrap();
    append(generation, 1, "y").await;
    let heard = || async { (b.chunk_texts().trim_start_matches('-') == "y").then_some(()) };
    eventually("b hears again", heard).await;
    assert!(b.heard.events.lock().unwrap().is_empty());
}

async fn signals_pass_to_subscribed_nodes_only(a: Node, b: Node) {
    let session = session();
    b.adapter.subscribe(&session).await.unwrap();
    let signal = Signal::UserJoined {
        user: UserId::new("ada").unwrap(),
        name: Some("Ada".to_owned()),
        online: 2,
    };
    a.adapter.signal(&session, signal.clone()).await.unwrap();
    eventually("b hears the signal", || async {
        (*b.heard.signals.lock().unwrap() == [signal.clone()]).then_some(())
    })
    .await;
    assert!(a.heard.signals.lock().unwrap().is_empty());
}

async fn a_notice_reaches_the_node_it_is_for(a: Node, b: Node) {
    let (generation, by) = (GenerationId::new(), UserId::new("a b").unwrap());
    for notice in [Notice::Stop { generation, by }, Notice::Run { generation }] {
        assert!(a.adapter.tell(b.id, notice.clone()).await.unwrap());
        let received =
            eventually("b gets the notice", || async { b.notices.lock().unwrap().try_recv().ok() })
                .await;
        assert_eq!(received, notice);
        assert!(!a.adapter.tell(NodeId::new(), notice).await.unwrap(), "nobody is there");
    }
}

async fn news_reach_every_node(a: Node, b: Node) {
    let change =
        PresenceChange { user: someone(), online: true, last_seen_at: Timestamp::from_millis(5) };
    let sent = [
        News::Disconnect { user: someone() },
        News::Presence { change, sessions: vec![session(), session()] },
    ];
    for news in &sent {
        a.adapter.tell_all(news.clone()).await.unwrap();
    }
    for node in [&a, &b] {
        eventually("the news came", || async {
            let heard = node.heard.news.lock().unwrap();
            sent.iter().all(|news| heard.contains(news)).then_some(())
        })
        .await;
    }
}

async fn stored_events_stand_in_the_order_of_their_revisions(a: Node, b: Node) {
    let session = session();
    b.adapter.subscribe(&session).await.unwrap();
    let append = async |node: &Node, revision, earlier| {
        let appended = node.adapter.append_stored(&session, revision, event(), earlier).await;
        match appended.unwrap() {
            StoredAppended::At(position) => Ok(position),
            StoredAppended::Early { last } => Err(last),
        }
    };
    use Earlier::{Required, SeenTo};

    assert_eq!(append(&a, 2, Required).await, Err(0), "nothing is known");
    let first = append(&a, 1, Required).await.unwrap();
    assert_eq!(first.seq, 1);
    assert_eq!(append(&b, 3, Required).await, Err(1));
    let second = append(&b, 2, Required).await.unwrap();
    assert!(second.follows(first), "what was early left no trace");
    let again = append(&a, 1, Required).await.unwrap();
    assert!(again.follows(second), "it stands there twice");
    assert_eq!(append(&a, 4, Required).await, Err(2), "an older one is no step back");
    append(&a, 10, SeenTo).await.unwrap();
    append(&b, 11, Required).await.unwrap();
    append(&b, 5, SeenTo).await.unwrap();
    assert_eq!(append(&a, 13, Required).await, Err(11));
    let plain = a.adapter.append_event(&session, event()).await.unwrap();
    let after = append(&b, 12, Required).await.unwrap();
    assert!(after.follows(plain), "other events count for nothing");

    eventually("b heard all of them", || async {
        let heard = b.heard.events.lock().unwrap();
        heard.iter().any(|(position, _)| *position == after).then_some(())
    })
    .await;
    let page = a.adapter.read(&session, Position::default(), 100).await.unwrap();
    assert_eq!(page.events.len(), 8);
}

async fn nodes_that_race_keep_the_order_of_revisions(a: Node, b: Node) {
    let session = session();
    let events: Vec<_> = (0..EVENTS_MAX / 2).map(|_| event()).collect();
    // The last ones first, each on both nodes.
    let appends = events.iter().enumerate().rev().flat_map(|(n, event)| {
        [&a, &b].map(|node| {
            let session = &session;
            async move {
                eventually("it is its turn", || async {
                    let revision = n as u64 + 1;
                    let appended = node
                        .adapter
                        .append_stored(session, revision, event.clone(), Earlier::Required)
                        .await;
                    matches!(appended.unwrap(), StoredAppended::At(_)).then_some(())
                })
                .await;
            }
        })
    });
    futures::future::join_all(appends).await;

    let page = a.adapter.read(&session, Position::default(), 100).await.unwrap();
    assert_eq!(page.events.len(), events.len() * 2);
    let mut order = Vec::new();
    for (_, event) in page.events {
        if !order.contains(&event.id) {
            order.push(event.id);
        }
    }
    assert_eq!(order, events.iter().map(|event| event.id).collect::<Vec<_>>());
}
