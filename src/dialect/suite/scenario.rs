//! What happens, the same for every vocabulary, with fixed ids and times.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, json};

use super::{Heard, Subject, parsed, raw};
use crate::dialect::{Frame, Greeting, Ids, Refusal, Shown, TextShown, wire};
use crate::domain::text::utf16_len;
use crate::domain::{
    ActiveGeneration, AgentId, Aside, Author, Cursor, Error, ErrorCode, Event, EventId, EventKind,
    GenerationId, Joined, JoinedPersona, Membership, Message, MessageId, Position, PresenceChange,
    Reaction, Reply, Revoked, Session, SessionId, Signal, Stage, StopReason, TextCursor, Timestamp,
    Usage, UserId, Visibility,
};

/// An answer in pieces: characters of two, three and four bytes, and clusters that a piece ends in
/// the middle of.
pub(super) const PIECES: [&str; 5] =
    ["Gr", "üße, ", "👩\u{200d}👩", "\u{200d}👧 𝄞 €", " \"end\"\n"];

/// What the agents of a stage said is for the next one, never for readers.
pub(super) const UNSHOWN: &str = "between agents";

const AT: Timestamp = Timestamp::from_millis(1_767_323_045_678);
const PROMPT: u8 = 1;
const ANSWER: u8 = 2;
const GENERATION: u8 = 3;

pub(super) enum Happening {
    Event(EventKind),
    /// While the log does not have it.
    Unplaced(EventKind),
    Running,
    Text {
        before: String,
        delta: String,
    },
    Signal(Signal),
    Presence(PresenceChange),
    Reply(Reply),
    Refused(Error),
    Revoked,
    Greeting,
    Shutdown,
    Timeout,
}

use Happening::{Presence, Refused, Running, Text, Unplaced};

