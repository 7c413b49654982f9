//! What sockets, REST and SSE share: who may do what, whether it is within the limits, and doing
//! it. The one place where authorisation is decided.
//!
//! It must not know transports, dialects, or what a database or Redis is.

mod access;
mod agents;
mod devices;
mod failure;
mod limits;
mod messages;
mod missed;
mod moderation;
mod persona;
mod presence;
mod recover;
mod rooms;
#[cfg(test)]
mod samples;
mod sessions;
mod status;
mod streams;
mod turns;
mod watch;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::adapter::{Absence, SharedAdapter};
use crate::domain::{
    AgentId, Budget, Command, Cursor, Error, Moderation, NodeId, Rates, Reply, SessionId,
    Timestamp, UserId,
};
use crate::generation::Generations;
use crate::hub::{FromStore, Hub, Reader, Standing};
use crate::lifecycle::Tasks;
use crate::outbox::{Delivered, Outbox};
use crate::store::{Outgoing, SharedStore};

use access::{identify, standing};
pub use agents::AgentInfo;
use devices::Devices;
use limits::counted_as;
pub use missed::Wants;
pub use presence::Attendance;
pub use recover::Owed;
pub use sessions::{MadeSession, WantedSession};
pub use status::{StreamMetrics, StreamStatus};
use turns::Turns;

/// How long whoever stored something waits for others to be told; then it is told later.
const PUBLISH_WITHIN: Duration = Duration::from_secs(1);

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
    /// The most that a page of anything holds.
    pub page_max: u32,
    /// The most characters of what is searched for.
    pub search_chars_max: usize,
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
    /// How many tokens the answers to one user may take, across the cluster; `None`: no limit.
    pub budget: Option<Budget>,
    /// The most sessions one reader may have joined.
    pub joined_max: usize,
}

/// An agent that answers.
#[derive(Clone)]
pub struct Answerer {
    /// What people see.
    pub name: String,
    /// The provider of whoever is heard, by its id in the agents file.
    pub provider: String,
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
    /// Where it said that it types, and not yet that it stopped; as many as it may join.
    typing: HashSet<SessionId>,
    /// Where it went on after a reconnect: up to which ordinal it had the messages.
    recovered: HashMap<SessionId, u64>,
    _attendance: Attendance,
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
    from_store: FromStore,
    at: Cursor,
}

impl Waiting {
    /// Where the reader stands as long as it is given nothing more.
    pub fn at(&self) -> &Cursor {
        &self.at
    }
}

/// What conversations are made of.
#[derive(Clone)]
pub struct Parts {
    /// What is kept.
    pub store: SharedStore,
    /// What nodes share.
    pub adapter: SharedAdapter,
    /// This node's readers.
    pub hub: Hub,
    /// Where what was stored goes out.
    pub outbox: Outbox,
    /// This node's generations.
    pub generations: Generations,
    /// Who answers.
    pub answerers: Answerers,
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
    devices: Devices,
    turns: Turns,
    tasks: Tasks,
}

impl Chat {
    /// The most that a page of anything holds.
    pub fn page_max(&self) -> u32 {
        self.shared.options.page_max
    }

    /// The most characters of what is searched for.
    pub fn search_chars_max(&self) -> usize {
        self.shared.options.search_chars_max
    }

    /// Conversations on these parts. `absences` is what the adapter tells of users whose nodes are
    /// gone.
    pub fn new(
        parts: Parts,
        options: ChatOptions,
        absences: mpsc::Receiver<Absence>,
        tasks: &Tasks,
    ) -> Self {
        let Parts { store, adapter, hub, outbox, generations, answerers } = parts;
        if options.moderation != Moderation::Off {
            tasks.spawn(moderation::prepare());
        }
        let shared = Arc::new(Shared {
            store,
            adapter,
            hub,
            outbox,
            generations,
            answerers,
            options,
            devices: Devices::default(),
            turns: Turns::default(),
            tasks: tasks.clone(),
        });
        let (stop, own) = (tasks.stopping().clone(), shared.clone());
        tasks.spawn(async move {
            stop.run_until_cancelled(own.tell_absences(absences)).await;
        });
        Self { shared }
    }

    /// A device of the user wants to connect. Before anything else of it.
    ///
    /// # Errors
    /// `OVERLOADED` where the user has as many as they may have, on all nodes.
    ///
    /// # Cancel safety
    /// Dropped, the device does not count.
    pub async fn admit(&self, caller: &Caller) -> Result<Attendance, Error> {
        self.shared.admit(&caller.user).await
    }

