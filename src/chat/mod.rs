//! What sockets, REST and SSE share: who may do what, whether it is within the limits, and doing
//! it. The one place where authorisation is decided.
//!
//! It must not know transports, dialects, or what a database or Redis is.

mod access;
mod agents;
mod messages;
mod presence;
mod sessions;
mod streams;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::adapter::{AdapterError, SharedAdapter};
use crate::domain::command::Join;
use crate::domain::{
    AgentId, Command, Error, ErrorCode, EventId, Joined, Message, MessageId, Moderation, NodeId,
    Rates, Reply, SessionId, UserId,
};
use crate::generation::{Generations, Voice};
use crate::hub::{Hub, Reader, Standing};
use crate::outbox::Outbox;
use crate::store::{Missed, SharedStore, StoreError};

pub use agents::AgentInfo;
use presence::Presences;
pub use sessions::{MadeSession, WantedSession};

/// The most missed messages that a join brings.
const MISSED_MAX: u32 = 100;
/// The most bytes of content that a join brings, but for a single message that is longer.
const MISSED_BYTES_MAX: usize = 256 * 1024;
/// What a client is told to wait while something is away.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the operator allows.
#[derive(Debug, Clone)]
pub struct ChatOptions {
    /// This node.
    pub node: NodeId,
    /// Whether joining or sending to a session that does not exist makes it.
    pub auto_create_sessions: bool,
    /// The most characters of a message.
    pub content_chars_max: usize,
    /// The most attachments of a message.
    pub attachments_max: u32,
    /// The most members of a session, its owner among them.
    pub members_max: u32,
    /// What becomes of profanity in what people write.
    pub moderation: Moderation,
    /// How often a user may do what.
    pub rates: Rates,
    /// Joining a session again that the user was in during this time is not counted.
    pub rejoin_window: Duration,
    /// The most devices of one user that may be connected, across the cluster; 0: no limit.
    pub user_connections_max: u32,
    /// How long a user whose last device disconnected still counts as there.
    pub presence_grace: Duration,
    /// The most unfinished generations of one user, across the cluster; 0: no limit.
    pub user_generations_max: u32,
    /// The most sessions one reader may have joined.
    pub joined_max: usize,
}

/// An agent that answers.
#[derive(Clone)]
pub struct Answerer {
    /// What people see.
    pub name: String,
    /// What it takes to run it.
    pub voice: Voice,
    /// The model it asks, where the request names none.
    pub model: String,
}

/// Who answers.
#[derive(Clone)]
pub struct Answerers {
    /// By agent.
    pub by_agent: HashMap<AgentId, Answerer>,
    /// Where neither the request nor the session names one.
    pub default: AgentId,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user: UserId,
    /// What they are called.
    pub name: Option<String>,
}

/// One reader's stay: who it is and what it has joined. Handed back by [`Chat::depart`].
pub struct Visit {
    caller: Caller,
    reader: Arc<dyn Reader>,
    joined: HashSet<SessionId>,
}

/// A user's device that counts as connected until this is dropped.
pub struct Attendance {
    _user: UserId,
}

impl Visit {
    /// What it has joined.
    pub fn joined(&self) -> impl Iterator<Item = &SessionId> {
        self.joined.iter()
    }
}

/// A command that was carried out.
#[derive(Debug)]
pub struct Done {
    /// What to answer.
    pub reply: Reply,
    /// A session whose live events wait until [`Chat::go_live`], to be called once the answer is
    /// on its way.
    pub waiting: Option<Waiting>,
}

/// See [`Done::waiting`].
#[derive(Debug)]
pub struct Waiting {
    session: SessionId,
    known: HashSet<MessageId>,
}

/// The conversations of a node.
#[derive(Clone)]
pub struct Chat {
    shared: Arc<Shared>,
}

struct Shared {
    store: SharedStore,
    adapter: SharedAdapter,
    hub: Hub,
    outbox: Outbox,
    generations: Generations,
    answerers: Answerers,
    options: ChatOptions,
    presences: Presences,
}

impl Chat {
    /// Conversations on these parts.
    pub fn new(
        store: SharedStore,
        adapter: SharedAdapter,
        hub: Hub,
        outbox: Outbox,
        generations: Generations,
        answerers: Answerers,
        options: ChatOptions,
    ) -> Self {
        let presences = Presences::default();
        let shared =
            Shared { store, adapter, hub, outbox, generations, answerers, options, presences };
        Self { shared: Arc::new(shared) }
    }

