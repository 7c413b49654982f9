//! A database of a test's own, and prompts and answers to put into it.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection};
use tempfile::TempDir;
use tokencast::domain::{
    AgentId, Generation, GenerationConfig, Message, MessageId, NewAttachment, NodeId, Outcome,
    Role, SessionId, StopReason, Usage, UserId, Visibility,
};
use tokencast::store::{
    Accepted, Finish, Finished, Heartbeat, NewGeneration, NewMessage, NewSession, Outgoing, Sent,
    SharedStore, StoreOptions, connect,
};
use uuid::Uuid;

/// An empty database.
pub(super) struct Database {
    pub(super) url: String,
    place: Place,
}

enum Place {
    Folder { _kept: TempDir },
    Schema { server: String, name: String },
}

/// A lock, until it is released.
pub(super) enum Held {
    Folder(sqlx::SqliteConnection),
    Schema(sqlx::PgConnection),
}

impl Held {
    pub(super) async fn release(self) {
        match self {
            Self::Folder(connection) => connection.close().await.unwrap(),
            Self::Schema(connection) => connection.close().await.unwrap(),
        }
    }
}

impl Database {
    /// A file, in a folder that has yet to be made.
    pub(super) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("made/when needed/tokencast.db");
        Self { url: format!("sqlite://{}", file.display()), place: Place::Folder { _kept: folder } }
    }

    /// A schema.
    pub(super) async fn postgres() -> Self {
        let server = std::env::var("TEST_DATABASE_URL")
            .expect("TEST_DATABASE_URL names no PostgreSQL to test with: run through `make test`");
        let name = format!("store_{}", Uuid::now_v7().simple());
        let mut connection = sqlx::PgConnection::connect(&server).await.unwrap();
        let make = AssertSqlSafe(format!("CREATE SCHEMA {name}"));
        sqlx::raw_sql(make).execute(&mut connection).await.unwrap();
        let separator = if server.contains('?') { '&' } else { '?' };
        let url = format!("{server}{separator}options[search_path]={name}");
        Self { url, place: Place::Schema { server, name } }
    }

    /// Removes what a drop cannot.
    pub(super) async fn discard(self) {
        if let Place::Schema { server, name } = self.place {
            let mut connection = sqlx::PgConnection::connect(&server).await.unwrap();
            let drop = AssertSqlSafe(format!("DROP SCHEMA {name} CASCADE"));
            sqlx::raw_sql(drop).execute(&mut connection).await.unwrap();
        }
    }

    /// A node's store.
    pub(super) async fn open(&self) -> SharedStore {
        let options = StoreOptions {
            connections_max: 5,
            // Two cores, and all tests at once.
            acquire_timeout: Duration::from_secs(20),
            statement_timeout: Duration::from_secs(20),
        };
        connect(&self.url, &options).await.unwrap()
    }

    /// Runs statements that the store has no method for.
    pub(super) async fn execute(&self, statements: &str) {
        let statements = AssertSqlSafe(statements.to_owned());
        match self.place {
            Place::Folder { .. } => {
                let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
                sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
            Place::Schema { .. } => {
                let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
                sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// Takes a session's lock, as another node's transaction would.
    pub(super) async fn lock_session(&self, id: &str) -> Held {
        match self.place {
            Place::Folder { .. } => {
                let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
                sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.unwrap();
                Held::Folder(connection)
            }
            Place::Schema { .. } => {
                let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
                let lock = format!("BEGIN; SELECT 1 FROM session WHERE id = '{id}' FOR UPDATE");
                sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut connection).await.unwrap();
                Held::Schema(connection)
            }
        }
    }

    /// Stores a session's only message `times` more, and makes the copies found as it is.
    pub(super) async fn copy_message(&self, id: Uuid, times: u32) {
        let new_id = match self.place {
            Place::Folder { .. } => "randomblob(16)",
            Place::Schema { .. } => "gen_random_uuid()",
        };
        let id = self.id(id);
        self.execute(&format!(
            "WITH RECURSIVE copy (place) AS \
             (SELECT 2 UNION ALL SELECT place + 1 FROM copy WHERE place <= {times}) \
             INSERT INTO message (id, session_id, ordinal, user_id, role, content, \
             parent_message_id, created_at, updated_at) \
             SELECT {new_id}, session_id, place, user_id, role, content, parent_message_id, \
             created_at, updated_at FROM copy, message WHERE message.id = {id} ORDER BY place; \
             INSERT INTO message_search (message_id, words) \
             SELECT message.id, words FROM message, message_search \
             WHERE message_search.message_id = {id} AND message.id <> {id} ORDER BY ordinal; \
             UPDATE session SET last_ordinal = {times} + 1 \
             WHERE id = (SELECT session_id FROM message WHERE id = {id})",
        ))
        .await;
    }

    /// The number that a statement answers.
    pub(super) async fn number(&self, statement: &str) -> i64 {
        let statement = AssertSqlSafe(statement.to_owned());
        match self.place {
            Place::Folder { .. } => {
                let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
                sqlx::query_scalar(statement).fetch_one(&mut connection).await.unwrap()
            }
            Place::Schema { .. } => {
                let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
                sqlx::query_scalar(statement).fetch_one(&mut connection).await.unwrap()
            }
        }
    }

    /// An id as a statement writes it.
    pub(super) fn id(&self, id: Uuid) -> String {
        match self.place {
            Place::Folder { .. } => format!("x'{}'", id.simple()),
            Place::Schema { .. } => format!("'{id}'"),
        }
    }

    /// A moment that lies `seconds` back by the database's clock, as a statement writes it.
    pub(super) fn ago(&self, seconds: u32) -> String {
        match self.place {
            Place::Folder { .. } => format!("(unixepoch() - {seconds}) * 1000"),
            Place::Schema { .. } => format!("clock_timestamp() - interval '{seconds} seconds'"),
        }
    }

    /// A moment as a statement writes it.
    pub(super) fn at(&self, seconds: u32) -> String {
        match self.place {
            Place::Folder { .. } => format!("{seconds}000"),
            Place::Schema { .. } => format!("to_timestamp({seconds})"),
        }
    }
}

pub(super) fn session(id: &str) -> SessionId {
    SessionId::new(id).unwrap()
}

pub(super) fn user(id: &str) -> UserId {
    UserId::new(id).unwrap()
}

pub(super) fn new_session(id: &str, owner: &str) -> NewSession {
    NewSession {
        id: session(id),
        owner: user(owner),
        title: Some("Über 😀".to_owned()),
        agent: Some(AgentId::new("helper").unwrap()),
        visibility: Visibility::Private,
    }
}

/// A store that has `sessions`, all of ada's.
pub(super) async fn with_sessions(database: &Database, sessions: &[&str]) -> SharedStore {
    let store = database.open().await;
    for id in sessions {
        assert!(store.create_session(&new_session(id, "ada")).await.unwrap().created);
    }
    store
}

/// Ada's prompt, without a client's id and a limit.
pub(super) fn prompt(session_id: &str, text: &str) -> NewGeneration {
    NewGeneration {
        session: session(session_id),
        user: user("ada"),
        prompt_id: MessageId::new(),
        prompt: text.to_owned(),
        client_message_id: None,
        agent: AgentId::new("helper").unwrap(),
        provider: "scripted".to_owned(),
        model: "parrot-1".to_owned(),
        config: GenerationConfig {
            temperature: Some(0.25),
            max_tokens: Some(7),
            model: Some("parrot-2".to_owned()),
        },
        owner: NodeId::new(),
        begun: false,
        user_generations_max: 0,
    }
}

pub(super) async fn accepted(
    store: &SharedStore,
    new: &NewGeneration,
) -> (Generation, Message, Vec<Outgoing>) {
    match store.accept(new).await.unwrap() {
        Accepted::New { generation, prompt, outgoing } => (generation, prompt, outgoing),
        other => panic!("expected a new generation, got {other:?}"),
    }
}

/// Stores a prompt that says `text`.
pub(super) async fn said(store: &SharedStore, session_id: &str, text: &str) -> Message {
    accepted(store, &prompt(session_id, text)).await.1
}

/// Ada's message, which is no prompt.
pub(super) fn note(session_id: &str, text: &str) -> NewMessage {
    NewMessage {
        session: session(session_id),
        user: user("ada"),
        content: text.to_owned(),
        parent: None,
        attachments: Vec::new(),
        client_message_id: None,
    }
}

pub(super) fn file(name: &str) -> NewAttachment {
    NewAttachment {
        file_name: name.to_owned(),
        file_url: format!("https://example.org/{name}"),
        mime_type: "image/png".to_owned(),
        file_size: 5_000_000_000,
        metadata: serde_json::json!({"w": [2, {"h": null}]}).as_object().unwrap().clone(),
    }
}

pub(super) async fn sent(store: &SharedStore, new: &NewMessage) -> (Message, Outgoing) {
    match store.send(new).await.unwrap() {
        Sent::New { message, outgoing } => (message, outgoing),
        other => panic!("expected a new message, got {other:?}"),
    }
}

/// The end of a generation that its owner would store.
pub(super) fn completed(generation: &Generation) -> Finish {
    Finish {
        generation: generation.id,
        owner: generation.owner,
        attempt: generation.attempt,
        content: "the answer".to_owned(),
        outcome: Outcome::Completed { reason: StopReason::EndTurn },
        usage: Usage { input_tokens: 3, output_tokens: 5, cached_tokens: 0 },
        errors: 0,
        answered_by: None,
        tokens: 4,
        first_token_at: None,
        metadata: serde_json::Map::new(),
    }
}

pub(super) async fn finished(store: &SharedStore, finish: &Finish) -> (Message, Outgoing) {
    match store.finish(finish).await.unwrap() {
        Finished::Stored { message, outgoing } => (message, outgoing),
        other => panic!("expected a stored answer, got {other:?}"),
    }
}

/// All of a session's messages.
pub(super) async fn messages(store: &SharedStore, session_id: &str) -> Vec<Message> {
    let none = MessageId::new();
    let page = store.missed(&session(session_id), none, 10_000).await.unwrap();
    assert!(!page.has_more);
    page.messages
}

/// The message as it is stored.
pub(super) async fn stored(store: &SharedStore, id: MessageId) -> Message {
    store.message(id, &user("ada")).await.unwrap().unwrap().message
}

/// The revisions of the outbox are dense, in the order in which it was stored: how many.
pub(super) async fn revisions(store: &SharedStore) -> u64 {
    let revisions: Vec<u64> = outbox(store).await.iter().map(|row| row.revision).collect();
    let count = revisions.len() as u64;
    assert_eq!(revisions, (1..=count).collect::<Vec<u64>>());
    count
}

pub(super) async fn outbox(store: &SharedStore) -> Vec<Outgoing> {
    store.outbox(Duration::ZERO, None, 10_000).await.unwrap().rows
}

/// A heartbeat of a node that does everything.
pub fn beat(node: NodeId, address: &str, redis_up: bool) -> Heartbeat {
    Heartbeat {
        node,
        address: address.to_owned(),
        role: Role::All,
        redis_up,
        running: 0,
        running_max: 10,
        draining: false,
    }
}
