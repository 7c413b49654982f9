//! Joining sessions and leaving them, and what a reader that joins is told first.

use std::collections::HashSet;

use super::access::standing;
use super::failure::{stored, unavailable};
use super::presence::passing;
use super::turns::Turn;
use super::{Caller, Chat, Done, Visit, Waiting};
use crate::domain::command::Join;
use crate::domain::{Access, Action, Error, ErrorCode, Joined, Message, Reply, SessionId, Signal};
use crate::hub::{Entered, FromStore, Start};
use crate::store::Missed;
use crate::telemetry::metrics::{self, Limit};

/// The most missed messages that a join brings.
const MISSED_MAX: u32 = 100;
/// About the most bytes that the messages of a join have, but for a single one that is longer.
const MISSED_BYTES_MAX: usize = 256 * 1024;
/// How often a reader joins anew because what it is in the session changed meanwhile.
const JOIN_ATTEMPTS: usize = 3;
/// The most characters of a name that others are shown while somebody types.
const NAME_CHARS_MAX: usize = 100;

impl Chat {
    /// Counts a join as `action`, or as one again where the user is in the session or was a moment
    /// ago.
    pub(super) async fn count_join(
        &self,
        visit: &Visit,
        id: &SessionId,
        action: Action,
    ) -> Result<(), Error> {
        let (shared, caller) = (&self.shared, &visit.caller);
        if visit.joined.contains(id) || shared.devices.are_in(id, &caller.user) {
            return shared.count(caller, Action::Rejoin).await;
        }
        let window = shared.options.rejoin_window;
        let was_in = passing("read who was in", shared.adapter.was_in(id, &caller.user, window));
        // Where that is not known: after an outage all come back at once.
        let is_again = was_in.await.unwrap_or(true);
        shared.count(caller, if is_again { Action::Rejoin } else { action }).await
    }

    pub(super) async fn join(&self, visit: &mut Visit, join: Join) -> Result<Done, Error> {
        let Join { session: id, last_message, texts } = join;
        let shared = &self.shared;
        // First, since a session that does not exist is made by asking for it.
        self.make_room(visit, &id)?;
        let mut turn = shared.turns.take().await;
        let access = shared.access(&visit.caller, &id).await?;
        // The reader's place first, then what is stored: nothing falls between the two.
        let start = Start::Now(&texts);
        let (access, entered) = self.take_place(&mut turn, visit, access, start).await?;
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
        drop(turn);
        let online = shared.arrive(&visit.caller, &id, visit.reader.id()).await;
        let mut missed = missed.map(cap);
        if let (Some(missed), Some(upto)) = (&mut missed, visit.recovered.get(&id)) {
            // It was, or is about to be, shown what came after that.
            missed.messages.retain(|message| message.ordinal <= *upto);
            missed.has_more = false;
        }
        let has_more = missed.as_ref().is_some_and(|missed| missed.has_more);
        let messages = missed.map(|missed| missed.messages);
        let known: HashSet<_> = messages.iter().flatten().map(|message| message.id).collect();
        let upto = messages.iter().flatten().map(|message| message.ordinal).max().unwrap_or(0);
        // Stored since, but not in the log yet: it is among the missed.
        let active = entered.active.into_iter();
        let active = active.filter(|active| !known.contains(&active.message)).collect();
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
            waiting: Some(Waiting {
                session: id,
                from_store: FromStore { known, upto, ..FromStore::default() },
                at: entered.at,
            }),
        })
    }

    /// Has the hub take the reader in. What takes the right away from somebody tells the readers
    /// that the hub has by then: so whether the caller may see the session, and as what, is read
    /// again afterwards. The turn is the one in which the session was looked up.
    pub(super) async fn take_place(
        &self,
        turn: &mut Turn<'_>,
        visit: &mut Visit,
        mut access: Access,
        start: Start<'_>,
    ) -> Result<(Access, Entered), Error> {
        let shared = &self.shared;
        let id = access.session.id.clone();
        let was_in = !visit.joined.insert(id.clone());
        for _ in 0..JOIN_ATTEMPTS {
            let reader = visit.reader.clone();
            let (stands, stored) = (standing(&access), access.session.last_ordinal);
            let joining = shared.hub.join(&id, reader, stands, start, stored);
            let joined = match turn.lend(joining).await {
                Ok(entered) => shared.see(&visit.caller, &id).await.map(|access| (access, entered)),
                Err(error) => Err(unavailable(error)),
            };
            match joined {
                // A reader that was in stays as it is.
                Ok(joined) if was_in || standing(&joined.0) == stands => return Ok(joined),
                Ok((changed, _)) => {
                    shared.hub.leave(&id, visit.reader.id());
                    access = changed;
                }
                Err(error) => {
                    self.leave(visit, &id).await;
                    return Err(error);
                }
            }
        }
        self.leave(visit, &id).await;
        Err(Error::new(ErrorCode::Internal, "The session's members changed too often: try again"))
    }

    /// Whether the reader may join one more.
    pub(super) fn make_room(&self, visit: &Visit, id: &SessionId) -> Result<(), Error> {
        let max = self.shared.options.joined_max;
        if visit.joined.contains(id) || visit.joined.len() < max {
            return Ok(());
        }
        metrics::limited(Limit::JoinedSessions).increment(1);
        let message = format!("A connection may join at most {max} sessions");
        Err(Error::new(ErrorCode::RateLimit, message))
    }

    /// The reader leaves for good.
    pub(super) async fn leave(&self, visit: &mut Visit, session: &SessionId) {
        visit.joined.remove(session);
        visit.typing.remove(session);
        visit.recovered.remove(session);
        let reader = visit.reader.id();
        self.shared.hub.leave(session, reader);
        self.shared.leave(&visit.caller, session, reader).await;
    }

    /// Tells the others that the caller types, or no longer does. Where the reader has joined,
    /// no database is asked. A stop is not counted, so it is told only after a start, which was.
    pub(super) async fn relay_typing(
        &self,
        visit: &mut Visit,
        session: &SessionId,
        name: Option<String>,
        active: bool,
        action: Action,
    ) -> Result<(), Error> {
        let (shared, caller) = (&self.shared, &visit.caller);
        if active {
            shared.count(caller, action).await?;
        }
        if !visit.joined.contains(session) {
            shared.see(caller, session).await?;
        }
        if !active && !visit.typing.remove(session) {
            return Ok(());
        }
        if active {
            // What is forgotten ends by itself.
            if visit.typing.len() >= shared.options.joined_max {
                visit.typing.clear();
            }
            visit.typing.insert(session.clone());
        }
        shared.signal(session, typing(caller, name, active)).await;
        Ok(())
    }
}

