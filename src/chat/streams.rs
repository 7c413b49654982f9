//! Asking an agent, and stopping it.

use super::failure::{RETRY_AFTER, stored};
use super::moderation::moderate;
use super::presence::passing;
use super::{Caller, Chat, Shared, Visit, Waiting};
use crate::adapter::Notice;
use crate::domain::command::{Join, RequestStream};
use crate::domain::{
    Action, Cursor, Error, ErrorCode, Generation, GenerationId, Message, MessageId, Reply,
    SessionId,
};
use crate::store::{Accepted, NewGeneration, StopRequested};

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
    /// session.
    ///
    /// # Errors
    /// What the client is to be told; nothing was changed then, but that the session may have been
    /// made.
    ///
    /// # Cancel safety
    /// Dropped, it may have happened.
    pub async fn request(&self, _caller: &Caller, _request: RequestStream) -> Result<Reply, Error> {
        todo!()
    }

    /// Has a reader that asks nothing hear a session: from now on, or exactly after `after`. A
    /// session that does not exist is made, where that is allowed. To be followed by
    /// [`Chat::go_live`].
    ///
    /// # Errors
    /// What the client is to be told; the reader has not joined then.
    ///
    /// # Cancel safety
    /// Dropped, the reader may have joined: [`Chat::depart`].
    pub async fn watch(
        &self,
        _visit: &mut Visit,
        _session: SessionId,
        _after: Option<Cursor>,
    ) -> Result<Waiting, Error> {
        todo!()
    }

    /// Counts a request for a stream token, which may be bound to a session that the caller may
    /// see, or make.
    ///
    /// # Errors
    /// What the client is to be told.
    pub async fn may_watch(
        &self,
        _caller: &Caller,
        _session: Option<&SessionId>,
    ) -> Result<(), Error> {
        todo!()
    }
}

impl Shared {
    /// Stores a prompt and has an agent answer it. The reader joins, so that it hears the answer.
    pub(super) async fn request_stream(
        &self,
        chat: &Chat,
        visit: &mut Visit,
        request: RequestStream,
    ) -> Result<Reply, Error> {
        self.count(&visit.caller, Action::Request).await?;
        // What can be refused without the session is refused first: asking for it may make it.
        self.check_content("prompt", &request.prompt)?;
        if let Some(agent) = &request.agent {
            self.answerer(agent)?;
        }
        chat.make_room(visit, &request.session)?;
        let prompt = moderate(self.options.moderation, request.prompt).await?;
        let slot = self.generations.reserve().ok_or_else(|| {
            Error::new(ErrorCode::Overloaded, "This node has as many streams as it takes")
                .retry_after(RETRY_AFTER)
        })?;
        let access = self.access(&visit.caller, &request.session).await?;
        let agent = request
            .agent
            .or(access.session.agent)
            .unwrap_or_else(|| self.answerers.default.clone());
        let answerer = self.answerer(&agent)?;
        if !visit.joined.contains(&request.session) {
            let session = request.session.clone();
            let join = Join { session, last_message: None, texts: Vec::new() };
            if let Some(waiting) = chat.join(visit, join).await?.waiting {
                chat.go_live(visit, waiting);
            }
        }
        let new = NewGeneration {
            session: request.session,
            user: visit.caller.user.clone(),
            prompt_id: MessageId::new(),
            prompt,
            client_message_id: request.client_message_id,
            agent,
            provider: answerer.voice.provider.id().to_owned(),
            model: request.config.model.clone().unwrap_or_else(|| answerer.model.clone()),
            config: request.config,
            owner: self.options.node,
            user_generations_max: self.options.user_generations_max,
        };
        match self.store.accept(&new).await.map_err(stored)? {
            Accepted::New { generation, prompt, outgoing } => {
                let reply = requested(&generation, &prompt);
                self.generations.run(generation, answerer.voice.clone(), outgoing, slot);
                Ok(reply)
            }
            Accepted::Known { generation, prompt } => Ok(requested(&generation, &prompt)),
            Accepted::NotAPrompt => {
                Err(Error::invalid("clientMessageId is that of a message that asked nothing"))
            }
            Accepted::NoSession => Err(Error::not_found("session")),
            Accepted::TooMany => {
                let max = self.options.user_generations_max;
                let message = format!("At most {max} streams at once: wait for one, or stop one");
                Err(Error::new(ErrorCode::Overloaded, message).retry_after(RETRY_AFTER))
            }
        }
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