pub(super) fn all() -> Vec<(&'static str, Happening)> {
    let generation = uuid(GENERATION).parse().unwrap();
    let (id, agent, reason) = (message_id(ANSWER), agent(), "the text was lost".to_owned());
    let event = Happening::Event;
    let bob = |name: Option<&str>| (user("bob"), name.map(str::to_owned));
    let started =
        EventKind::GenerationStarted { generation, message: id, agent: agent.clone(), attempt: 1 };
    let resumed = EventKind::GenerationResumed {
        generation,
        message: id,
        agent: agent.clone(),
        attempt: 2,
        offset: 13,
        utf16_offset: 10,
    };
    let ended = EventKind::GenerationEnded {
        generation,
        attempt: 2,
        length: 40,
        reason: StopReason::EndTurn,
        usage: usage(),
    };
    let reset = EventKind::GenerationReset { generation, message: id, agent, attempt: 2, reason };
    let failed = |content: &str, code| EventKind::GenerationFailed {
        generation,
        message: answer(content),
        error: Error::new(code, "The model's provider failed"),
    };
    let stopped = |content: &str| EventKind::GenerationStopped {
        generation,
        message: answer(content),
        by: user("ada"),
    };
    let reaction = |added, counts| EventKind::ReactionChanged {
        message: message_id(PROMPT),
        user: user("bob"),
        emoji: "👍".to_owned(),
        added,
        counts,
    };
    let aside = |aside| event(EventKind::Aside { generation, message: id, aside });
    let whole = PIECES.concat();

    let mut all = vec![
        ("a connection is made", Happening::Greeting),
        ("they say who they are", Happening::Reply(Reply::Identified { user: user("ada") })),
        ("they join", Happening::Reply(joined(false))),
        ("they join again, with the last message they have", Happening::Reply(joined(true))),
        ("they join by a persona", Happening::Reply(joined_persona())),
        ("an answer is running then", Running),
        ("its text so far", Text { before: String::new(), delta: PIECES[..2].concat() }),
        ("bob comes", Happening::Signal(signal(bob(Some("Bob")), true))),
        ("somebody nameless comes", Happening::Signal(signal(bob(None), true))),
        ("bob types", Happening::Signal(typing(bob(Some("Bob")), true))),
        ("bob types no longer", Happening::Signal(typing(bob(None), false))),
        ("bob goes", Happening::Signal(signal(bob(Some("Bob")), false))),
        (
            "bob is online",
            Presence(PresenceChange { user: user("bob"), online: true, last_seen_at: AT }),
        ),
        (
            "bob is offline",
            Presence(PresenceChange { user: user("bob"), online: false, last_seen_at: AT }),
        ),
        ("bob writes", event(EventKind::MessageNew(prompt()))),
        ("the operator writes", event(EventKind::MessageNew(notice()))),
        ("ada asks", Happening::Reply(requested())),
        ("an answer begins", event(started.clone())),
        ("a stage begins", event(stage(generation, None))),
        ("it is over", event(stage(generation, Some(vec![UNSHOWN.to_owned(), String::new()])))),
        ("one is over that said too much", event(stage(generation, Some(Vec::new())))),
        ("it thinks", aside(Aside::Thinking { text: "Hm, \"𝄞\"".to_owned() })),
        (
            "it asks for a tool",
            aside(Aside::Tool {
                id: "call_1".to_owned(),
                name: "search".to_owned(),
                input: r#"{"q":1}"#.to_owned(),
            }),
        ),
        ("it names a source", aside(citation(Some("https://example.org/a")))),
        ("it names a source that is nowhere", aside(citation(None))),
    ];
    let mut before = String::new();
    for delta in PIECES {
        let delta = delta.to_owned();
        all.push(("it goes on", Text { before: before.clone(), delta: delta.clone() }));
        before.push_str(&delta);
    }
    all.extend([
        ("another node goes on with it", event(resumed)),
        ("its provider is done", event(ended)),
        ("it is stored", event(completed(&whole))),
        ("one begins that the log does not have yet", Unplaced(started)),
        ("it starts over", event(reset.clone())),
        ("it starts over, and the log does not have that yet", Unplaced(reset)),
        ("it is stopped", event(stopped(PIECES[0]))),
        ("one is stopped before its first word", event(stopped(""))),
        ("one breaks off", event(failed(PIECES[0], ErrorCode::Provider))),
        ("one breaks off before its first word", event(failed("", ErrorCode::Timeout))),
        ("one is refused by moderation", event(failed("", ErrorCode::ModerationFailed))),
        (
            "one breaks off for want of what is there no longer",
            event(failed("", ErrorCode::NotFound)),
        ),
        ("bob edits", event(EventKind::MessageEdited(prompt()))),
        (
            "bob deletes",
            event(EventKind::MessageDeleted {
                message: message_id(PROMPT),
                by: user("bob"),
                at: AT,
            }),
        ),
        (
            "bob has read",
            event(EventKind::MessageSeen {
                message: message_id(PROMPT),
                user: user("bob"),
                at: AT,
            }),
        ),
        ("bob reacts", event(reaction(true, vec![("👍".to_owned(), 2), ("\"".to_owned(), 1)]))),
        ("bob takes that back", event(reaction(false, Vec::new()))),
        ("somebody else loses it", event(EventKind::AccessRevoked(Revoked::User(user("eve"))))),
        ("a newer build wrote something", event(EventKind::Unknown)),
        ("they sent", Happening::Reply(sent())),
        ("they edited", Happening::Reply(Reply::Edited { message: prompt() })),
        ("they deleted", Happening::Reply(Reply::Deleted)),
        ("they have read", Happening::Reply(Reply::Seen)),
        ("they reacted", Happening::Reply(Reply::Reacted { added: true })),
        ("they type", Happening::Reply(Reply::Typed)),
        ("they stopped it", Happening::Reply(Reply::StopStored)),
        ("they left", Happening::Reply(Reply::Left { session: session() })),
        ("they lose it", Happening::Revoked),
        ("the node drains", Happening::Shutdown),
        ("the connection is old", Happening::Timeout),
    ]);
    all.extend(ErrorCode::ALL.map(|code| {
        let error = Error::new(code, "It was refused");
        let is_limit = code == ErrorCode::RateLimit;
        let after = |error: Error| error.retry_after(Duration::from_micros(6_001));
        ("they are refused", Refused(if is_limit { after(error) } else { error }))
    }));
    all
}

