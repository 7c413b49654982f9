//! What sockets, REST and SSE share, on a cluster of nodes with one database and one log in memory.

mod asking;
mod budget;
mod persona;
mod status;
mod watching;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::unfold;
use tempfile::TempDir;
use tokencast::adapter::{Absence, Memory, SharedAdapter, SharedMemory, Sinks};
use tokencast::chat::{
    Answerer, Answerers, Caller, Chat, ChatOptions, MadeSession, Parts, Visit, WantedSession,
};
use tokencast::dialect::Dialects;
use tokencast::domain::command::{Join, SendMessage};
use tokencast::domain::{
    Action, AgentId, Command, Error, ErrorCode, Moderation, NodeId, OnTakeover, Rate, Rates, Reply,
    Role, SessionChange, SessionId, StopReason, UserId, Visibility,
};
use tokencast::generation::{GenerationOptions, Generations, Solo, Voice, Voices};
use tokencast::hub::{Hub, HubOptions};
use tokencast::lifecycle::Tasks;
use tokencast::llm::{Delta, Deltas, Provider, ProviderError, Request};
use tokencast::outbox::Outbox;
use tokencast::store::{SharedStore, StoreOptions, connect};
use tokio::sync::mpsc;

use crate::hub::reader::{Random, TestReader};
use crate::support::eventually;
use crate::support::faulty::Faulty;

/// A model that says what the test dictates, one answer after the other.
struct Dictated(Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Delta>>>);

#[async_trait]
impl Provider for Dictated {
    fn id(&self) -> &'static str {
        "dictated"
    }

    async fn stream(&self, _request: &Request) -> Result<Deltas, ProviderError> {
        let deltas = unfold(Some(self.0.clone()), |dictation| async move {
            let dictation = dictation?;
            let delta = dictation.lock().await.recv().await?;
            let goes_on = !matches!(delta, Delta::Done(_));
            Some((Ok(delta), goes_on.then_some(dictation)))
        });
        Ok(deltas.boxed())
    }
}

struct Cluster {
    store: SharedStore,
    log: SharedMemory,
    /// How many events each log keeps.
    events_max: usize,
    _folder: Option<TempDir>,
}

struct Node {
    chat: Chat,
    /// What its agent says.
    says: mpsc::UnboundedSender<Delta>,
    adapter: Arc<Faulty>,
    absences: mpsc::Sender<Absence>,
    tasks: Tasks,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

impl Cluster {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("tokencast.db").display());
        let store = connect(&url, &StoreOptions::default()).await.unwrap();
        Self { store, log: SharedMemory::default(), events_max: 512, _folder: Some(folder) }
    }

    /// The same conversations after their log was lost.
    fn without_log(&self) -> Self {
        let store = self.store.clone();
        Self { store, log: SharedMemory::default(), events_max: 512, _folder: None }
    }

    fn node(&self) -> Node {
        self.node_with(|_| {})
    }

    fn node_with(&self, choose: impl FnOnce(&mut ChatOptions)) -> Node {
        self.node_that(None, choose)
    }

    /// A node whose agent answers with at most so many tokens.
    fn node_of(&self, max_tokens: Option<u32>) -> Node {
        self.node_that(max_tokens, |_| {})
    }

    fn node_that(&self, max_tokens: Option<u32>, choose: impl FnOnce(&mut ChatOptions)) -> Node {
        let (node, tasks) = (NodeId::new(), Tasks::new());
        let mut chat_options = options_of(node);
        choose(&mut chat_options);
        let minute = Duration::from_secs(60);
        let memory = Memory::new(node, self.events_max, minute, self.log.clone());
        let faulty = Faulty::around(Arc::new(memory), &Default::default());
        let adapter: SharedAdapter = faulty.clone();
        let hub =
            Hub::new(adapter.clone(), Dialects::new(false), HubOptions::default(), tasks.clone());
        let (notify, notices) = mpsc::channel(16);
        let (absences, absent) = mpsc::channel(16);
        adapter.attach(Sinks { feed: hub.feed(), notices: notify, absences: absences.clone() });
        let outbox = Outbox::start(self.store.clone(), adapter.clone(), &tasks);
        let options = GenerationOptions {
            node,
            address: String::new(),
            role: Role::All,
            shares_log: true,
            running_max: 8,
            duration_max: Duration::from_secs(60),
            delay: Duration::ZERO,
            delay_max: Duration::ZERO,
            context_messages: 10,
            text_bytes_max: 1024,
            budget: chat_options.budget,
        };
        let (says, dictation) = mpsc::unbounded_channel();
        let helper = AgentId::new("helper").unwrap();
        let voice = Voice::Solo(Solo {
            provider: Arc::new(Dictated(Arc::new(tokio::sync::Mutex::new(dictation)))),
            model: "m".to_owned(),
            system: None,
            temperature: None,
            max_tokens,
            timeout: Duration::from_secs(60),
            on_takeover: OnTakeover::Continue,
            fallback: None,
        });
        let voices = Voices::new(HashMap::from([(helper.clone(), voice)]));
        let generations = Generations::start(
            self.store.clone(),
            adapter.clone(),
            outbox.clone(),
            voices,
            options,
            notices,
            &tasks,
        );
        let answerer = Answerer {
            name: "Helper".to_owned(),
            provider: "dictated".to_owned(),
            model: "m".to_owned(),
        };
        let by_agent = HashMap::from([(helper.clone(), answerer)]);
        let answerers = Answerers { by_agent, default: helper };
        let store = self.store.clone();
        let parts = Parts { store, adapter, hub, outbox, generations, answerers };
        let chat = Chat::new(parts, chat_options, absent, &tasks);
        Node { chat, says, adapter: faulty, absences, tasks }
    }
}

