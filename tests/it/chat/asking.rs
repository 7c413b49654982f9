//! Asking an agent, however it is put, and what it counts as.

use tokencast::chat::Visit;
use tokencast::domain::command::{Put, RequestStream};
use tokencast::domain::{
    Action, Command, Error, ErrorCode, GenerationConfig, GenerationId, Rate, Reply, SessionId,
    Status,
};

use super::{Cluster, Node, caller, messages};
use crate::support::eventually;

pub(super) const SHOWN: Put = Put::AsMessage { echo: true };
pub(super) const UNSHOWN: Put = Put::AsMessage { echo: false };

pub(super) fn request(session: &SessionId, put: Put) -> RequestStream {
    RequestStream {
        session: session.clone(),
        prompt: "why?".to_owned(),
        agent: None,
        config: GenerationConfig::default(),
        client_message_id: None,
        put,
    }
}

pub(super) fn generation(reply: &Reply) -> GenerationId {
    match reply {
        Reply::Requested { generation, .. } => *generation,
        other => panic!("{other:?}"),
    }
}

impl Node {
    async fn ask(
        &self,
        visit: &mut Visit,
        session: &SessionId,
        put: Put,
        event: &str,
    ) -> Result<Reply, Error> {
        self.execute(visit, Command::RequestStream(request(session, put)), event).await
    }

    /// A prompt that no reader asks.
    pub(super) async fn asked(&self, user: &str, session: &SessionId) -> GenerationId {
        let asked = self.chat.request(&caller(user), request(session, SHOWN)).await;
        generation(&asked.unwrap())
    }
}

/// Which limit refused it.
fn refused(asked: Result<Reply, Error>) -> Option<String> {
    let error = asked.err()?;
    assert_eq!(error.code, ErrorCode::RateLimit, "{error}");
    Some(error.message)
}

#[tokio::test]
async fn a_message_that_is_answered_counts_under_its_own_name_and_as_a_request() {
    let cluster = Cluster::new().await;
    let node = cluster.node_with(|options| {
        options.rates.chosen = vec![
            (Action::Request, Rate::per_minute(4)),
            (Action::ChatMessage, Rate::per_minute(1)),
            (Action::ChatSend, Rate::per_minute(0)),
            (Action::Send, Rate::per_minute(2)),
            (Action::Join, Rate::per_minute(0)),
        ];
    });
    let session = crate::hub::session();
    let (mut ada, _) = node.connected("ada").await;
    let mut ask = async |put, event| refused(node.ask(&mut ada, &session, put, event).await);
    let one_too_many = |name| Some(format!("Too many requests ({name})"));
    assert_eq!(ask(SHOWN, "chat:message").await, None);
    assert_eq!(ask(SHOWN, "chat:message").await, one_too_many("chat:message"));
    // Never as what the command is not, whatever its event is called.
    assert_eq!(ask(SHOWN, "read").await, None);
    let none = node.send("ada", &session).await;
    assert_eq!(none, Ok(()), "the second of two");
    assert_eq!(node.send("ada", &session).await, Err(ErrorCode::RateLimit));
    assert_eq!(ask(SHOWN, "message:send").await, one_too_many("message:send"));
    assert_eq!(ask(SHOWN, "chat:send").await, one_too_many("stream:request"));

    // A request is no message.
    let (mut bob, _) = node.connected("bob").await;
    let session = crate::hub::session();
    for _ in 0..4 {
        let asked = node.ask(&mut bob, &session, Put::AsRequest, "stream:request").await;
        assert_eq!(refused(asked), None);
    }
    assert_eq!(node.send("bob", &session).await, Ok(()));
    let asked = node.ask(&mut bob, &session, Put::AsRequest, "chat:message").await;
    assert_eq!(refused(asked), one_too_many("stream:request"));
}

