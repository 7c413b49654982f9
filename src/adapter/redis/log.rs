//! Sessions' logs and texts in Redis.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use fred::interfaces::{KeysInterface, PubsubInterface, StreamsInterface};
use fred::types::Value;

use super::super::{AdapterError, Appended, Earlier, Head, Log, Page, Registry, StoredAppended};
use super::scripts::call;
use super::{Redis, channel, frame, log_key, newest_key, revision_key, text_key, unavailable};
use crate::codec;
use crate::domain::{Chunk, Event, EventKind, GenerationId, Position, SessionId, Signal};
use crate::telemetry::metrics;

/// Beyond the end of any text; Redis keeps at most 512 MiB in a string.
const TEXT_END: usize = 1 << 30;
/// How many older attempts' texts are looked for; a generation is not taken over as often.
const OLDER_MAX: usize = 32;

#[async_trait]
impl Log for Redis {
    async fn append_chunk(
        &self,
        session: &SessionId,
        chunk: Chunk,
    ) -> Result<Appended, AdapterError> {
        let shared = &self.shared;
        let mut keys = vec![text_key(session, chunk.generation, chunk.attempt), channel(session)];
        let mut arguments = vec![
            number(chunk.offset),
            Value::Bytes(frame::chunk_header(&chunk)),
            Value::Bytes(Bytes::copy_from_slice(chunk.delta.as_bytes())),
            number(ms(shared.options.log_ttl)),
        ];
        if chunk.offset == 0 {
            keys.push(newest_key(session, chunk.generation));
            arguments.push(number(u64::from(chunk.attempt)));
        }
        let (state, n): (i64, u64) =
            call(&shared.commands, &shared.scripts.append_chunk, keys, arguments)
                .await
                .map_err(|source| unavailable("append chunk", source))?;
        if state < 0 {
            return Ok(Appended::Short { len: n });
        }
        let heard = if state > 0 { n } else { 0 };
        published(heard);
        self.touch_text(session, chunk.generation, chunk.attempt);
        if let Some(feed) = shared.feed() {
            feed.chunk(session, chunk);
        }
        Ok(Appended::Done { heard })
    }

    fn show(&self, session: &SessionId, chunk: Chunk) {
        if let Some(feed) = self.shared.feed() {
            feed.ahead(session, chunk);
        }
    }

    fn show_event(&self, session: &SessionId, event: Arc<Event>) {
        if let Some(feed) = self.shared.feed() {
            feed.unlogged(session, event);
        }
    }

    async fn append_event(
        &self,
        session: &SessionId,
        event: Arc<Event>,
    ) -> Result<Position, AdapterError> {
        let (id, heard): (String, u64) = call(
            &self.shared.commands,
            &self.shared.scripts.append_event,
            vec![log_key(session), channel(session)],
            self.append_arguments(session, &event),
        )
        .await
        .map_err(|source| unavailable("append event", source))?;
        self.appended(session, &id, heard, event)
    }

    async fn append_stored(
        &self,
        session: &SessionId,
        revision: u64,
        event: Arc<Event>,
        earlier: Earlier,
    ) -> Result<StoredAppended, AdapterError> {
        let mut arguments = self.append_arguments(session, &event);
        arguments.extend([number(revision), number(u64::from(earlier == Earlier::Required))]);
        let (id, last, heard): (String, u64, u64) = call(
            &self.shared.commands,
            &self.shared.scripts.append_stored,
            vec![log_key(session), channel(session), revision_key(session)],
            arguments,
        )
        .await
        .map_err(|source| unavailable("append stored event", source))?;
        if id.is_empty() {
            return Ok(StoredAppended::Early { last });
        }
        self.appended(session, &id, heard, event).map(StoredAppended::At)
    }