fn options_of(node: NodeId) -> ChatOptions {
    ChatOptions {
        node,
        auto_create_sessions: true,
        content_chars_max: 1_000,
        attachments_max: 10,
        page_max: 200,
        search_chars_max: 1_000,
        members_max: 10,
        moderation: Moderation::Off,
        rates: Rates {
            others: Rate::per_minute(0),
            chosen: vec![(Action::Join, Rate::per_minute(0)), (Action::Send, Rate::per_minute(0))],
        },
        rejoin_window: Duration::from_secs(60),
        user_connections_max: 0,
        presence_grace: Duration::from_millis(10),
        user_generations_max: 0,
        budget: None,
        joined_max: 100,
    }
}

fn caller(user: &str) -> Caller {
    Caller { user: UserId::new(user).unwrap(), name: None }
}

impl Node {
    /// A device of the user.
    async fn connected(&self, user: &str) -> (Visit, Arc<TestReader>) {
        let attendance = self.chat.admit(&caller(user)).await.unwrap();
        let dialect = Dialects::new(false).by_name("session").unwrap();
        let reader = TestReader::of(user, dialect);
        (self.chat.arrive(caller(user), reader.clone(), attendance), reader)
    }

    /// A device of the user, which has joined.
    async fn joined(&self, user: &str, session: &SessionId) -> (Visit, Arc<TestReader>) {
        let (mut visit, reader) = self.connected(user).await;
        self.join(&mut visit, session).await.unwrap();
        (visit, reader)
    }

    /// Carries out a command, and goes live where it joins.
    async fn execute(
        &self,
        visit: &mut Visit,
        command: Command,
        event: &str,
    ) -> Result<Reply, Error> {
        let done = self.chat.execute(visit, command, event).await?;
        if let Some(waiting) = done.waiting {
            self.chat.go_live(visit, waiting);
        }
        Ok(done.reply)
    }

    fn say(&self, text: &str) {
        self.says.send(Delta::Text(text.to_owned())).unwrap();
    }

    fn end(&self) {
        self.says.send(Delta::Done(StopReason::EndTurn)).unwrap();
    }

    async fn join(&self, visit: &mut Visit, session: &SessionId) -> Result<(), ErrorCode> {
        let join = Join { session: session.clone(), last_message: None, texts: Vec::new() };
        let done = self.chat.execute(visit, Command::Join(join), "session:join").await;
        let done = done.map_err(|error| error.code)?;
        self.chat.go_live(visit, done.waiting.unwrap());
        Ok(())
    }

    async fn send(&self, user: &str, session: &SessionId) -> Result<(), ErrorCode> {
        let new = SendMessage {
            session: session.clone(),
            content: "hi".to_owned(),
            parent: None,
            attachments: Vec::new(),
            client_message_id: None,
        };
        self.chat.send(&caller(user), new).await.map(drop).map_err(|error| error.code)
    }

    /// An open session of ada's.
    async fn open_session(&self) -> SessionId {
        let wanted = WantedSession { visibility: Some(Visibility::Open), ..Default::default() };
        match self.chat.create_session(&caller("ada"), wanted).await.unwrap() {
            MadeSession::New(access) => access.session.id,
            other => panic!("{other:?}"),
        }
    }

    async fn set(&self, session: &SessionId, visibility: Visibility) {
        let change = SessionChange { visibility: Some(visibility), ..Default::default() };
        self.chat.update_session(&caller("ada"), session, change).await.unwrap();
    }
}

async fn is_told(reader: &TestReader) {
    eventually("it is told", || async { (!reader.revoked().is_empty()).then_some(()) }).await;
}

fn messages(reader: &TestReader) -> usize {
    reader.names().iter().filter(|name| *name == "message:new").count()
}

