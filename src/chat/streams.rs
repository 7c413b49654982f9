//! Asking an agent, and stopping it.

use super::failure::{RETRY_AFTER, stored};
use super::moderation::moderate;
use super::presence::passing;
use super::{Caller, Chat, PUBLISH_WITHIN, Shared, Visit};
use crate::adapter::Notice;
use crate::domain::command::{Join, Put, RequestStream};
use crate::domain::{
    Action, Error, ErrorCode, Generation, GenerationId, Message, MessageId, NodeId, Reply,
};
use crate::generation::Slot;
use crate::store::{Accepted, NewGeneration, Outgoing, StopRequested};
use crate::telemetry::metrics::{self, Limit};

impl Chat {
    /// Has a generation stopped that the caller may see, on whichever node it runs. The stop is
    /// stored when this answers.
    ///
    /// # Errors
    /// What the client is to be told; nothing was changed then.
    pub async fn stop(&self, caller: &Caller, id: GenerationId) -> Result<(), Error> {
        self.shared.stop_stream(caller, id).await
    }

    /// Stores a prompt and has an agent answer it; the answer is heard by whoever has joined the
    /// session. What is put as a message counts as one, too.
    ///
    /// # Errors
    /// What the client is to be told; nothing was changed then, but that the session may have been
    /// made.
    ///
    /// # Cancel safety
    /// Dropped, it may have happened.
    pub async fn request(&self, caller: &Caller, request: RequestStream) -> Result<Reply, Error> {
        let shared = &self.shared;
        shared.count_request(caller, &request, Action::Send).await?;
        shared.check_request(&request)?;
        let asked = shared.prepare(caller, request).await?;
        shared.answer(asked).await
    }
}

/// A prompt that may be stored, and where it will be answered.
struct Asked {
    new: NewGeneration,
    place: Place,
}

/// Where an answer is generated.
enum Place {
    Here(Slot),
    /// On another node, since this one runs none.
    There(NodeId),
}

impl Shared {
    /// Stores a prompt and has an agent answer it. The reader joins, so that it hears the answer.
    /// `message` is what it counts as, besides, where it is put as a message.
    pub(super) async fn request_stream(
        &self,
        chat: &Chat,
        visit: &mut Visit,
        request: RequestStream,
        message: Action,
    ) -> Result<Reply, Error> {
        self.count_request(&visit.caller, &request, message).await?;
        self.check_request(&request)?;
        chat.make_room(visit, &request.session)?;
        let (session, put) = (request.session.clone(), request.put);
        let asked = self.prepare(&visit.caller, request).await?;
        if !visit.joined.contains(&session) {
            let join = Join { session: session.clone(), last_message: None, texts: Vec::new() };
            if let Some(waiting) = chat.join(visit, join).await?.waiting {
                chat.go_live(visit, waiting);
            }
        }
        if put == (Put::AsMessage { echo: false }) {
            self.hub.sends(&session, visit.reader.id(), asked.new.prompt_id);
        }
        self.answer(asked).await
    }

    /// The lower limit first, so that what it refuses counts as neither.
    async fn count_request(
        &self,
        caller: &Caller,
        request: &RequestStream,
        message: Action,
    ) -> Result<(), Error> {
        self.count(caller, Action::Request).await?;
        match request.put {
            Put::AsRequest => Ok(()),
            Put::AsMessage { .. } => self.count(caller, message).await,
        }
    }

    /// What can be refused without the session is refused first: asking for it may make it.
    fn check_request(&self, request: &RequestStream) -> Result<(), Error> {
        let field = match request.put {
            Put::AsRequest => "prompt",
            Put::AsMessage { .. } => "content",
        };
        self.check_content(field, &request.prompt)?;
        request.agent.as_ref().map_or(Ok(()), |agent| self.answerer(agent).map(drop))
    }