    async fn revision(&self, session: &SessionId) -> Result<u64, AdapterError> {
        let last: Option<Bytes> = self
            .shared
            .commands
            .get(revision_key(session))
            .await
            .map_err(|source| unavailable("read revision", source))?;
        // What is no number counts as none to the scripts, too.
        let last = last.as_deref().map(|last| std::str::from_utf8(last).ok()?.parse().ok());
        Ok(last.map_or(0, |last| {
            last.unwrap_or_else(|| {
                self.shared.garbage.found("revision");
                0
            })
        }))
    }

    async fn signal(&self, session: &SessionId, signal: Signal) -> Result<(), AdapterError> {
        let frame = Value::Bytes(frame::signal(&signal).into());
        let heard: Result<u64, _> = self.shared.commands.spublish(channel(session), frame).await;
        heard.map(published).map_err(|source| unavailable("publish signal", source))
    }

    async fn subscribe(&self, session: &SessionId) -> Result<(), AdapterError> {
        self.shared.state().subscribed.insert(session.clone());
        let subscribed = self.shared.subscriber.ssubscribe(channel(session)).await;
        subscribed.map_err(|source| unavailable("subscribe", source))
    }

    async fn unsubscribe(&self, session: &SessionId) -> Result<(), AdapterError> {
        {
            let mut state = self.shared.state();
            state.subscribed.remove(session);
            state.known.remove(session);
        }
        if !self.is_up() {
            // The subscription is gone with the connection, and is not restored.
            return Ok(());
        }
        let unsubscribed = self.shared.subscriber.sunsubscribe(channel(session)).await;
        unsubscribed.map_err(|source| unavailable("unsubscribe", source))
    }

    async fn read(
        &self,
        session: &SessionId,
        after: Position,
        limit: u64,
    ) -> Result<Page, AdapterError> {
        let mut page = self.range(session, after, limit).await?;
        page.contiguous = match page.events.first() {
            Some((first, _)) if first.epoch == after.epoch => first.follows(after),
            Some((first, _)) => after == Position::default() && first.seq == 1,
            None => {
                let head = self.head(session, &[]).await?.position;
                // It was appended in between.
                page.has_more = head.epoch == after.epoch && head.seq > after.seq;
                page.has_more || head == after
            }
        };
        if !page.contiguous && after != Position::default() {
            page = Page {
                contiguous: false,
                ..self.range(session, Position::default(), limit).await?
            };
        }
        if let Some((last, _)) = page.events.last() {
            self.shared.know(session, *last);
        }
        Ok(page)
    }

    async fn text(
        &self,
        session: &SessionId,
        generation: GenerationId,
        attempt: u32,
        from: u64,
    ) -> Result<String, AdapterError> {
        let key = text_key(session, generation, attempt);
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let bytes: Bytes = self
            .shared
            .commands
            .getrange(key, from, TEXT_END)
            .await
            .map_err(|source| unavailable("read text", source))?;
        String::from_utf8(bytes.into()).map_err(|_| malformed("read text", "not UTF-8"))
    }

    async fn take_text(
        &self,
        session: &SessionId,
        generation: GenerationId,
        attempt: u32,
    ) -> Result<String, AdapterError> {
        let older = (1..attempt).rev().take(OLDER_MAX);
        let mut keys = vec![newest_key(session, generation)];
        keys.extend(
            std::iter::once(attempt).chain(older).map(|n| text_key(session, generation, n)),
        );
        let arguments = vec![number(u64::from(attempt)), number(ms(self.shared.options.log_ttl))];
        let taken: Bytes =
            call(&self.shared.commands, &self.shared.scripts.take_text, keys, arguments)
                .await
                .map_err(|source| unavailable("take text", source))?;
        self.touch_text(session, generation, attempt);
        String::from_utf8(taken.into()).map_err(|_| malformed("take text", "not UTF-8"))
    }

    async fn drop_text(
        &self,
        session: &SessionId,
        generation: GenerationId,
        attempt: u32,
    ) -> Result<(), AdapterError> {
        let dropped: Result<u64, _> =
            self.shared.commands.unlink(text_key(session, generation, attempt)).await;
        dropped.map(drop).map_err(|source| unavailable("drop text", source))
    }

