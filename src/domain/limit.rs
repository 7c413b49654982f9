//! How often a user may do what, on all their devices together.

use std::time::Duration;

use super::{Error, ErrorCode};

/// How often something may be done: `count` times at once, and again as the `window` passes
/// (the generic cell rate algorithm). A count of 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How often within the window.
    pub count: u32,
    /// How long that is.
    pub window: Duration,
}

impl Rate {
    /// So many a minute.
    pub const fn per_minute(count: u32) -> Self {
        Self { count, window: Duration::from_secs(60) }
    }
}

/// How many tokens a user's answers may take: `tokens` in each `window` of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// How many.
    pub tokens: u64,
    /// In how long. Windows begin at multiples of it since 1970.
    pub window: Duration,
}

impl Budget {
    /// What a user is told who has spent it, where there is one again `after` that time.
    pub fn spent(self, after: Duration) -> Error {
        let (window, wait) = (whole_seconds(self.window), whole_seconds(after));
        let message = format!(
            "Your budget of {} tokens in {window} s is spent: ask again in {wait} s",
            self.tokens
        );
        Error::new(ErrorCode::RateLimit, message).retry_after(after)
    }
}

fn whole_seconds(duration: Duration) -> u128 {
    duration.as_millis().div_ceil(1000)
}

/// Defines what is counted, each by itself.
macro_rules! actions {
    ($($(#[$doc:meta])* $action:ident = $name:literal $(, $default:literal a minute)?;)+) => {
        /// What is counted, each by itself, over whichever transport it is asked.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Action {
            $($(#[$doc])* $action,)+
        }

        impl Action {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$action,)+];

            /// Its name in `RATE_LIMITS` and in metrics: that of the event, where there is one.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$action => $name,)+
                }
            }

            /// What an event of this name is counted as.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|action| action.name() == name)
            }

            /// Its own default; `None`: the one that all others share.
            pub const fn default_rate(self) -> Option<Rate> {
                match self {
                    $(Self::$action => actions!(@rate $($default)?),)+
                }
            }
        }
    };
    (@rate) => { None };
    (@rate $default:literal) => { Some(Rate::per_minute($default)) };
}

actions! {
    /// Joining a session, unless the user was in it a moment ago.
    Join = "session:join", 5 a minute;
    /// The same, in the dialect `subscribe`.
    Subscribe = "subscribe", 5 a minute;
    /// The same, in `conversation` and `persona`.
    ChatJoin = "chat:join", 5 a minute;
    /// Joining one that the user is in, or was in a moment ago, in whichever dialect. Devices that come
    /// back do so, to all their sessions at once; who joins and leaves in a loop does, too.
    Rejoin = "session:rejoin", 600 a minute;
    /// Sending a message.
    Send = "message:send", 30 a minute;
    /// The same, in `conversation`.
    ChatSend = "chat:send", 30 a minute;
    /// The same, in `persona`.
    ChatMessage = "chat:message", 30 a minute;
    /// Editing one.
    Edit = "message:edit", 20 a minute;
    /// Deleting one.
    Delete = "message:delete", 20 a minute;
    /// Moving one's read position on.
    See = "message:seen", 60 a minute;
    /// Giving an emoji, or taking it back.
    React = "message:reaction", 60 a minute;
    /// Saying that one types.
    Type = "typing:start", 100 a minute;
    /// The same, in `conversation`.
    ChatType = "chat:typing", 100 a minute;
    /// Saying who one is.
    ChatAuth = "chat:auth";
    /// Asking an agent.
    Request = "stream:request", 10 a minute;
    /// Asking for a stream token.
    InitStream = "stream:init", 10 a minute;
    /// Opening an SSE stream.
    OpenStream = "stream:open", 30 a minute;
    /// Reading over REST.
    Read = "read", 300 a minute;
    /// Making a session.
    CreateSession = "session:create";
    /// Changing one.
    UpdateSession = "session:update";
    /// Deleting one.
    DeleteSession = "session:delete";
    /// Adding a member.
    AddMember = "member:add";
    /// Removing one.
    RemoveMember = "member:remove";
    /// Naming a file with a message.
    Attach = "attachment:add";
    /// Taking one away.
    Detach = "attachment:delete";
}

/// The rate of each action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rates {
    /// Where neither the operator nor [`Action::default_rate`] says otherwise.
    pub others: Rate,
    /// What the operator chose.
    pub chosen: Vec<(Action, Rate)>,
}

impl Rates {
    /// How often `action` may be done.
    pub fn of(&self, action: Action) -> Rate {
        let chosen = self.chosen.iter().find(|(chosen, _)| *chosen == action);
        chosen.map(|(_, rate)| *rate).or(action.default_rate()).unwrap_or(self.others)
    }
}

/// What becomes of profanity in what people write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moderation {
    /// It becomes asterisks.
    Mask,
    /// The text is refused.
    Reject,
    /// Nothing.
    Off,
}
