//! Sending messages, changing and finding them.

use std::sync::Arc;

use super::failure::stored;
use super::limits::check_emoji;
use super::moderation::moderate;
use super::{Caller, Chat};
use crate::domain::command::SendMessage;
use crate::domain::{
    Action, Attachment, AttachmentId, Error, Message, MessageId, NewAttachment, Reaction,
    ReactionCounts, SessionId,
};
use crate::store::{
    Attached, EMOJIS_OWN_MAX, Found, History, HistoryPage, NewMessage, Reacted, Seen, Sent,
};
use crate::telemetry::metrics::{self, Limit};

/// The most different emojis that a message keeps.
const EMOJIS_MAX: u32 = 50;

/// # Errors
/// Every method: what the client is to be told; nothing was changed then, but that a message whose
/// sending failed inside may have made its session.
///
/// # Cancel safety
/// Dropped, it may have happened; then others hear of it, if only a second later.
impl Chat {
    /// Stores a message and tells the session. A session that does not exist is made, where that
    /// is allowed. The reader need not have joined.
    pub async fn send(&self, caller: &Caller, new: SendMessage) -> Result<Arc<Message>, Error> {
        self.send_as(caller, new, Action::Send).await
    }

    /// As [`Chat::send`], counted as `action`.
    pub(super) async fn send_as(
        &self,
        caller: &Caller,
        new: SendMessage,
        action: Action,
    ) -> Result<Arc<Message>, Error> {
        let shared = &self.shared;
        shared.count(caller, action).await?;
        shared.check_content("content", &new.content)?;
        self.check_attachments(&new.attachments)?;
        let content = moderate(shared.options.moderation, new.content).await?;
        match new.parent {
            // A session that does not exist yet has nothing to reply to.
            Some(_) => shared.see(caller, &new.session).await?,
            None => shared.access(caller, &new.session).await?,
        };
        let new = NewMessage {
            session: new.session,
            user: caller.user.clone(),
            content,
            parent: new.parent,
            attachments: new.attachments,
            client_message_id: new.client_message_id,
        };
        match shared.store.send(&new).await.map_err(stored)? {
            Sent::New { message, outgoing } => {
                shared.publish(&outgoing).await;
                Ok(Arc::new(message))
            }
            Sent::Known { message } => Ok(Arc::new(message)),
            Sent::NoSession => Err(Error::not_found("session")),
            Sent::NoParent => Err(Error::not_found("message")),
        }
    }

    /// A message that the caller may see, deleted or not.
    pub async fn message(&self, caller: &Caller, id: MessageId) -> Result<Message, Error> {
        self.shared.count(caller, Action::Read).await?;
        Ok(self.shared.message(caller, id).await?.message)
    }

    /// Changes the text of the caller's own message.
    pub async fn edit(
        &self,
        caller: &Caller,
        id: MessageId,
        content: String,
    ) -> Result<Arc<Message>, Error> {
        let shared = &self.shared;
        shared.count(caller, Action::Edit).await?;
        shared.check_content("content", &content)?;
        let content = moderate(shared.options.moderation, content).await?;
        shared.own_message(caller, id).await?;
        let changed = shared.store.edit(id, &content).await.map_err(stored)?;
        let changed = changed.ok_or_else(|| Error::not_found("message"))?;
        shared.publish(&changed.outgoing).await;
        Ok(Arc::new(changed.message))
    }

    /// Deletes a message, as its author or the session's owner.
    pub async fn delete(&self, caller: &Caller, id: MessageId) -> Result<(), Error> {
        let shared = &self.shared;
        shared.count(caller, Action::Delete).await?;
        shared.removable_message(caller, id, "message").await?;
        let deleted = shared.store.delete_message(id, &caller.user).await.map_err(stored)?;
        shared.publish(&deleted.ok_or_else(|| Error::not_found("message"))?).await;
        Ok(())
    }

    /// Notes that the caller has read up to a message.
    pub async fn see(
        &self,
        caller: &Caller,
        session: &SessionId,
        id: MessageId,
    ) -> Result<(), Error> {
        let shared = &self.shared;
        shared.count(caller, Action::See).await?;
        shared.see(caller, session).await?;
        match shared.store.see(session, id, &caller.user).await.map_err(stored)? {
            Seen::Moved { outgoing } => shared.publish(&outgoing).await,
            Seen::Already => {}
            Seen::NoMessage => return Err(Error::not_found("message")),
        }
        Ok(())
    }