    /// Takes a place for the answer, and finds the session and who answers in it. The session is
    /// made where it does not exist and that is allowed.
    async fn prepare(&self, caller: &Caller, request: RequestStream) -> Result<Asked, Error> {
        let prompt = moderate(self.options.moderation, request.prompt).await?;
        self.check_budget(caller).await?;
        let place = self.place().await?;
        let access = self.access(caller, &request.session).await?;
        let agent = request
            .agent
            .or(access.session.agent)
            .unwrap_or_else(|| self.answerers.default.clone());
        let answerer = self.answerer(&agent)?;
        let new = NewGeneration {
            session: request.session,
            user: caller.user.clone(),
            prompt_id: MessageId::new(),
            prompt,
            client_message_id: request.client_message_id,
            agent,
            provider: answerer.provider.clone(),
            model: request.config.model.clone().unwrap_or_else(|| answerer.model.clone()),
            config: request.config,
            begun: matches!(place, Place::Here(_)),
            owner: match &place {
                Place::Here(_) => self.options.node,
                Place::There(node) => *node,
            },
            user_generations_max: self.options.user_generations_max,
        };
        Ok(Asked { new, place })
    }

    async fn place(&self) -> Result<Place, Error> {
        let full = |message| Error::new(ErrorCode::Overloaded, message).retry_after(RETRY_AFTER);
        if self.generations.role().generates() {
            let slot = self.generations.reserve();
            return slot.map(Place::Here).ok_or_else(|| {
                metrics::limited(Limit::NodeStreams).increment(1);
                full("This node has as many streams as it takes: ask again in a moment")
            });
        }
        let node = self.generations.elsewhere().await.map_err(stored)?;
        node.map(Place::There).ok_or_else(|| {
            metrics::limited(Limit::NodeStreams).increment(1);
            full("No node takes a stream now: ask again in a moment")
        })
    }

    /// Stores the prompt and starts the answer.
    async fn answer(&self, asked: Asked) -> Result<Reply, Error> {
        let Asked { new, place } = asked;
        match self.store.accept(&new).await.map_err(stored)? {
            Accepted::New { generation, prompt, outgoing } => {
                let reply = requested(&generation, &prompt);
                match place {
                    Place::Here(slot) => self.generations.run(generation, outgoing, slot),
                    Place::There(node) => self.send_off(generation.id, node, outgoing),
                }
                Ok(reply)
            }
            Accepted::Known { generation, prompt } => Ok(requested(&generation, &prompt)),
            Accepted::NotAPrompt => {
                Err(Error::invalid("clientMessageId is that of a message that asked nothing"))
            }
            Accepted::NoSession => Err(Error::not_found("session")),
            Accepted::TooMany => {
                metrics::limited(Limit::UserStreams).increment(1);
                let max = self.options.user_generations_max;
                let message = format!("At most {max} streams at once: wait for one, or stop one");
                Err(Error::new(ErrorCode::Overloaded, message).retry_after(RETRY_AFTER))
            }
        }
    }

    /// Has the prompt heard and its node told. Should either be lost, the outbox brings the prompt,
    /// and any node that generates takes the generation a second later.
    fn send_off(&self, generation: GenerationId, node: NodeId, outgoing: Vec<Outgoing>) {
        let (outbox, adapter) = (self.outbox.clone(), self.adapter.clone());
        self.tasks.spawn(async move {
            for outgoing in &outgoing {
                outbox.deliver_or_show(outgoing, PUBLISH_WITHIN).await;
            }
            let told = adapter.tell(node, Notice::Run { generation });
            if passing("tell a node to run", told).await == Some(false) {
                tracing::debug!(%generation, %node, "the node that was to run it does not listen");
            }
        });
    }

    /// Stores that the caller wants a generation stopped, and tells its node.
    pub(super) async fn stop_stream(&self, caller: &Caller, id: GenerationId) -> Result<(), Error> {
        self.generation(caller, id).await?;
        match self.store.request_stop(id, &caller.user).await.map_err(stored)? {
            StopRequested::Stored { owner } => {
                let by = caller.user.clone();
                if !self.generations.stop(id, &by) {
                    let notice = Notice::Stop { generation: id, by };
                    // Should the word be lost, the node finds the stop in the database.
                    passing("tell the owner to stop", self.adapter.tell(owner, notice)).await;
                }
                Ok(())
            }
            StopRequested::AlreadyFinal => Ok(()),
            StopRequested::Unknown => Err(Error::not_found("stream")),
        }
    }
}

fn requested(generation: &Generation, prompt: &Message) -> Reply {
    Reply::Requested { generation: generation.id, message: generation.message, prompt: prompt.id }
}
