//! How far an answer is, asked on a node that does not run it.

use std::sync::atomic::Ordering;

use tokencast::adapter::{Tallies, Tally};
use tokencast::chat::StreamStatus;
use tokencast::domain::{
    Action, AgentId, Error, ErrorCode, Generation, GenerationConfig, GenerationId, MessageId,
    NodeId, Outcome, Rate, SessionId, Status, Usage, UserId, Visibility,
};
use tokencast::store::{Accepted, Finish, NewGeneration};

use super::{Cluster, Node, caller};

/// A generation of ada's that streams, on a node of which nothing else is known.
async fn streaming(cluster: &Cluster, session: &SessionId, max: Option<u32>) -> Generation {
    let new = NewGeneration {
        session: session.clone(),
        user: UserId::new("ada").unwrap(),
        prompt_id: MessageId::new(),
        prompt: "why?".to_owned(),
        client_message_id: None,
        agent: AgentId::new("helper").unwrap(),
        provider: "dictated".to_owned(),
        model: "m".to_owned(),
        config: GenerationConfig { max_tokens: max, ..GenerationConfig::default() },
        owner: NodeId::new(),
        begun: false,
        user_generations_max: 0,
    };
    let Accepted::New { generation, .. } = cluster.store.accept(&new).await.unwrap() else {
        panic!("it is new");
    };
    assert!(cluster.store.begin(generation.id, generation.owner, 1).await.unwrap());
    generation
}

impl Node {
    async fn status(&self, user: &str, id: GenerationId) -> Result<StreamStatus, Error> {
        self.chat.stream_status(&caller(user), id).await
    }
}

#[tokio::test]
async fn an_answer_is_looked_at_on_another_node_and_where_redis_is_away() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(), cluster.node());
    let session = a.open_session().await;
    let running = streaming(&cluster, &session, Some(80)).await;
    let id = running.id;
    let none = a.status("ada", id).await.unwrap();
    assert_eq!((none.tokens, none.progress, none.generation.status), (0, 0.0, Status::Streaming));
    let metrics = a.chat.stream_metrics(&caller("ada"), id).await.unwrap();
    assert_eq!((metrics.sent_bytes, metrics.first_token_ms), (Some(0), None), "nothing as yet");

    let tally = Tally { tokens: 20, first_token_ms: Some(300), errors: 1, sent_bytes: 0 };
    a.adapter.tally(&session, id, tally).await.unwrap();
    a.adapter.add_sent(&session, id, 512).await.unwrap();
    let status = b.status("ada", id).await.unwrap();
    assert_eq!((status.tokens, status.progress), (20, 0.25));
    assert!(status.generation.started_at.is_some());
    let metrics = b.chat.stream_metrics(&caller("ada"), id).await.unwrap();
    let told = (metrics.generation, metrics.tokens, metrics.errors);
    assert_eq!(told, (id, 20, 1));
    assert_eq!((metrics.sent_bytes, metrics.first_token_ms), (Some(512), Some(300)));

    b.adapter.down.store(true, Ordering::SeqCst);
    let status = b.status("ada", id).await.unwrap();
    assert_eq!((status.tokens, status.generation.status), (0, Status::Streaming));
    let metrics = b.chat.stream_metrics(&caller("ada"), id).await.unwrap();
    assert_eq!((metrics.tokens, metrics.sent_bytes), (0, None), "not that nothing was sent");

    let finish = Finish {
        generation: id,
        owner: running.owner,
        attempt: 1,
        content: "because".to_owned(),
        outcome: Outcome::Stopped { by: UserId::new("ada").unwrap() },
        usage: Usage::default(),
        tokens: 40,
        first_token_at: Some(running.created_at),
        errors: 2,
        answered_by: None,
        metadata: serde_json::Map::new(),
    };
    cluster.store.finish(&finish).await.unwrap();
    let status = b.status("ada", id).await.unwrap();
    assert_eq!((status.tokens, status.progress), (40, 0.5));
    assert_eq!(status.generation.status, Status::Stopped);
    let metrics = b.chat.stream_metrics(&caller("ada"), id).await.unwrap();
    assert_eq!((metrics.tokens, metrics.errors, metrics.first_token_ms), (40, 2, Some(0)));
}

/// The request's, else the agent's.
#[tokio::test]
async fn progress_is_measured_by_what_the_request_allows_or_else_the_agent() {
    let cluster = Cluster::new().await;
    let (limited, unlimited) = (cluster.node_of(Some(200)), cluster.node());
    let session = limited.open_session().await;
    for (asked, expected) in [(Some(100), [0.5, 0.5]), (None, [0.25, 0.0])] {
        let id = streaming(&cluster, &session, asked).await.id;
        let tally = Tally { tokens: 50, ..Tally::default() };
        limited.adapter.tally(&session, id, tally).await.unwrap();
        let told = [limited.status("ada", id).await, unlimited.status("ada", id).await];
        assert_eq!(told.map(|status| status.unwrap().progress), expected);
    }
}

#[tokio::test]
async fn a_foreign_stream_is_looked_at_like_one_that_does_not_exist() {
    let cluster = Cluster::new().await;
    let node = cluster.node_with(|options| {
        options.rates.chosen = vec![(Action::Read, Rate::per_minute(4))];
    });
    let session = node.open_session().await;
    let id = streaming(&cluster, &session, None).await.id;
    assert!(node.status("bob", id).await.is_ok(), "the session is open");
    node.set(&session, Visibility::Private).await;
    let unknown = Error::not_found("stream");
    for id in [id, GenerationId::new()] {
        assert_eq!(node.status("eve", id).await.unwrap_err(), unknown);
        let metrics = node.chat.stream_metrics(&caller("eve"), id).await;
        assert_eq!(metrics.unwrap_err(), unknown);
    }
    // Each was counted as a read, those that found nothing too.
    let refused = node.status("eve", id).await.unwrap_err();
    assert_eq!(
        (refused.code, &*refused.message),
        (ErrorCode::RateLimit, "Too many requests (read)")
    );
    let refused = node.chat.stream_metrics(&caller("eve"), id).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::RateLimit);
}
