//! What Redis does in one step. Kept to the commands each needs: Redis pays about a microsecond
//! for every one of them. All times are on Redis' clock, in ms. The keys of one script share a
//! hash tag.

/// The time, as `now`.
macro_rules! now {
    () => {
        r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"
    };
}

mod devices;
mod limits;
mod log;
mod nodes;
mod presence;
mod tally;

use std::time::Instant;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::LuaInterface;
use fred::types::scripts::Script;
use fred::types::{FromValue, Value};

use crate::telemetry::metrics;

/// Defines the scripts, known to the client by their hashes.
macro_rules! scripts {
    ($($name:ident = $lua:expr;)+) => {
        pub(super) struct Scripts {
            $(pub $name: Script,)+
        }

        impl Scripts {
            pub(super) fn new() -> Self {
                Self { $($name: Script::from_lua($lua),)+ }
            }
        }
    };
}

scripts! {
    append_chunk = log::APPEND_CHUNK;
    take_text = log::TAKE_TEXT;
    append_event = log::APPEND_EVENT;
    append_stored = log::APPEND_STORED;
    head = log::HEAD;
    enter = presence::ENTER;
    leave = presence::LEAVE;
    online = presence::ONLINE;
    was_in = presence::WAS_IN;
    state_devices = devices::STATE;
    settle = devices::SETTLE;
    devices = devices::READ;
    beat = nodes::BEAT;
    hold_claim = nodes::HOLD_CLAIM;
    resign = nodes::RESIGN;
    count = limits::COUNT;
    spend = limits::SPEND;
    tally = tally::TALLY;
    add_sent = tally::ADD_SENT;
    tallied = tally::READ;
}

/// Calls a script by its hash; where Redis has forgotten it (a restart, `SCRIPT FLUSH`), gives it
/// again and calls once more.
pub(super) async fn call<R: FromValue>(
    client: &Client,
    script: &Script,
    keys: Vec<String>,
    args: Vec<Value>,
) -> Result<R, Error> {
    let begun = Instant::now();
    let answered = match script.evalsha::<R, _, _, _>(client, keys.clone(), args.clone()).await {
        Err(error) if is_unknown_script(&error) => {
            let lua = script.lua().cloned().unwrap_or_default();
            client.eval(lua, keys, args).await
        }
        answered => answered,
    };
    metrics::handles().redis_command.record(begun.elapsed());
    answered
}

fn is_unknown_script(error: &Error) -> bool {
    *error.kind() != ErrorKind::Timeout && error.details().starts_with("NOSCRIPT")
}
