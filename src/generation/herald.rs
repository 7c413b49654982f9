//! What has to stand in the log beside an attempt's text, appended in order: the stored events
//! before it, its beginning, then stages and asides.
//!
//! Each is appended for as long as it takes. This node's own readers do not wait for Redis: after
//! a moment they are shown it from memory.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::sleep;

use super::writer::LATE;
use super::{PAUSE, Shared};
use crate::domain::{Event, Position, SessionId};
use crate::store::Outgoing;

pub(super) struct Herald {
    shared: Arc<Shared>,
    session: SessionId,
    /// Appended again, under the same ids, should the log be lost: the beginning and the stages.
    standing: Vec<Arc<Event>>,
    /// What waits for what is being brought. Its length is bounded by those who push.
    waiting: VecDeque<(Arc<Event>, Stands)>,
    bringing: Option<BoxFuture<'static, ()>>,
    is_open: bool,
}

/// Whether an event is appended again should the log be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stands {
    Yes,
    No,
}

impl Herald {
    /// Brings nothing before [`Herald::open`].
    pub(super) fn new(shared: Arc<Shared>, session: SessionId, beginning: Event) -> Self {
        Self {
            shared,
            session,
            standing: vec![Arc::new(beginning)],
            waiting: VecDeque::new(),
            bringing: None,
            is_open: false,
        }
    }

    /// Brings what stands before the text, after `announce`.
    pub(super) fn open(&mut self, announce: Vec<Outgoing>) {
        self.is_open = false;
        let (shared, session) = (self.shared.clone(), self.session.clone());
        self.bringing = Some(bring(shared, session, announce, self.standing.clone()));
    }

    /// Brings an event after all those before it.
    pub(super) fn push(&mut self, event: Event, stands: Stands) {
        self.waiting.push_back((Arc::new(event), stands));
        self.next();
    }

    fn next(&mut self) {
        if !self.is_open || self.bringing.is_some() {
            return;
        }
        if let Some((event, stands)) = self.waiting.pop_front() {
            if stands == Stands::Yes {
                self.standing.push(event.clone());
            }
            let (shared, session) = (self.shared.clone(), self.session.clone());
            self.bringing = Some(bring(shared, session, Vec::new(), vec![event]));
        }
    }

    /// Waits until something was brought; for ever where nothing is. `true` where the text may
    /// follow now.
    ///
    /// # Cancel safety
    /// Safe: what is being brought goes on the next time.
    pub(super) async fn progress(&mut self) -> bool {
        match &mut self.bringing {
            Some(bringing) => bringing.await,
            None => std::future::pending().await,
        }
        self.bringing = None;
        let opens = !std::mem::replace(&mut self.is_open, true);
        self.next();
        opens
    }

    /// Whether all was brought.
    pub(super) fn is_done(&self) -> bool {
        self.bringing.is_none() && self.waiting.is_empty()
    }
}

fn bring(
    shared: Arc<Shared>,
    session: SessionId,
    announce: Vec<Outgoing>,
    events: Vec<Arc<Event>>,
) -> BoxFuture<'static, ()> {
    async move {
        let late = async {
            sleep(LATE).await;
            for outgoing in &announce {
                shared.adapter.show_event(&session, Arc::new(outgoing.event.clone()));
            }
            for event in &events {
                shared.adapter.show_event(&session, event.clone());
            }
            std::future::pending::<()>().await;
        };
        let append = async {
            for outgoing in &announce {
                until_appended(|| shared.outbox.deliver(outgoing)).await;
            }
            for event in &events {
                until_appended(|| shared.adapter.append_event(&session, event.clone())).await;
            }
        };
        tokio::select! {
            () = append => {}
            () = late => {}
        }
    }
    .boxed()
}

/// Appends until it is done.
async fn until_appended<F, E>(append: impl Fn() -> F)
where
    F: Future<Output = Result<Position, E>>,
    E: std::fmt::Display,
{
    let mut pause = PAUSE.0;
    while let Err(error) = append().await {
        tracing::debug!(%error, "append beside the text");
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}