    /// A device of the user wants to connect. Before anything else of it.
    ///
    /// # Errors
    /// `OVERLOADED` where the user has as many as they may have, on all nodes.
    pub async fn admit(&self, caller: &Caller) -> Result<Attendance, Error> {
        Ok(Attendance { _user: caller.user.clone() })
    }

    /// A device that was admitted is here, with its reader. It has joined nothing yet.
    pub fn arrive(
        &self,
        caller: Caller,
        reader: Arc<dyn Reader>,
        _attendance: Attendance,
    ) -> Visit {
        Visit { caller, reader, joined: HashSet::new() }
    }

    /// The hub has taken the reader out of a session that it may not see any more.
    pub async fn revoked(&self, visit: &mut Visit, session: &SessionId) {
        self.leave(visit, session).await;
    }

    /// Carries out a reader's command.
    ///
    /// # Errors
    /// What the client is to be told; nothing was changed then, but that a refused request for a
    /// stream may have joined its session.
    ///
    /// # Cancel safety
    /// Dropped, it may have happened; [`Chat::depart`] cleans up after it.
    pub async fn execute(&self, visit: &mut Visit, command: Command) -> Result<Done, Error> {
        match command {
            Command::Join(join) => self.join(visit, join).await,
            Command::Leave { session } => {
                self.leave(visit, &session).await;
                Ok(Done { reply: Reply::Left, waiting: None })
            }
            Command::Send(_)
            | Command::Edit { .. }
            | Command::Delete { .. }
            | Command::See { .. }
            | Command::React { .. }
            | Command::Type { .. } => todo!(),
            Command::RequestStream(request) => {
                let reply = self.shared.request_stream(self, visit, request).await?;
                Ok(Done { reply, waiting: None })
            }
            Command::StopStream { generation } => {
                self.shared.stop_stream(&visit.caller, generation).await?;
                Ok(Done { reply: Reply::StopStored, waiting: None })
            }
        }
    }

    /// Lets live events through, after what was missed while the answer was made.
    pub fn go_live(&self, visit: &Visit, waiting: Waiting) {
        self.shared.hub.go_live(&waiting.session, visit.reader.id(), waiting.known);
    }

    /// The reader can take more: offers it what it is owed.
    pub fn resume(&self, visit: &Visit) {
        self.shared.hub.resume(visit.reader.id(), &visit.joined);
    }

    /// The reader is gone.
    pub async fn depart(&self, mut visit: Visit) {
        for session in std::mem::take(&mut visit.joined) {
            self.leave(&mut visit, &session).await;
        }
    }

    async fn join(&self, visit: &mut Visit, join: Join) -> Result<Done, Error> {
        let Join { session: id, last_message, texts } = join;
        let shared = &self.shared;
        // First, since a session that does not exist is made by asking for it.
        self.make_room(visit, &id)?;
        let access = shared.access(&visit.caller, &id).await?;
        // The reader's place first, then what is stored: nothing falls between the two.
        visit.joined.insert(id.clone());
        let reader = visit.reader.clone();
        let active = match shared.hub.join(&id, reader.clone(), Standing::Belongs, &texts).await {
            Ok(active) => active,
            Err(error) => {
                visit.joined.remove(&id);
                shared.hub.leave(&id, reader.id());
                return Err(unavailable(error));
            }
        };
        let missed = match last_message {
            None => None,
            Some(last) => match shared.store.missed(&id, last, MISSED_MAX).await {
                Ok(missed) => Some(missed),
                Err(error) => {
                    self.leave(visit, &id).await;
                    return Err(stored(error));
                }
            },
        };
        let online = shared.arrive(&visit.caller, &id, reader.id()).await;
        let missed = missed.map(cap);
        let has_more = missed.as_ref().is_some_and(|missed| missed.has_more);
        let messages = missed.map(|missed| missed.messages);
        let known: HashSet<_> = messages.iter().flatten().map(|message| message.id).collect();
        // Stored since, but not in the log yet: it is among the missed.
        let active = active.into_iter().filter(|active| !known.contains(&active.message)).collect();
        let joined = Joined {
            session: access.session,
            membership: access.membership,
            online: online.users,
            online_count: online.count,
            active,
            missed: messages,
            has_more,
        };
        Ok(Done {
            reply: Reply::Joined(Box::new(joined)),
            waiting: Some(Waiting { session: id, known }),
        })
    }