    /// Gives a message an emoji, or takes it back: whether it was given, and what it has now.
    pub async fn react(
        &self,
        caller: &Caller,
        id: MessageId,
        emoji: String,
    ) -> Result<(bool, ReactionCounts), Error> {
        let shared = &self.shared;
        shared.count(caller, Action::React).await?;
        check_emoji(&emoji)?;
        shared.live_message(caller, id).await?;
        let reacted = shared.store.react(id, &caller.user, &emoji, EMOJIS_MAX).await;
        match reacted.map_err(stored)? {
            Reacted::Done { added, counts, outgoing } => {
                shared.publish(&outgoing).await;
                Ok((added, counts))
            }
            Reacted::Gone => Err(Error::not_found("message")),
            Reacted::TooMany => Err(Error::invalid(format!(
                "emoji would be one too many: a message has at most {EMOJIS_MAX} different ones, and \
                 at most {EMOJIS_OWN_MAX} of one user"
            ))),
        }
    }

    /// Who gave a message which emoji.
    pub async fn reactions(&self, caller: &Caller, id: MessageId) -> Result<Vec<Reaction>, Error> {
        self.shared.count(caller, Action::Read).await?;
        Ok(self.shared.message(caller, id).await?.message.reactions)
    }

    /// A page of a session's messages.
    pub async fn history(
        &self,
        caller: &Caller,
        session: &SessionId,
        page: HistoryPage,
    ) -> Result<History, Error> {
        let shared = &self.shared;
        shared.count(caller, Action::Read).await?;
        shared.check_page(page.limit)?;
        shared.see(caller, session).await?;
        let history = shared.store.history(session, &page).await.map_err(stored)?;
        history.ok_or_else(|| Error::not_found("message"))
    }

    /// The replies to a message, and the replies to those.
    pub async fn thread(
        &self,
        caller: &Caller,
        id: MessageId,
        limit: u32,
        offset: u64,
    ) -> Result<Found, Error> {
        let shared = &self.shared;
        shared.count(caller, Action::Read).await?;
        let limit = shared.check_page(limit)?;
        shared.message(caller, id).await?;
        shared.store.thread(id, limit, offset).await.map_err(stored)
    }

    /// The messages of a session that hold every word of `query`.
    pub async fn search(
        &self,
        caller: &Caller,
        session: &SessionId,
        query: &str,
        limit: u32,
        offset: u64,
    ) -> Result<Found, Error> {
        let shared = &self.shared;
        shared.count(caller, Action::Read).await?;
        shared.check_query(query)?;
        let limit = shared.check_page(limit)?;
        shared.see(caller, session).await?;
        shared.store.search(session, query, limit, offset).await.map_err(stored)
    }

    /// Names further files with the caller's own message; answers with those.
    pub async fn attach(
        &self,
        caller: &Caller,
        id: MessageId,
        files: Vec<NewAttachment>,
    ) -> Result<Vec<Attachment>, Error> {
        let shared = &self.shared;
        shared.count(caller, Action::Attach).await?;
        self.check_attachments(&files)?;
        if files.is_empty() {
            return Err(Error::invalid("attachments must name a file"));
        }
        shared.own_message(caller, id).await?;
        let attached = shared.store.attach(id, &files, shared.options.attachments_max).await;
        match attached.map_err(stored)? {
            Attached::Done { attachments, outgoing } => {
                shared.publish(&outgoing).await;
                Ok(attachments)
            }
            Attached::Gone => Err(Error::not_found("message")),
            Attached::TooMany => Err(self.too_many_attachments()),
        }
    }

    /// The files named with a message.
    pub async fn attachments(
        &self,
        caller: &Caller,
        id: MessageId,
    ) -> Result<Vec<Attachment>, Error> {
        self.shared.count(caller, Action::Read).await?;
        Ok(self.shared.message(caller, id).await?.message.attachments)
    }

    /// Takes a file away from a message, as its author or the session's owner.
    pub async fn detach(&self, caller: &Caller, id: AttachmentId) -> Result<(), Error> {
        let shared = &self.shared;
        let unknown = || Error::not_found("attachment");
        shared.count(caller, Action::Detach).await?;
        let message = shared.store.attachment(id).await.map_err(stored)?.ok_or_else(unknown)?;
        shared.removable_message(caller, message, "attachment").await?;
        let changed = shared.store.detach(id).await.map_err(stored)?.ok_or_else(unknown)?;
        shared.publish(&changed.outgoing).await;
        Ok(())
    }

    fn check_attachments(&self, files: &[NewAttachment]) -> Result<(), Error> {
        if files.len() > self.shared.options.attachments_max as usize {
            return Err(self.too_many_attachments());
        }
        Ok(())
    }

    fn too_many_attachments(&self) -> Error {
        metrics::limited(Limit::Attachments).increment(1);
        let max = self.shared.options.attachments_max;
        Error::invalid(format!("attachments: a message has at most {max}"))
    }
}
