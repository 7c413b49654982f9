//! Sessions' logs and texts in memory.

use std::sync::Arc;

use async_trait::async_trait;

use super::super::{AdapterError, Appended, Earlier, Feed, Head, Log, Page, StoredAppended};
use super::{Memory, TEXTS_MAX};
use crate::domain::{Chunk, Event, GenerationId, Position, SessionId, Signal};

#[async_trait]
impl Log for Memory {
    async fn append_chunk(
        &self,
        session: &SessionId,
        chunk: Chunk,
    ) -> Result<Appended, AdapterError> {
        let hearers = {
            let mut state = self.state();
            let log = state.touch(session, self.ttl);
            let key = (chunk.generation, chunk.attempt);
            let len = log.texts.get(&key).map_or(0, |text| text.len() as u64);
            // Its text is empty, too, where a later attempt has taken it.
            if len < chunk.offset || (len == 0 && !log.is_newest(chunk.generation, chunk.attempt)) {
                return Ok(Appended::Short { len });
            }
            if len >= chunk.end() {
                return Ok(Appended::Done { heard: 0 });
            }
            let text = log.texts.entry(key).or_default();
            let applied = usize::try_from(len - chunk.offset).unwrap_or(usize::MAX);
            text.push_str(chunk.delta.get(applied..).unwrap_or_default());
            while log.texts.len() > TEXTS_MAX {
                log.texts.pop_first();
            }
            state.hearers(session)
        };
        for feed in &hearers {
            feed.chunk(session, chunk.clone());
        }
        Ok(Appended::Done { heard: hearers.len() as u64 })
    }

    fn show(&self, session: &SessionId, chunk: Chunk) {
        let feed = self.state().nodes.get(&self.node).and_then(|sinks| sinks.feed.upgrade());
        if let Some(feed) = feed {
            feed.ahead(session, chunk);
        }
    }

    fn show_event(&self, session: &SessionId, event: Arc<Event>) {
        let feed = self.state().nodes.get(&self.node).and_then(|sinks| sinks.feed.upgrade());
        if let Some(feed) = feed {
            feed.unlogged(session, event);
        }
    }

    async fn append_event(
        &self,
        session: &SessionId,
        event: Arc<Event>,
    ) -> Result<Position, AdapterError> {
        let (position, hearers) = {
            let mut state = self.state();
            let log = state.touch(session, self.ttl);
            let position = log.append(event.clone(), self.events_max);
            (position, state.hearers(session))
        };
        Ok(hand(&hearers, session, position, event))
    }

    async fn append_stored(
        &self,
        session: &SessionId,
        revision: u64,
        event: Arc<Event>,
        earlier: Earlier,
    ) -> Result<StoredAppended, AdapterError> {
        let (position, hearers) = {
            let mut state = self.state();
            let log = state.touch(session, self.ttl);
            if earlier == Earlier::Required && revision > log.revision + 1 {
                return Ok(StoredAppended::Early { last: log.revision });
            }
            log.revision = log.revision.max(revision);
            let position = log.append(event.clone(), self.events_max);
            (position, state.hearers(session))
        };
        Ok(StoredAppended::At(hand(&hearers, session, position, event)))
    }

    async fn revision(&self, session: &SessionId) -> Result<u64, AdapterError> {
        Ok(self.state().sessions.get(session).map_or(0, |log| log.revision))
    }

    async fn signal(&self, session: &SessionId, signal: Signal) -> Result<(), AdapterError> {
        let hearers = self.state().hearers(session);
        for feed in hearers {
            feed.signal(session, signal.clone());
        }
        Ok(())
    }

    async fn subscribe(&self, session: &SessionId) -> Result<(), AdapterError> {
        let mut state = self.state();
        state.touch(session, self.ttl).subscribers.insert(self.node);
        Ok(())
    }

    async fn unsubscribe(&self, session: &SessionId) -> Result<(), AdapterError> {
        if let Some(log) = self.state().sessions.get_mut(session) {
            log.subscribers.remove(&self.node);
        }
        Ok(())
    }

    async fn read(
        &self,
        session: &SessionId,
        after: Position,
        limit: u64,
    ) -> Result<Page, AdapterError> {
        let state = self.state();
        let Some(log) = state.sessions.get(session) else {
            return Ok(Page { contiguous: after == Position::default(), ..Page::default() });
        };
        let contiguous = match log.events.front() {
            Some((first, _)) if after.epoch == first.epoch => first.seq <= after.seq + 1,
            Some((first, _)) => after == Position::default() && first.seq == 1,
            None => after == log.head,
        };
        let newer = log.events.iter().filter(|(at, _)| !contiguous || *at > after);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let events: Vec<_> = newer.clone().take(limit).cloned().collect();
        Ok(Page { has_more: newer.count() > events.len(), events, contiguous })
    }

    async fn text(
        &self,
        session: &SessionId,
        generation: GenerationId,
        attempt: u32,
        from: u64,
    ) -> Result<String, AdapterError> {
        let state = self.state();
        let text =
            state.sessions.get(session).and_then(|log| log.texts.get(&(generation, attempt)));
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        Ok(text.and_then(|text| text.get(from..)).unwrap_or_default().to_owned())
    }

    async fn take_text(
        &self,
        session: &SessionId,
        generation: GenerationId,
        attempt: u32,
    ) -> Result<String, AdapterError> {
        let mut state = self.state();
        let log = state.touch(session, self.ttl);
        log.is_newest(generation, attempt);
        let older: Vec<_> =
            log.texts.range((generation, 0)..(generation, attempt)).map(|(key, _)| *key).collect();
        // The newest is the last.
        let mut text = None;
        for key in older {
            text = log.texts.remove(&key);
        }
        if let Some(own) = log.texts.get(&(generation, attempt)) {
            return Ok(own.clone());
        }
        if let Some(text) = &text {
            log.texts.insert((generation, attempt), text.clone());
        }
        Ok(text.unwrap_or_default())
    }

    async fn drop_text(
        &self,
        session: &SessionId,
        generation: GenerationId,
        attempt: u32,
    ) -> Result<(), AdapterError> {
        if let Some(log) = self.state().sessions.get_mut(session) {
            log.texts.remove(&(generation, attempt));
        }
        Ok(())
    }

    async fn head(
        &self,
        session: &SessionId,
        texts: &[(GenerationId, u32)],
    ) -> Result<Head, AdapterError> {
        let state = self.state();
        let log = state.sessions.get(session);
        let len = |key| log.and_then(|log| log.texts.get(key)).map_or(0, |text| text.len() as u64);
        Ok(Head {
            position: log.map(|log| log.head).unwrap_or_default(),
            text_lens: texts.iter().map(len).collect(),
        })
    }
}

/// Hands an event that was appended to those who hear the session.
fn hand(
    hearers: &[Arc<dyn Feed>],
    session: &SessionId,
    position: Position,
    event: Arc<Event>,
) -> Position {
    for feed in hearers {
        feed.event(session, position, event.clone());
    }
    position
}