#[tokio::test]
async fn each_name_for_joining_counts_by_itself() {
    let cluster = Cluster::new().await;
    let names = [Action::Join, Action::Subscribe, Action::ChatJoin];
    let node = cluster.node_with(|options| {
        options.rates.chosen = names.map(|action| (action, Rate::per_minute(1))).to_vec();
    });
    let (mut ada, _) = node.connected("ada").await;
    for action in names {
        for refused in [false, true] {
            let session = crate::hub::session();
            let join = super::Join { session, last_message: None, texts: Vec::new() };
            let joined = node.execute(&mut ada, Command::Join(join), action.name()).await;
            assert_eq!(joined.is_err(), refused, "{}", action.name());
        }
    }
}

#[tokio::test]
async fn what_was_put_as_a_message_is_refused_as_one() {
    let cluster = Cluster::new().await;
    let node = cluster.node();
    let session = crate::hub::session();
    let (mut ada, _) = node.connected("ada").await;
    for (put, field) in [(Put::AsRequest, "prompt"), (SHOWN, "content"), (UNSHOWN, "content")] {
        let long = RequestStream { prompt: "x".repeat(1_001), ..request(&session, put) };
        let says = Error::invalid(format!("{field} must have 1 to 1000 characters"));
        let refused = node.chat.request(&caller("ada"), long.clone()).await;
        assert_eq!(refused, Err(says.clone()));
        let refused = node.execute(&mut ada, Command::RequestStream(long), "chat:send").await;
        assert_eq!(refused, Err(says));
    }
    let made = cluster.store.access(&session, &caller("ada").user).await.unwrap();
    assert_eq!(made, None, "nothing was made for it");
    assert_eq!(ada.joined().count(), 0);
}

#[tokio::test]
async fn whoever_shows_it_by_itself_is_not_shown_its_own_message() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(), cluster.node());
    let session = a.open_session().await;
    let (_phone, phones) = a.joined("ada", &session).await;
    let (_tablet, tablets) = b.joined("ada", &session).await;
    let (_bob, bobs) = a.joined("bob", &session).await;
    let (mut ada, adas) = a.connected("ada").await;
    // Sending joins.
    let asked = a.ask(&mut ada, &session, UNSHOWN, "message:send").await.unwrap();
    a.say("because");
    a.end();
    for reader in [&phones, &tablets, &bobs, &adas] {
        let answered = || async { reader.is_complete(generation(&asked)).then_some(()) };
        eventually("the answer is heard", answered).await;
        assert_eq!(reader.text(generation(&asked)), "because");
    }
    assert_eq!([&phones, &tablets, &bobs, &adas].map(|reader| messages(reader)), [1, 1, 1, 0]);
    // What others send, and what it sends itself with echo.
    a.send("bob", &session).await.unwrap();
    a.ask(&mut ada, &session, SHOWN, "chat:send").await.unwrap();
    eventually("both are heard", || async { (messages(&adas) == 2).then_some(()) }).await;
}

#[tokio::test]
async fn a_prompt_is_answered_without_a_reader() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(), cluster.node());
    let session = a.open_session().await;
    let (_bob, bobs) = b.joined("bob", &session).await;
    let asked = a.asked("ada", &session).await;
    a.say("because");
    a.end();
    eventually("it is heard", || async { bobs.is_complete(asked).then_some(()) }).await;
    assert_eq!((messages(&bobs), bobs.text(asked)), (1, "because".to_owned()));
    let stored = cluster.store.generation(asked).await.unwrap().unwrap();
    assert_eq!(stored.status, Status::Completed);
    assert!(!bobs.names().contains(&"user:joined".to_owned()), "nobody joined");

    // As for readers: what may not be seen is not there, and what may be made is made.
    let foreign = crate::hub::session();
    b.send("bob", &foreign).await.unwrap();
    let refused = a.chat.request(&caller("ada"), request(&foreign, Put::AsRequest)).await;
    assert_eq!(refused, Err(Error::not_found("session")));
    let fresh = crate::hub::session();
    let asked = a.chat.request(&caller("ada"), request(&fresh, Put::AsRequest)).await.unwrap();
    let again = RequestStream {
        client_message_id: Some("1".to_owned()),
        ..request(&fresh, Put::AsRequest)
    };
    let first = a.chat.request(&caller("ada"), again.clone()).await.unwrap();
    assert_ne!(first, asked);
    assert_eq!(a.chat.request(&caller("ada"), again).await.unwrap(), first);
}