/// Puts what happens into a vocabulary's words. `at` is where in the scenario it stands.
pub(super) fn say(subject: &Subject<'_>, at: usize, happening: &Happening) -> Said {
    let session = session();
    let encode = |shown: Shown<'_>| Said::frames(subject.vocabulary.encode(&session, shown));
    let mut cursor = Cursor {
        position: Position { epoch: 1, seq: at as u64 },
        part: 0,
        ordinal: 7,
        given: 0,
        texts: Vec::new(),
    };
    let (generation, message) = (uuid(GENERATION).parse().unwrap(), message_id(ANSWER));
    let event = |kind: &EventKind| Event { id: EventId::new(), at: AT, kind: kind.clone() };
    match happening {
        Happening::Event(kind) => {
            encode(Shown::Event { event: &event(kind), seq: 6, cursor: Some(&cursor) })
        }
        Unplaced(kind) => encode(Shown::Event { event: &event(kind), seq: 6, cursor: None }),
        Running => encode(Shown::Running { generation, message, agent: &agent(), cursor: &cursor }),
        Text { before, delta } => {
            let so_far = before.clone() + delta;
            cursor.texts.push(TextCursor { generation, attempt: 1, offset: so_far.len() as u64 });
            encode(Shown::Text(TextShown {
                generation,
                message,
                seq: at as u64,
                utf16_offset: utf16_len(before),
                delta,
                so_far: &so_far,
                tokens: 9,
                ordinal: 0,
                cursor: Some(&cursor),
            }))
        }
        Happening::Signal(signal) => encode(Shown::Signal(signal)),
        Presence(change) => Said::frames(subject.vocabulary.presence(change).into_iter().collect()),
        other => ask(subject, other),
    }
}

/// What only sockets are told.
fn ask(subject: &Subject<'_>, happening: &Happening) -> Said {
    let Some(dialect) = subject.dialect else { return Said::frames(Vec::new()) };
    let greeting = Greeting { user: "ada", socket: "x", node: "n", now: AT, recovered: false };
    let one = |frame: Option<Frame>| Said::frames(frame.into_iter().collect());
    match happening {
        Happening::Reply(reply) => {
            let answer = dialect.answer(reply);
            Said { acks: vec![parsed(&answer.ack)], frames: answer.frames }
        }
        Refused(error) => {
            let ids = Ids::of(&[&raw(&json!({
                "sessionId": "room:1", "conversationId": "room:1", "personaId": "wise",
                "clientMessageId": "own", "content": "Hi",
            }))]);
            let all = dialect.commands().iter();
            let some = if error.code == ErrorCode::NotFound { all.len() } else { 1 };
            let refusals: Vec<_> =
                all.take(some).map(|spec| Refusal { event: spec.name, error, ids: &ids }).collect();
            Said {
                acks: refusals[..1].iter().map(|one| parsed(&wire::failed(one))).collect(),
                frames: refusals.iter().map(|one| dialect.error(one)).collect(),
            }
        }
        Happening::Revoked => one(Some(dialect.revoked(&session()))),
        Happening::Greeting => one(dialect.greet(greeting)),
        Happening::Shutdown => one(dialect.shutdown(Duration::from_millis(1500))),
        Happening::Timeout => one(dialect.timeout()),
        _ => unreachable!("it is said to every vocabulary"),
    }
}

/// What came of it.
pub(super) struct Said {
    pub(super) acks: Vec<serde_json::Value>,
    pub(super) frames: Vec<Frame>,
}

impl Said {
    fn frames(frames: Vec<Frame>) -> Self {
        Self { acks: Vec::new(), frames }
    }

    pub(super) fn heard(&self, when: &str) -> Heard {
        let frame = |frame: &Frame| {
            let mut json = json!({ "event": frame.event, "payload": parsed(&frame.payload) });
            if let Some(cursor) = &frame.cursor {
                json["cursor"] = json!(&**cursor);
            }
            json
        };
        let frames = self.frames.iter().map(frame).collect();
        Heard { when: when.to_owned(), acks: self.acks.clone(), frames }
    }
}

fn uuid(n: u8) -> String {
    format!("01890000-0000-7000-8000-{n:012}")
}

fn message_id(n: u8) -> MessageId {
    uuid(n).parse().unwrap()
}

pub(super) fn session() -> SessionId {
    SessionId::new("room:1").unwrap()
}