    /// A device that was admitted is here, with its reader. It has joined nothing yet.
    pub fn arrive(&self, caller: Caller, reader: Arc<dyn Reader>, attendance: Attendance) -> Visit {
        self.shared.hub.arrive(reader.clone());
        let (joined, typing, recovered) = (HashSet::new(), HashSet::new(), HashMap::new());
        Visit { caller, reader, joined, typing, recovered, _attendance: attendance }
    }

    /// The hub says that the reader may not see a session any more. `true`: it may after all, since
    /// its user has become a member there meanwhile, and goes on.
    pub async fn stays(&self, visit: &Visit, session: &SessionId) -> bool {
        let (shared, reader) = (&self.shared, visit.reader.id());
        if !shared.hub.is_suspended(session, reader) {
            return false;
        }
        let found = shared.see(&visit.caller, session).await;
        let belongs = found.is_ok_and(|access| standing(&access) == Standing::Belongs);
        belongs && shared.hub.keep(session, reader)
    }

    /// The reader may not see a session any more.
    pub async fn revoked(&self, visit: &mut Visit, session: &SessionId) {
        self.leave(visit, session).await;
    }

    /// Carries out a reader's command. `event` is what the client called it: the limits count each
    /// name by itself.
    ///
    /// # Errors
    /// What the client is to be told; nothing was changed then, but that a refused request for a
    /// stream may have joined its session, and a refused join made the caller's own with an agent.
    ///
    /// # Cancel safety
    /// Dropped, it may have happened; [`Chat::depart`] cleans up after it.
    pub async fn execute(
        &self,
        visit: &mut Visit,
        command: Command,
        event: &str,
    ) -> Result<Done, Error> {
        let caller = &visit.caller;
        let action = counted_as(&command, event);
        let reply = match command {
            Command::Identify { user } => {
                self.shared.count(caller, action).await?;
                identify(caller, &user)?
            }
            Command::Join(join) => {
                self.count_join(visit, &join.session, action).await?;
                return self.join(visit, join).await;
            }
            Command::JoinPersona { agent } => {
                return self.join_persona(visit, agent, action).await;
            }
            Command::Leave { session } => {
                self.leave(visit, &session).await;
                Reply::Left { session }
            }
            Command::Send(new) => {
                let session = new.session.clone();
                let message = self.send_as(caller, new, action).await?;
                let delivered_at = Timestamp::now();
                let recipients = self.shared.others_online(caller, &session).await;
                Reply::Sent { message, delivered_at, recipients }
            }
            Command::Edit { message, content } => {
                Reply::Edited { message: self.edit(caller, message, content).await? }
            }
            Command::Delete { message } => {
                self.delete(caller, message).await?;
                Reply::Deleted
            }
            Command::See { session, message } => {
                self.see(caller, &session, message).await?;
                Reply::Seen
            }
            Command::React { message, emoji } => {
                let (added, _) = self.react(caller, message, emoji).await?;
                Reply::Reacted { added }
            }
            Command::Type { session, name, active } => {
                self.relay_typing(visit, &session, name, active, action).await?;
                Reply::Typed
            }
            Command::RequestStream(request) => {
                self.shared.request_stream(self, visit, request, action).await?
            }
            Command::StopStream { generation } => {
                self.shared.stop_stream(caller, generation).await?;
                Reply::StopStored
            }
        };
        Ok(Done { reply, waiting: None })
    }

    /// Lets live events through, after what was missed while the answer was made.
    pub fn go_live(&self, visit: &Visit, waiting: Waiting) {
        self.shared.hub.go_live(&waiting.session, visit.reader.id(), waiting.from_store);
    }

    /// The reader can take more: offers it what it is owed.
    pub fn resume(&self, visit: &Visit) {
        self.shared.hub.resume(visit.reader.id(), &visit.joined);
    }

    /// The reader is gone. Its user leaves what it has joined, unless another of their devices is
    /// there or comes within the grace.
    pub async fn depart(&self, mut visit: Visit) {
        let reader = visit.reader.id();
        let joined = std::mem::take(&mut visit.joined);
        for session in &joined {
            self.shared.hub.leave(session, reader);
        }
        self.shared.hub.depart(reader);
        self.shared.linger(&visit.caller, joined, reader);
    }
}

impl Shared {
    /// Tells the readers of a session what the store has. Where that does not succeed at once, the
    /// outbox still has it: what is stored is told.
    async fn publish(&self, outgoing: &Outgoing) {
        if self.outbox.deliver_or_show(outgoing, PUBLISH_WITHIN).await == Delivered::HereOnly {
            tracing::debug!(session = %outgoing.session, "told to this node's readers only");
        }
    }
}
