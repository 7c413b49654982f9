//! Who is typing in a session. Each node keeps it for its own readers, by its own clock, so that
//! it ends also where the word that it ended is lost, or the node of whoever typed is gone.

use std::sync::Weak;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Shared;
use super::tail::TailState;
use crate::dialect::{Dialects, Shown};
use crate::domain::event::TYPING_TTL;
use crate::domain::{Signal, UserId};

/// The most users of a session that are shown to be typing at once; one more is not shown.
const TYPISTS_MAX: usize = 256;
/// How often it is looked whose time is up.
const LOOK_EVERY: Duration = Duration::from_secs(1);

struct Typist {
    user: UserId,
    name: Option<String>,
    until: Instant,
}

/// Who is shown to be typing, at most [`TYPISTS_MAX`].
#[derive(Default)]
pub(super) struct Typing(Vec<Typist>);

impl Typing {
    /// They type from now on, or still do. `false` where there is no room for one more.
    fn start(&mut self, user: &UserId, name: Option<&String>) -> bool {
        let until = Instant::now() + TYPING_TTL;
        if let Some(typist) = self.0.iter_mut().find(|typist| typist.user == *user) {
            typist.until = until;
            return true;
        }
        let fits = self.0.len() < TYPISTS_MAX;
        if fits {
            self.0.push(Typist { user: user.clone(), name: name.cloned(), until });
        }
        fits
    }

    /// They type no longer; `None` where they did not.
    fn stop(&mut self, user: &UserId) -> Option<Signal> {
        let at = self.0.iter().position(|typist| typist.user == *user)?;
        Some(stopped(self.0.swap_remove(at)))
    }

    /// Those who have not said so again in time.
    fn expire(&mut self) -> Vec<Signal> {
        let now = Instant::now();
        self.0.extract_if(.., |typist| typist.until <= now).map(stopped).collect()
    }
}

fn stopped(typist: Typist) -> Signal {
    Signal::TypingStopped { user: typist.user, name: typist.name }
}

impl TailState {
    /// Shows what passes to all members but the user's own devices. Who stops typing is shown to
    /// do so once, and only where they were shown to type.
    pub(super) fn show_signal(&mut self, dialects: &Dialects, signal: &Signal) {
        match signal {
            Signal::TypingStarted { user, name } => {
                if self.typing.start(user, name.as_ref()) {
                    self.pass(dialects, signal);
                }
            }
            Signal::TypingStopped { user, .. } => {
                if self.typing.stop(user).is_some() {
                    self.pass(dialects, signal);
                }
            }
            Signal::UserLeft { user, .. } => {
                if let Some(stopped) = self.typing.stop(user) {
                    self.pass(dialects, &stopped);
                }
                self.pass(dialects, signal);
            }
            Signal::UserJoined { .. } => self.pass(dialects, signal),
        }
    }

    fn expire_typing(&mut self, dialects: &Dialects) {
        for stopped in self.typing.expire() {
            self.pass(dialects, &stopped);
        }
    }

    fn pass(&mut self, dialects: &Dialects, signal: &Signal) {
        // Whoever does not take it misses it, and stays live.
        let except = Some(signal.user());
        self.members.hand(dialects, &self.session, Shown::Signal(signal), except, || None);
    }
}

/// Ends what was not renewed, apart from whatever waits for the adapter. Ends with the hub.
pub(super) async fn watch_over(watched: Weak<Shared>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(shared) = watched.upgrade() else { return };
        for tail in shared.all_tails() {
            tail.state().expire_typing(&shared.dialects);
        }
    }
}