fn user(id: &str) -> UserId {
    UserId::new(id).unwrap()
}

fn agent() -> AgentId {
    AgentId::new("wise").unwrap()
}

fn usage() -> Usage {
    Usage { input_tokens: 12, output_tokens: 34, cached_tokens: 0 }
}

fn message(n: u8, author: Author, content: &str) -> Message {
    Message {
        id: message_id(n),
        session: session(),
        ordinal: 7,
        user: (author == Author::User).then(|| user("bob")),
        agent: (author == Author::Assistant).then(agent),
        author,
        content: content.to_owned(),
        metadata: Map::new(),
        tokens: None,
        usage: None,
        parent: None,
        client_message_id: None,
        edited_at: None,
        deleted_at: None,
        created_at: AT,
        updated_at: AT,
        reactions: Vec::new(),
        attachments: Vec::new(),
    }
}

fn prompt() -> Arc<Message> {
    Arc::new(Message {
        client_message_id: Some("own".to_owned()),
        reactions: vec![Reaction { emoji: "👍".to_owned(), users: vec![user("ada")] }],
        ..message(PROMPT, Author::User, "Why \"𝄞\"?")
    })
}

fn notice() -> Arc<Message> {
    Arc::new(message(PROMPT, Author::System, "Be kind"))
}

fn answer(content: &str) -> Arc<Message> {
    let parent = Some(message_id(PROMPT));
    Arc::new(Message {
        parent,
        tokens: Some(34),
        usage: Some(usage()),
        ..message(ANSWER, Author::Assistant, content)
    })
}

pub(super) fn completed(content: &str) -> EventKind {
    EventKind::GenerationCompleted {
        generation: uuid(GENERATION).parse().unwrap(),
        message: answer(content),
        reason: StopReason::EndTurn,
        usage: usage(),
    }
}

fn stage(generation: GenerationId, said: Option<Vec<String>>) -> EventKind {
    let agents = vec![agent(), AgentId::new("kind").unwrap()];
    let stage = Stage { name: "\"Thinkers\"".to_owned(), agents, index: 1, total: 3, said };
    EventKind::StageChanged { generation, stage }
}

fn citation(url: Option<&str>) -> Aside {
    Aside::Citation { title: "A book".to_owned(), url: url.map(str::to_owned) }
}

fn signal((user, name): (UserId, Option<String>), comes: bool) -> Signal {
    if comes {
        Signal::UserJoined { user, name, online: 2 }
    } else {
        Signal::UserLeft { user, name, online: 1 }
    }
}

fn typing((user, name): (UserId, Option<String>), begins: bool) -> Signal {
    if begins { Signal::TypingStarted { user, name } } else { Signal::TypingStopped { user, name } }
}

fn requested() -> Reply {
    Reply::Requested {
        generation: uuid(GENERATION).parse::<GenerationId>().unwrap(),
        message: message_id(ANSWER),
        prompt: message_id(PROMPT),
    }
}

fn sent() -> Reply {
    Reply::Sent { message: prompt(), delivered_at: AT, recipients: 4 }
}

fn joined(again: bool) -> Reply {
    let missed = || vec![(*prompt()).clone(), (*answer("Because")).clone()];
    Reply::Joined(Box::new(Joined {
        session: Session {
            id: session(),
            owner: user("ada"),
            title: Some("Music".to_owned()),
            agent: Some(agent()),
            visibility: Visibility::Private,
            member_count: 2,
            last_ordinal: 0,
            last_message_at: Some(AT),
            created_at: AT,
            updated_at: AT,
        },
        membership: Some(Membership::Owner),
        online: vec![user("ada"), user("bob")],
        online_count: 2,
        active: vec![ActiveGeneration {
            generation: uuid(GENERATION).parse().unwrap(),
            message: message_id(ANSWER),
            agent: agent(),
            utf16_len: 7,
        }],
        missed: again.then(missed),
        has_more: again,
    }))
}

fn joined_persona() -> Reply {
    Reply::JoinedPersona(Box::new(JoinedPersona {
        session: session(),
        agent: agent(),
        messages: vec![(*prompt()).clone(), (*answer("Because")).clone(), (*notice()).clone()],
    }))
}