#[tokio::test]
async fn a_guest_who_was_made_a_member_stays_when_a_session_is_closed() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(), cluster.node());
    let session = a.open_session().await;
    let (bob, bobs) = b.joined("bob", &session).await;
    let (mut eve, eves) = b.joined("eve", &session).await;
    a.chat.add_member(&caller("ada"), &session, UserId::new("bob").unwrap()).await.unwrap();
    a.set(&session, Visibility::Private).await;
    is_told(&bobs).await;
    is_told(&eves).await;
    a.send("ada", &session).await.unwrap();
    // Who may come again as a guest does not belong.
    a.set(&session, Visibility::Open).await;
    assert!(b.chat.stays(&bob, &session).await);
    assert!(!b.chat.stays(&eve, &session).await);
    b.chat.revoked(&mut eve, &session).await;
    a.set(&session, Visibility::Private).await;
    a.send("ada", &session).await.unwrap();
    eventually("bob heard both", || async { (messages(&bobs) == 2).then_some(()) }).await;
    assert_eq!(messages(&eves), 0);
    assert_eq!(b.send("bob", &session).await, Ok(()));
    assert_eq!(b.send("eve", &session).await, Err(ErrorCode::NotFound));
    assert_eq!((bob.joined().count(), eve.joined().count()), (1, 0));
    // He is no guest any more: his membership ends as any other.
    let user = UserId::new("bob").unwrap();
    a.chat.remove_member(&caller("ada"), &session, &user).await.unwrap();
    eventually("told again", || async { (bobs.revoked().len() == 2).then_some(()) }).await;
    assert!(!b.chat.stays(&bob, &session).await);
    let heard = messages(&bobs);
    a.send("ada", &session).await.unwrap();
    assert_eq!(messages(&bobs), heard);
}

/// Whichever comes first: a join that is refused, or a reader that is told to go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_joins_while_their_membership_ends_hears_nothing_afterwards() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(), cluster.node());
    let mut random = Random(7);
    for _ in 0..60 {
        let session = crate::hub::session();
        let (_ada, adas) = b.joined("ada", &session).await;
        let user = UserId::new("bob").unwrap();
        a.chat.add_member(&caller("ada"), &session, user.clone()).await.unwrap();
        let (mut bob, bobs) = b.connected("bob").await;
        let wait = Duration::from_micros(random.below(2_000) as u64);
        let joining = async {
            let begun = Instant::now();
            while begun.elapsed() < wait {
                tokio::task::yield_now().await;
            }
            b.join(&mut bob, &session).await
        };
        let owner = caller("ada");
        let removing = a.chat.remove_member(&owner, &session, &user);
        let (joined, removed) = tokio::join!(joining, removing);
        removed.unwrap();
        a.send("ada", &session).await.unwrap();
        eventually("ada hears it", || async { (messages(&adas) == 1).then_some(()) }).await;
        assert_eq!(messages(&bobs), 0);
        match joined {
            Ok(()) => assert_eq!(bobs.revoked(), std::slice::from_ref(&session)),
            Err(error) => assert_eq!(error, ErrorCode::NotFound),
        }
    }
}

fn presence(reader: &TestReader) -> Vec<String> {
    let shown = reader.shown().into_iter().filter(|(name, _)| name == "presence:update");
    shown.map(|(_, change)| change["status"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn whoever_comes_back_while_their_going_is_told_is_shown_as_online_in_the_end() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(), cluster.node());
    let session = a.open_session().await;
    a.chat.add_member(&caller("ada"), &session, UserId::new("bob").unwrap()).await.unwrap();
    let (_visit, adas) = a.joined("ada", &session).await;
    let phone = b.chat.admit(&caller("bob")).await.unwrap();
    eventually("bob came", || async { (presence(&adas).len() == 1).then_some(()) }).await;
    b.adapter.holds_news.store(true, Ordering::SeqCst);
    drop(phone);
    let held = || b.adapter.news_held.load(Ordering::SeqCst);
    eventually("it is about to be told", || async { (held() == 1).then_some(()) }).await;
    let _laptop = a.chat.admit(&caller("bob")).await.unwrap();
    eventually("bob came back", || async { (presence(&adas).len() == 2).then_some(()) }).await;
    b.adapter.holds_news.store(false, Ordering::SeqCst);
    let all = ["online", "online", "offline", "online"];
    eventually("it ends well", || async { (presence(&adas) == all).then_some(()) }).await;
}

/// A dead node's users are many, and all have to be told of within seconds.
#[tokio::test]
async fn the_users_of_a_dead_node_are_not_told_of_one_by_one() {
    let cluster = Cluster::new().await;
    let node = cluster.node();
    let users: Vec<_> = (0..8).map(|n| format!("user{n}")).collect();
    for user in &users {
        // Who shares no session with anybody is not told of.
        node.send(user, &crate::hub::session()).await.unwrap();
    }
    node.adapter.holds_news.store(true, Ordering::SeqCst);
    for user in &users {
        let user = UserId::new(user).unwrap();
        node.absences.send(Absence::Offline { user }).await.unwrap();
    }
    let held = || node.adapter.news_held.load(Ordering::SeqCst);
    eventually("all are told of", || async { (held() == users.len()).then_some(()) }).await;
}
