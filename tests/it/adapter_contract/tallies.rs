//! What is counted of running generations.

use tokencast::adapter::Tally;
use tokencast::domain::GenerationId;

use super::{Node, on_every_backend, session};
use crate::support::redis::OwnRedis;

on_every_backend!(
    a_tally_is_read_on_any_node,
    what_was_sent_adds_up_and_is_left_as_it_is,
    a_tally_without_a_first_token_takes_it_back,
    generations_are_counted_each_by_itself,
);

const TALLY: Tally = Tally { tokens: 7, first_token_ms: Some(0), errors: 2, sent_bytes: 0 };

async fn a_tally_is_read_on_any_node(a: Node, b: Node) {
    let (session, generation) = (session(), GenerationId::new());
    assert_eq!(b.adapter.tallied(&session, generation).await.unwrap(), None);
    a.adapter.tally(&session, generation, TALLY).await.unwrap();
    assert_eq!(b.adapter.tallied(&session, generation).await.unwrap(), Some(TALLY));
    let later = Tally { tokens: 1 << 40, first_token_ms: Some(812), errors: 3, ..TALLY };
    a.adapter.tally(&session, generation, later).await.unwrap();
    assert_eq!(b.adapter.tallied(&session, generation).await.unwrap(), Some(later));
}

async fn what_was_sent_adds_up_and_is_left_as_it_is(a: Node, b: Node) {
    let (session, generation) = (session(), GenerationId::new());
    b.adapter.add_sent(&session, generation, 5).await.unwrap();
    let sent = Tally { sent_bytes: 5, ..Tally::default() };
    assert_eq!(a.adapter.tallied(&session, generation).await.unwrap(), Some(sent));
    a.adapter.tally(&session, generation, Tally { sent_bytes: 99, ..TALLY }).await.unwrap();
    a.adapter.add_sent(&session, generation, 1 << 33).await.unwrap();
    let sent = Tally { sent_bytes: 5 + (1 << 33), ..TALLY };
    assert_eq!(b.adapter.tallied(&session, generation).await.unwrap(), Some(sent));
}

async fn a_tally_without_a_first_token_takes_it_back(a: Node, b: Node) {
    let (session, generation) = (session(), GenerationId::new());
    a.adapter.tally(&session, generation, TALLY).await.unwrap();
    let before = Tally { first_token_ms: None, ..TALLY };
    a.adapter.tally(&session, generation, before).await.unwrap();
    assert_eq!(b.adapter.tallied(&session, generation).await.unwrap(), Some(before));
}

async fn generations_are_counted_each_by_itself(a: Node, b: Node) {
    let (here, elsewhere) = (session(), session());
    let (one, two) = (GenerationId::new(), GenerationId::new());
    a.adapter.tally(&here, one, TALLY).await.unwrap();
    assert_eq!(b.adapter.tallied(&here, two).await.unwrap(), None);
    assert_eq!(b.adapter.tallied(&elsewhere, one).await.unwrap(), None);
}

/// As many as anybody would look at; what is older is forgotten.
#[tokio::test]
async fn memory_keeps_so_many_tallies_of_a_session() {
    let (a, session) = (Node::memory(&tokencast::adapter::SharedMemory::default()), session());
    let mut generations: Vec<_> = (0..100).map(|_| GenerationId::new()).collect();
    generations.sort();
    for generation in &generations {
        a.adapter.add_sent(&session, *generation, 1).await.unwrap();
    }
    let mut kept = 0;
    for generation in &generations {
        kept += usize::from(a.adapter.tallied(&session, *generation).await.unwrap().is_some());
    }
    assert_eq!(kept, 64);
    let last = a.adapter.tallied(&session, generations[99]).await.unwrap();
    assert!(last.is_some(), "the newest is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_count_renews_the_tally() {
    let redis = OwnRedis::start().await;
    let (a, session, generation) =
        (Node::redis(&redis.url()).await, session(), GenerationId::new());
    let key = format!("tc:{{{session}}}:tally:{generation}");
    let lives = || {
        let ttl: i64 = redis.cli(&["pttl", &key]).parse().unwrap();
        assert!((30_000..=60_000).contains(&ttl), "{ttl}");
        redis.cli(&["pexpire", &key, "10000"]);
    };
    a.adapter.add_sent(&session, generation, 1).await.unwrap();
    lives();
    a.adapter.tally(&session, generation, TALLY).await.unwrap();
    lives();
    a.adapter.add_sent(&session, generation, 1).await.unwrap();
    lives();
}
