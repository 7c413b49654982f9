//! Generations that nobody runs any more, on nodes of one database and one log. Each node has a
//! runtime of its own, so that it can die or be frozen as a process is.

mod node;

use std::sync::atomic::Ordering;

use tokencast::domain::{
    AgentId, Chunk, ErrorCode, Event, EventKind, GenerationId, Message, Outcome, Status,
    StopReason, Usage, UserId,
};
use tokencast::store::Answered;

use self::node::{Cluster, Node, Says, kinds};
use crate::support::eventually;

/// The answer once it is stored.
async fn answered(cluster: &Cluster, id: GenerationId) -> Answered {
    let found = eventually("it ends", || async {
        let answers = cluster.store.answers_after(&cluster.session, 0, 10).await.unwrap();
        answers.into_iter().find(|answered| answered.generation == id)
    });
    found.await
}

fn is_partial(message: &Message) -> bool {
    message.metadata.contains_key("partial")
}

fn completed() -> Outcome {
    Outcome::Completed { reason: StopReason::EndTurn }
}

async fn attempt(cluster: &Cluster, id: GenerationId) -> u32 {
    cluster.store.generation(id).await.unwrap().unwrap().attempt
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_goes_on_where_its_dead_node_left_it() {
    let cluster = Cluster::new().await;
    let (owner, other) = (cluster.node(Says::All).await, cluster.node(Says::All).await);
    let id = cluster.ask(&owner, "assistant").await;
    cluster.has_text(&other, id, 1).await;
    owner.die();
    let answer = answered(&cluster, id).await;
    assert_eq!((&answer.message.content, answer.outcome), (&cluster.answer(), completed()));
    assert_eq!(attempt(&cluster, id).await, 2);
    assert_eq!(
        kinds(&other, &cluster.session).await,
        ["new", "started", "resumed", "ended", "completed"]
    );
    assert!(answer.usage.output_tokens > 0);
    let stored = cluster.store.generation(id).await.unwrap().unwrap();
    assert!(stored.first_token_at.is_some(), "it is known from what its node counted");
    assert_eq!(other.text(&cluster.session, id, 1).await, "", "what wrote it has no text any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_restarts_says_that_it_starts_over() {
    let cluster = Cluster::new().await;
    let (owner, other) = (cluster.node(Says::All).await, cluster.node(Says::All).await);
    let id = cluster.ask(&owner, "restarting").await;
    cluster.has_text(&other, id, 1).await;
    owner.die();
    let answer = answered(&cluster, id).await;
    assert_eq!((&answer.message.content, answer.outcome), (&cluster.answer(), completed()));
    assert_eq!(
        kinds(&other, &cluster.session).await,
        ["new", "started", "reset", "ended", "completed"]
    );
    assert_eq!(other.partials(), [None], "it is asked from the start");
    assert_eq!(other.text(&cluster.session, id, 2).await, cluster.answer());
}

/// Its model is silent when it wakes: only its lease tells it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_frozen_drops_what_is_anothers_now() {
    let cluster = Cluster::new().await;
    let (owner, other) = (cluster.node(Says::First(8)).await, cluster.node(Says::All).await);
    let id = cluster.ask(&owner, "assistant").await;
    // All that its model says: it has nothing to append when it wakes.
    cluster.has_said(&other, id, 8).await;
    let frozen = owner.freeze().await;
    let answer = answered(&cluster, id).await;
    assert_eq!(answer.message.content, cluster.answer());
    assert_eq!(owner.open.load(Ordering::SeqCst), 1, "it is frozen with its upstream");
    frozen.thaw();
    let drops = || owner.open.load(Ordering::SeqCst) == 0 && owner.generations.running() == 0;
    eventually("it drops its upstream", || async { drops().then_some(()) }).await;
    let answers = cluster.store.answers_after(&cluster.session, 0, 10).await.unwrap();
    assert_eq!((answers.len(), &answers[0].message), (1, &answer.message));
}

/// Its heartbeats do not reach the database, and its words reach the log: the log tells it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_the_database_finds_in_the_log_that_it_was_replaced() {
    let cluster = Cluster::new().await;
    let (owner, other) = (cluster.node(Says::Slowly).await, cluster.node(Says::First(0)).await);
    let id = cluster.ask(&owner, "assistant").await;
    cluster.has_text(&other, id, 1).await;
    owner.store.close().await;
    eventually("it drops its upstream", || async {
        (owner.open.load(Ordering::SeqCst) == 0).then_some(())
    })
    .await;
    assert_eq!(attempt(&cluster, id).await, 2);
    assert_eq!(other.text(&cluster.session, id, 1).await, "", "it writes nothing any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_alone_is_without_redis_hands_over() {
    let cluster = Cluster::new().await;
    let (owner, other) = (cluster.node(Says::First(8)).await, cluster.node(Says::All).await);
    let id = cluster.ask(&owner, "assistant").await;
    cluster.has_text(&other, id, 1).await;
    owner.adapter.down.store(true, Ordering::SeqCst);
    assert_eq!(answered(&cluster, id).await.message.content, cluster.answer());
    assert_eq!(owner.open.load(Ordering::SeqCst), 0);
    assert_eq!(other.asked(), 1);
}

/// Where all are without Redis nobody could go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_node_has_redis_an_answer_stays_where_it_is() {
    let cluster = Cluster::new().await;
    let (owner, other) = (cluster.node(Says::All).await, cluster.node(Says::All).await);
    let id = cluster.ask(&owner, "assistant").await;
    cluster.has_text(&other, id, 1).await;
    for node in [&owner, &other] {
        node.adapter.down.store(true, Ordering::SeqCst);
    }
    let answer = answered(&cluster, id).await;
    assert_eq!((&answer.message.content, answer.outcome), (&cluster.answer(), completed()));
    assert_eq!((attempt(&cluster, id).await, other.asked()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_drains_leaves_its_answers_to_another() {
    let cluster = Cluster::new().await;
    let (owner, other) = (cluster.node(Says::First(8)).await, cluster.node(Says::All).await);
    let id = cluster.ask(&owner, "assistant").await;
    cluster.has_text(&other, id, 1).await;
    eventually("the other is heard of", || async {
        let nodes = cluster.store.nodes(std::time::Duration::from_secs(60)).await.unwrap();
        (nodes.len() == 2).then_some(())
    })
    .await;
    owner.drain().await;
    let nodes = cluster.store.nodes(std::time::Duration::from_secs(60)).await.unwrap();
    assert_eq!(nodes.iter().map(|node| node.node).collect::<Vec<_>>(), [other.id], "it is gone");
    assert!(owner.generations.reserve().is_none());
    let answer = answered(&cluster, id).await;
    assert_eq!((&answer.message.content, answer.outcome), (&cluster.answer(), completed()));
    let log = kinds(&other, &cluster.session).await;
    assert_eq!(log, ["new", "started", "resumed", "ended", "completed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_node_that_drains_ends_its_answers_with_their_text() {
    let cluster = Cluster::new().await;
    let owner = cluster.node(Says::First(8)).await;
    let id = cluster.ask(&owner, "assistant").await;
    cluster.has_text(&owner, id, 1).await;
    let text = owner.text(&cluster.session, id, 1).await;
    owner.drain().await;
    let answer = answered(&cluster, id).await;
    assert!(matches!(answer.outcome, Outcome::Failed { .. }) && is_partial(&answer.message));
    assert!(answer.message.content.starts_with(&text));
}

/// A generation that an attempt has left with this text, and what it said in the log.
async fn left(cluster: &Cluster, node: &Node, agent: &str, text: &str) -> GenerationId {
    let generation = cluster.left(agent).await;
    let (id, session) = (generation.id, &cluster.session);
    let started = EventKind::GenerationStarted {
        generation: id,
        message: generation.message,
        agent: AgentId::new(agent).unwrap(),
        attempt: 1,
    };
    node.adapter().append_event(session, Event::new(started).into()).await.unwrap();
    if !text.is_empty() {
        let chunk = Chunk {
            generation: id,
            attempt: 1,
            seq: 1,
            offset: 0,
            tokens: 1,
            read_at_ms: 0,
            delta: text.into(),
        };
        node.adapter().append_chunk(session, chunk).await.unwrap();
    }
    id
}

async fn ended(cluster: &Cluster, node: &Node, id: GenerationId, length: u64) {
    let ended = EventKind::GenerationEnded {
        generation: id,
        attempt: 1,
        length,
        reason: StopReason::MaxTokens,
        usage: Usage { input_tokens: 7, output_tokens: 11, cached_tokens: 3 },
    };
    node.adapter().append_event(&cluster.session, Event::new(ended).into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_provider_had_ended_only_the_end_is_stored() {
    let cluster = Cluster::new().await;
    let node = cluster.node(Says::All).await;
    let id = left(&cluster, &node, "assistant", "all of it").await;
    ended(&cluster, &node, id, 9).await;
    cluster.release(id).await;
    let answer = answered(&cluster, id).await;
    // The provider's own word for the end stands in the event only.
    assert!(matches!(answer.outcome, Outcome::Completed { .. }));
    let usage = (answer.usage.input_tokens, answer.usage.output_tokens);
    assert_eq!((answer.message.content.as_str(), usage), ("all of it", (7, 11)));
    assert_eq!(node.asked(), 0);
}

/// The text's last piece was lost with a replica, or what ended was an earlier attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_does_not_fit_the_text_is_none() {
    let cluster = Cluster::new().await;
    let node = cluster.node(Says::All).await;
    let begin: String = cluster.answer().chars().take(10).collect();
    let id = left(&cluster, &node, "assistant", &begin).await;
    ended(&cluster, &node, id, begin.len() as u64 + 1).await;
    let other = left(&cluster, &node, "assistant", &begin).await;
    ended(&cluster, &node, other, begin.len() as u64).await;
    let late = left(&cluster, &node, "assistant", &begin).await;
    for (generation, attempt) in [(other, 1), (late, 2)] {
        let reset = EventKind::GenerationReset {
            generation,
            message: cluster.store.generation(generation).await.unwrap().unwrap().message,
            agent: AgentId::new("assistant").unwrap(),
            attempt,
            reason: String::new(),
        };
        node.adapter().append_event(&cluster.session, Event::new(reset).into()).await.unwrap();
    }
    // Its node was frozen, and does not know yet that there is a second attempt.
    ended(&cluster, &node, late, begin.len() as u64).await;
    for id in [id, other, late] {
        cluster.release(id).await;
        let answer = answered(&cluster, id).await;
        assert_eq!((&answer.message.content, answer.outcome), (&cluster.answer(), completed()));
    }
    assert_eq!(node.partials(), [Some(begin.clone()), Some(begin.clone()), Some(begin)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_was_stored_is_honoured_with_the_text_kept() {
    let cluster = Cluster::new().await;
    let node = cluster.node(Says::All).await;
    let id = left(&cluster, &node, "restarting", "as far as").await;
    let bob = UserId::new("bob").unwrap();
    cluster.store.request_stop(id, &bob).await.unwrap();
    cluster.release(id).await;
    let answer = answered(&cluster, id).await;
    assert_eq!(answer.outcome, Outcome::Stopped { by: bob });
    assert_eq!((answer.message.content.as_str(), node.asked()), ("as far as", 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_over_too_often_fails_with_its_text() {
    let cluster = Cluster::new().await;
    let node = cluster.node(Says::All).await;
    let id = left(&cluster, &node, "restarting", "poison").await;
    cluster.pass_on(id, 5, true).await;
    assert_eq!(attempt(&cluster, id).await, 6);
    cluster.lose(id).await;
    let answer = answered(&cluster, id).await;
    let Outcome::Failed { error } = &answer.outcome else { panic!("{:?}", answer.outcome) };
    assert_eq!((error.code, is_partial(&answer.message)), (ErrorCode::Internal, true));
    assert_eq!((answer.message.content.as_str(), node.asked()), ("poison", 0));
}

/// The last takeover that may write does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_taken_over_five_times() {
    let cluster = Cluster::new().await;
    let node = cluster.node(Says::All).await;
    let id = left(&cluster, &node, "assistant", "").await;
    cluster.pass_on(id, 4, true).await;
    cluster.lose(id).await;
    assert_eq!(answered(&cluster, id).await.message.content, cluster.answer());
}

/// Many nodes are restarted one after another while it is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hand_overs_do_not_end_it() {
    let cluster = Cluster::new().await;
    let node = cluster.node(Says::All).await;
    let id = left(&cluster, &node, "assistant", "").await;
    cluster.pass_on(id, 12, false).await;
    cluster.release(id).await;
    let answer = answered(&cluster, id).await;
    assert_eq!((&answer.message.content, answer.outcome), (&cluster.answer(), completed()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_no_node_knows_does_not_leave_its_answer_open() {
    let cluster = Cluster::new().await;
    let node = cluster.node(Says::All).await;
    let id = left(&cluster, &node, "unknown", "so far").await;
    cluster.release(id).await;
    let answer = answered(&cluster, id).await;
    assert!(matches!(answer.outcome, Outcome::Failed { .. }));
    assert_eq!(answer.message.content, "so far");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_cannot_be_read_is_left_to_a_node_that_can() {
    let cluster = Cluster::new().await;
    let (blind, other) = (cluster.node(Says::All).await, cluster.node(Says::All).await);
    other.adapter.down.store(true, Ordering::SeqCst);
    let begin: String = cluster.answer().chars().take(10).collect();
    let id = left(&cluster, &blind, "assistant", &begin).await;
    blind.adapter.unreadable.store(true, Ordering::SeqCst);
    cluster.release(id).await;
    eventually("it was tried", || async { (attempt(&cluster, id).await > 1).then_some(()) }).await;
    other.adapter.down.store(false, Ordering::SeqCst);
    assert_eq!(answered(&cluster, id).await.message.content, cluster.answer());
    assert_eq!(blind.asked(), 0);
}

/// Accepted, but its node died before it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_began_is_begun() {
    let cluster = Cluster::new().await;
    let node = cluster.node(Says::All).await;
    let generation = cluster.accepted("restarting").await;
    let answer = answered(&cluster, generation.id).await;
    assert_eq!(answer.message.content, cluster.answer());
    let log = kinds(&node, &cluster.session).await;
    assert_eq!(log, ["new", "started", "ended", "completed"], "the prompt comes first");
}

/// Its node died before the log had the beginning: readers were told of nothing to start over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_began_unheard_is_begun() {
    let cluster = Cluster::new().await;
    let node = cluster.node(Says::All).await;
    let id = cluster.left("restarting").await.id;
    let prompt = cluster.store.outbox_between(&cluster.session, 0, u64::MAX).await.unwrap();
    let prompt = prompt.into_iter().next().unwrap().event;
    cluster.store.delete_outgoing(&[prompt.id]).await.unwrap();
    node.adapter().append_event(&cluster.session, prompt.into()).await.unwrap();
    cluster.release(id).await;
    let answer = answered(&cluster, id).await;
    assert_eq!(answer.message.content, cluster.answer());
    let log = kinds(&node, &cluster.session).await;
    assert_eq!(log, ["new", "started", "ended", "completed"]);
}

/// The claim's answer was lost, or the task that ran it panicked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_a_nodes_own_but_does_not_run_there_is_not_left_open() {
    let cluster = Cluster::new().await;
    let node = cluster.node(Says::All).await;
    let generation = cluster.accepted_for("assistant", node.id).await;
    assert!(cluster.store.begin(generation.id, node.id, 1).await.unwrap());
    assert_eq!(answered(&cluster, generation.id).await.message.content, cluster.answer());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_an_answer_that_was_taken_over() {
    let cluster = Cluster::new().await;
    let node = cluster.node(Says::First(0)).await;
    let id = left(&cluster, &node, "assistant", "begun").await;
    cluster.release(id).await;
    let runs = || node.open.load(Ordering::SeqCst) == 1;
    eventually("it goes on", || async { runs().then_some(()) }).await;
    let bob = UserId::new("bob").unwrap();
    // No word to the node: it finds the stop in the database.
    cluster.store.request_stop(id, &bob).await.unwrap();
    let answer = answered(&cluster, id).await;
    assert_eq!(answer.outcome, Outcome::Stopped { by: bob });
    assert_eq!(answer.message.content, "begun");
    eventually("upstream is closed", || async { (!runs()).then_some(()) }).await;
    let stored = cluster.store.generation(id).await.unwrap().unwrap();
    assert_eq!(stored.status, Status::Stopped);
}
