//! Sending messages, changing and finding them.

use std::sync::Arc;

use super::{Caller, Chat};
use crate::domain::command::SendMessage;
use crate::domain::{
    Attachment, AttachmentId, Error, Message, MessageId, NewAttachment, Reaction, ReactionCounts,
    SessionId,
};
use crate::store::{Found, History, HistoryPage};

/// # Errors
/// Every method: what the client is to be told; nothing was changed then.
impl Chat {
    /// Stores a message and tells the session. A session that does not exist is made, where that
    /// is allowed.
    pub async fn send(&self, _caller: &Caller, _new: SendMessage) -> Result<Arc<Message>, Error> {
        todo!()
    }

    /// A message that the caller may see, deleted or not.
    pub async fn message(&self, _caller: &Caller, _id: MessageId) -> Result<Message, Error> {
        todo!()
    }

    /// Changes the text of the caller's own message.
    pub async fn edit(
        &self,
        _caller: &Caller,
        _id: MessageId,
        _content: String,
    ) -> Result<Arc<Message>, Error> {
        todo!()
    }

    /// Deletes a message, as its author or the session's owner.
    pub async fn delete(&self, _caller: &Caller, _id: MessageId) -> Result<(), Error> {
        todo!()
    }

    /// Gives a message an emoji, or takes it back: whether it was given, and what it has now.
    pub async fn react(
        &self,
        _caller: &Caller,
        _id: MessageId,
        _emoji: String,
    ) -> Result<(bool, ReactionCounts), Error> {
        todo!()
    }

    /// Who gave a message which emoji.
    pub async fn reactions(
        &self,
        _caller: &Caller,
        _id: MessageId,
    ) -> Result<Vec<Reaction>, Error> {
        todo!()
    }

    /// A page of a session's messages.
    pub async fn history(
        &self,
        _caller: &Caller,
        _session: &SessionId,
        _page: HistoryPage,
    ) -> Result<History, Error> {
        todo!()
    }

    /// The replies to a message, and the replies to those.
    pub async fn thread(
        &self,
        _caller: &Caller,
        _id: MessageId,
        _limit: u32,
        _offset: u64,
    ) -> Result<Found, Error> {
        todo!()
    }

    /// The messages of a session that hold every word of `query`.
    pub async fn search(
        &self,
        _caller: &Caller,
        _session: &SessionId,
        _query: &str,
        _limit: u32,
        _offset: u64,
    ) -> Result<Found, Error> {
        todo!()
    }

    /// Names further files with the caller's own message; answers with those.
    pub async fn attach(
        &self,
        _caller: &Caller,
        _id: MessageId,
        _files: Vec<NewAttachment>,
    ) -> Result<Vec<Attachment>, Error> {
        todo!()
    }

    /// The files named with a message.
    pub async fn attachments(
        &self,
        _caller: &Caller,
        _id: MessageId,
    ) -> Result<Vec<Attachment>, Error> {
        todo!()
    }

    /// Takes a file away from a message, as its author or the session's owner.
    pub async fn detach(&self, _caller: &Caller, _id: AttachmentId) -> Result<(), Error> {
        todo!()
    }
}