fn typing(caller: &Caller, name: Option<String>, active: bool) -> Signal {
    let user = caller.user.clone();
    let name = name.or_else(|| caller.name.clone());
    let name = name.map(|name| name.chars().take(NAME_CHARS_MAX).collect());
    if active { Signal::TypingStarted { user, name } } else { Signal::TypingStopped { user, name } }
}

/// Cuts what was missed to [`MISSED_BYTES_MAX`]: a page is one packet, whatever its messages hold.
/// What is cut off is what `has_more` tells of: the last ones, or the oldest of the newest.
pub(super) fn cap(mut missed: Missed) -> Missed {
    let all = missed.messages.len();
    let mut bytes = 0;
    let mut fits = |message: &Message| {
        bytes += weight(message);
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

/// About how many bytes a message takes: its text, the files named with it, and who reacted.
fn weight(message: &Message) -> usize {
    let files = message.attachments.iter().map(|file| {
        let texts = [&file.file_name, &file.file_url, &file.mime_type];
        let metadata = serde_json::to_vec(&file.metadata).map_or(0, |json| json.len());
        texts.into_iter().map(String::len).sum::<usize>() + metadata
    });
    let reactions = message.reactions.iter().map(|reaction| {
        reaction.emoji.len() + reaction.users.iter().map(|user| user.as_str().len()).sum::<usize>()
    });
    message.content.len() + files.sum::<usize>() + reactions.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::super::samples::message;
    use super::*;
    use crate::domain::{Attachment, AttachmentId, Reaction, UserId};

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

    #[test]
    fn what_is_named_with_a_message_and_who_reacted_count_as_its_text_does() {
        let third = "x".repeat(MISSED_BYTES_MAX / 3 + 1);
        let (mut text, mut file, mut liked) = (message(1, 0), message(2, 0), message(3, 0));
        text.content = third.clone();
        let metadata = serde_json::Map::from_iter([("a".to_owned(), third.into())]);
        file.attachments.push(Attachment {
            id: AttachmentId::new(),
            file_name: "a".to_owned(),
            file_url: "b".to_owned(),
            mime_type: "c".to_owned(),
            file_size: 1,
            metadata,
        });
        let user = UserId::new("x".repeat(256)).unwrap();
        let users = vec![user; MISSED_BYTES_MAX / 3 / 256 + 1];
        liked.reactions.push(Reaction { emoji: "+".to_owned(), users });
        let capped =
            cap(Missed { messages: vec![text, file, liked], has_more: false, newest: false });
        assert_eq!((capped.messages.len(), capped.has_more), (2, true));
    }

    #[test]
    fn who_types_is_called_as_they_say_else_as_their_token_does() {
        let caller = |name: Option<&str>| Caller {
            user: UserId::new("ada").unwrap(),
            name: name.map(str::to_owned),
        };
        let name =
            |caller: &Caller, own: Option<&str>| match typing(caller, own.map(str::to_owned), true)
            {
                Signal::TypingStarted { name, .. } => name,
                other => panic!("{other:?}"),
            };
        assert_eq!(name(&caller(None), None), None);
        assert_eq!(name(&caller(Some("Ada")), None).as_deref(), Some("Ada"));
        assert_eq!(name(&caller(Some("Ada")), Some("A.")).as_deref(), Some("A."));
        assert_eq!(name(&caller(None), Some(&"é".repeat(101))), Some("é".repeat(100)));
        let stopped = typing(&caller(None), None, false);
        assert!(matches!(stopped, Signal::TypingStopped { .. }), "{stopped:?}");
    }
}