    async fn head(
        &self,
        session: &SessionId,
        texts: &[(GenerationId, u32)],
    ) -> Result<Head, AdapterError> {
        let keys = std::iter::once(log_key(session))
            .chain(texts.iter().map(|(id, attempt)| text_key(session, *id, *attempt)))
            .collect();
        let found: Vec<Value> =
            call(&self.shared.commands, &self.shared.scripts.head, keys, Vec::new())
                .await
                .map_err(|source| unavailable("read head", source))?;
        let mut found = found.into_iter();
        let id = found.next().and_then(|value| value.into_string()).unwrap_or_default();
        let position = if id.is_empty() {
            Position::default()
        } else {
            frame::position(&id).ok_or_else(|| malformed("read head", &id))?
        };
        Ok(Head { position, text_lens: found.map(|len| len.as_u64().unwrap_or(0)).collect() })
    }
}

impl Redis {
    /// What the scripts that append an event are given.
    fn append_arguments(&self, session: &SessionId, event: &Event) -> Vec<Value> {
        let known = self.shared.state().known.get(session).copied().unwrap_or_default();
        vec![
            number(known.epoch),
            number(known.seq),
            Value::Bytes(codec::encode_event(event).into()),
            number(ms(self.shared.options.log_ttl)),
        ]
    }

    /// Has the periodic check renew a text.
    fn touch_text(&self, session: &SessionId, generation: GenerationId, attempt: u32) {
        let mut state = self.shared.state();
        state.touched.entry(session.clone()).or_default().insert((generation, attempt));
    }

    /// Notes that an event was appended, and hands it to this node's own readers.
    fn appended(
        &self,
        session: &SessionId,
        id: &str,
        heard: u64,
        event: Arc<Event>,
    ) -> Result<Position, AdapterError> {
        let shared = &self.shared;
        let position = frame::position(id).ok_or_else(|| malformed("append event", id))?;
        published(heard);
        shared.know(session, position);
        shared.state().touched.entry(session.clone()).or_default();
        if let Some(feed) = shared.feed() {
            feed.event(session, position, event);
        }
        Ok(position)
    }

    /// The first `limit` events after a position, wherever they are.
    async fn range(
        &self,
        session: &SessionId,
        after: Position,
        limit: u64,
    ) -> Result<Page, AdapterError> {
        type Entry = (String, Vec<(String, Bytes)>);
        let entries: Vec<Entry> = self
            .shared
            .commands
            .xrange(log_key(session), format!("({after}"), "+", Some(limit + 1))
            .await
            .map_err(|source| unavailable("read log", source))?;
        let has_more = entries.len() as u64 > limit;
        let mut events = Vec::with_capacity(entries.len());
        for (id, fields) in entries.into_iter().take(usize::try_from(limit).unwrap_or(usize::MAX)) {
            let position = frame::position(&id).ok_or_else(|| malformed("read log", &id))?;
            // What cannot be read holds its place: whoever reads on must get past it.
            let body = fields.first().map_or(&[][..], |(_, body)| &body[..]);
            let event = codec::decode_event(body).unwrap_or_else(|_| {
                self.shared.garbage.found("log");
                Event::new(EventKind::Unknown)
            });
            events.push((position, Arc::new(event)));
        }
        Ok(Page { events, contiguous: true, has_more })
    }
}

/// What nobody hears is not published.
fn published(heard: u64) {
    metrics::handles().events_published.increment(u64::from(heard > 0));
}

pub(super) fn number(n: u64) -> Value {
    Value::String(n.to_string().into())
}

pub(super) fn ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn malformed(doing: &'static str, what: &str) -> AdapterError {
    AdapterError::Malformed { doing, what: what.chars().take(128).collect() }
}
