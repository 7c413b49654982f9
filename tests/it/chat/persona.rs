//! A user's own session with an agent, and saying who one is.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokencast::adapter::Log;
use tokencast::chat::Visit;
use tokencast::domain::{
    Action, AgentId, Command, Error, ErrorCode, JoinedPersona, Position, Rate, Reply, UserId,
};

use super::{Cluster, Node, caller, messages};
use crate::support::eventually;

async fn joined(node: &Node, visit: &mut Visit) -> Result<JoinedPersona, Error> {
    let command = Command::JoinPersona { agent: AgentId::new("helper").unwrap() };
    match node.execute(visit, command, "chat:join").await? {
        Reply::JoinedPersona(joined) => Ok(*joined),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_user_finds_their_own_session_with_an_agent_and_what_was_said_last() {
    let cluster = Cluster::new().await;
    let node = cluster.node();
    let (mut visit, reader) = node.connected("ada").await;
    let first = joined(&node, &mut visit).await.unwrap();
    assert_eq!((first.agent.as_str(), &first.messages), ("helper", &Vec::new()));
    for _ in 0..12 {
        node.send("ada", &first.session).await.unwrap();
    }
    eventually("she hears them", || async { (messages(&reader) == 12).then_some(()) }).await;
    let said = cluster.store.history(&first.session, &page(12)).await.unwrap().unwrap().messages;
    node.chat.delete(&caller("ada"), said[11].id).await.unwrap();
    node.chat.delete(&caller("ada"), said[5].id).await.unwrap();

    let (mut other, others) = node.connected("ada").await;
    let again = joined(&node, &mut other).await.unwrap();
    assert_eq!(again.session, first.session);
    let ordinals: Vec<u64> = again.messages.iter().map(|message| message.ordinal).collect();
    assert_eq!(ordinals, [1, 2, 3, 4, 5, 7, 8, 9, 10, 11]);
    node.send("ada", &first.session).await.unwrap();
    eventually("she hears the next", || async { (messages(&others) == 1).then_some(()) }).await;
    assert_eq!(other.joined().collect::<Vec<_>>(), [&first.session]);

    // It is hers alone.
    let (mut bob, _) = node.connected("bob").await;
    let refused = node.join(&mut bob, &first.session).await;
    assert_eq!(refused, Err(ErrorCode::NotFound));
    assert_eq!(node.send("bob", &first.session).await, Err(ErrorCode::NotFound));
    assert_ne!(joined(&node, &mut bob).await.unwrap().session, first.session);

    let nobody = Command::JoinPersona { agent: AgentId::new("nobody").unwrap() };
    let refused = node.execute(&mut visit, nobody, "chat:join").await;
    assert_eq!(refused, Err(Error::not_found("agent")));
}

fn page(limit: u32) -> tokencast::store::HistoryPage {
    tokencast::store::HistoryPage { limit, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_that_ask_for_it_at_once_meet_in_one_session() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(), cluster.node());
    for user in ["ada", "bob", "cyd", "dan"] {
        let (mut phone, phones) = a.connected(user).await;
        let (mut laptop, laptops) = b.connected(user).await;
        let (on_phone, on_laptop) = tokio::join!(joined(&a, &mut phone), joined(&b, &mut laptop));
        let session = on_phone.unwrap().session;
        assert_eq!(on_laptop.unwrap().session, session);
        a.send(user, &session).await.unwrap();
        for reader in [&phones, &laptops] {
            eventually("it is heard", || async { (messages(reader) == 1).then_some(()) }).await;
        }
    }
}

#[tokio::test]
async fn what_it_brings_is_not_shown_again_when_the_log_has_it() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(), cluster.node());
    let (mut visit, _) = a.connected("ada").await;
    let session = joined(&a, &mut visit).await.unwrap().session;
    a.adapter.stuck.store(true, Ordering::SeqCst);
    a.send("ada", &session).await.unwrap();
    let (mut other, others) = b.connected("ada").await;
    let brought = joined(&b, &mut other).await.unwrap().messages;
    assert_eq!(brought.len(), 1);
    // What is stored goes into the log in its order, whoever appends it.
    b.send("ada", &session).await.unwrap();
    eventually("the next is heard", || async { (messages(&others) > 0).then_some(()) }).await;
    let logged = b.adapter.read(&session, Position::default(), 9).await.unwrap().events;
    assert_eq!(logged.len(), 2);
    let shown: Vec<_> = others.shown().into_iter().map(|(_, body)| body["id"].clone()).collect();
    assert!(!shown.contains(&brought[0].id.to_string().into()), "{shown:?}");
}

#[tokio::test]
async fn it_counts_as_a_join_unless_the_user_is_there() {
    let cluster = Cluster::new().await;
    let node = cluster.node_with(|options| {
        options.rates.chosen.push((Action::ChatJoin, Rate::per_minute(1)));
        options.rejoin_window = Duration::ZERO;
    });
    let (mut phone, _) = node.connected("ada").await;
    joined(&node, &mut phone).await.unwrap();
    let (mut laptop, _) = node.connected("ada").await;
    joined(&node, &mut laptop).await.unwrap();
    joined(&node, &mut laptop).await.unwrap();
    let session = laptop.joined().next().unwrap().clone();
    for visit in [&mut phone, &mut laptop] {
        let leave = Command::Leave { session: session.clone() };
        node.execute(visit, leave, "chat:leave").await.unwrap();
    }
    let refused = joined(&node, &mut phone).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::RateLimit);
    assert_eq!(phone.joined().count(), 0);
}

#[tokio::test]
async fn whoever_says_who_they_are_is_believed_only_where_the_token_said_so() {
    let cluster = Cluster::new().await;
    let node = cluster.node_with(|options| {
        options.rates.chosen.push((Action::ChatAuth, Rate::per_minute(2)));
    });
    let (mut visit, _) = node.connected("ada").await;
    let mut identify = async |user: &str| {
        let command = Command::Identify { user: UserId::new(user).unwrap() };
        node.execute(&mut visit, command, "chat:auth").await.map_err(|error| error.code)
    };
    let identified = Reply::Identified { user: UserId::new("ada").unwrap() };
    assert_eq!(identify("ada").await, Ok(identified));
    assert_eq!(identify("bob").await, Err(ErrorCode::Auth));
    assert_eq!(identify("ada").await, Err(ErrorCode::RateLimit));
}