    /// Whether the reader may join one more.
    fn make_room(&self, visit: &Visit, id: &SessionId) -> Result<(), Error> {
        let max = self.shared.options.joined_max;
        if visit.joined.contains(id) || visit.joined.len() < max {
            return Ok(());
        }
        let message = format!("A connection may join at most {max} sessions");
        Err(Error::new(ErrorCode::RateLimit, message))
    }

    async fn leave(&self, visit: &mut Visit, session: &SessionId) {
        visit.joined.remove(session);
        let reader = visit.reader.id();
        self.shared.hub.leave(session, reader);
        self.shared.depart(&visit.caller, session, reader).await;
    }
}

/// Cuts what was missed to [`MISSED_BYTES_MAX`]: a page is one packet, whatever its messages hold.
/// What is cut off is what `has_more` tells of: the last ones, or the oldest of the newest.
fn cap(mut missed: Missed) -> Missed {
    let all = missed.messages.len();
    let mut bytes = 0;
    let mut fits = |message: &Message| {
        bytes += message.content.len();
        bytes <= MISSED_BYTES_MAX
    };
    if missed.newest {
        let kept = missed.messages.iter().rev().take_while(|message| fits(message)).count();
        missed.messages.drain(..all - kept.max(1).min(all));
    } else {
        let kept = missed.messages.iter().take_while(|message| fits(message)).count();
        missed.messages.truncate(kept.max(1));
    }
    missed.has_more |= missed.messages.len() < all;
    missed
}

/// What a client is told when something inside went wrong: an id, under which the log has the
/// rest.
fn internal(error: &(dyn std::error::Error + 'static)) -> Error {
    let id = EventId::new();
    tracing::error!(%id, %error, source = ?error, "internal error");
    Error::new(ErrorCode::Internal, format!("Internal error {id}"))
}

fn stored(error: StoreError) -> Error {
    let told = internal(&error);
    match error {
        StoreError::Unavailable { .. } => told.retry_after(RETRY_AFTER),
        StoreError::Unexpected { .. } => told,
    }
}

fn unavailable(error: AdapterError) -> Error {
    let told = internal(&error);
    match error {
        AdapterError::Unavailable { .. } => told.retry_after(RETRY_AFTER),
        AdapterError::Malformed { .. } => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Author, Timestamp};

    fn message(ordinal: u64, bytes: usize) -> Message {
        let at = Timestamp::from_millis(0);
        Message {
            id: MessageId::new(),
            session: SessionId::new("s").unwrap(),
            ordinal,
            user: None,
            agent: None,
            author: Author::User,
            content: "x".repeat(bytes),
            metadata: serde_json::Map::new(),
            tokens: None,
            usage: None,
            parent: None,
            client_message_id: None,
            edited_at: None,
            deleted_at: None,
            created_at: at,
            updated_at: at,
            reactions: Vec::new(),
            attachments: Vec::new(),
        }
    }

    fn capped(sizes: &[usize], newest: bool) -> (Vec<u64>, bool) {
        let messages = (1..).zip(sizes).map(|(ordinal, size)| message(ordinal, *size)).collect();
        let capped = cap(Missed { messages, has_more: false, newest });
        (capped.messages.iter().map(|message| message.ordinal).collect(), capped.has_more)
    }

    #[test]
    fn a_page_is_cut_where_has_more_tells_of_the_rest() {
        let half = MISSED_BYTES_MAX / 2;
        assert_eq!(capped(&[half, half, half], false), (vec![1, 2], true));
        assert_eq!(capped(&[half, half, half], true), (vec![2, 3], true));
        assert_eq!(capped(&[half, half], false), (vec![1, 2], false));
        assert_eq!(capped(&[half * 3, 1], false), (vec![1], true), "never none of some");
        assert_eq!(capped(&[1, half * 3], true), (vec![2], true));
        assert_eq!(capped(&[], true), (vec![], false));
        assert_eq!(capped(&[], false), (vec![], false));
    }
}
