//! What Redis does in one step. Kept to the commands each needs: Redis pays about a microsecond
//! for every one of them.

use std::time::Instant;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::LuaInterface;
use fred::types::scripts::Script;
use fred::types::{FromValue, Value};

use crate::telemetry::metrics;

/// Appends to a text at an expected offset and publishes.
///
/// KEYS: text, channel. ARGV: offset, header, delta, time to live in ms (set with the first
/// bytes; the periodic check renews it). Answers `{state, n}`: `{1, heard}` appended,
/// `{0, len}` nothing new, `{-1, len}` too short. A partly applied chunk is published whole:
/// readers cut by offset.
const APPEND_CHUNK: &str = r"
local len = redis.call('STRLEN', KEYS[1])
local offset = tonumber(ARGV[1])
if len == offset then
  redis.call('APPEND', KEYS[1], ARGV[3])
elseif len < offset then
  return {-1, len}
elseif len >= offset + #ARGV[3] then
  return {0, len}
else
  redis.call('APPEND', KEYS[1], string.sub(ARGV[3], len - offset + 1))
end
if offset == 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return {1, redis.call('SPUBLISH', KEYS[2], ARGV[2] .. ARGV[3])}
";

/// Appends to a log and publishes.
///
/// KEYS: log, channel. ARGV: the epoch and seq that the node knows the log to have reached, the
/// event, time to live in ms. Answers the new entry's id. Where the log is gone or shorter than
/// known, a new epoch begins: above the old one and not below Redis' clock.
const APPEND_EVENT: &str = r"
local epoch, seq = tonumber(ARGV[1]), tonumber(ARGV[2])
local id = false
if epoch > 0 then
  local added = redis.pcall('XADD', KEYS[1], 'NOMKSTREAM', ARGV[1] .. '-*', 'e', ARGV[3])
  if type(added) == 'string' then
    if tonumber(string.match(added, '-(%d+)$')) > seq then
      id = added
    else
      redis.call('XDEL', KEYS[1], added)
    end
  end
end
if not id then
  local head = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  local e, s = 0, 0
  if head then
    e, s = string.match(head[1], '^(%d+)-(%d+)$')
    e, s = tonumber(e), tonumber(s)
  end
  if e == 0 or e < epoch or (e == epoch and s < seq) then
    local time = redis.call('TIME')
    e = math.max(math.max(e, epoch) + 1, time[1] * 1000 + math.floor(time[2] / 1000))
    s = 0
  end
  id = string.format('%.0f-%.0f', e, s + 1)
  redis.call('XADD', KEYS[1], id, 'e', ARGV[3])
  if s == 0 then
    redis.call('PEXPIRE', KEYS[1], ARGV[4])
  end
end
redis.call('SPUBLISH', KEYS[2], 'E1' .. id .. ' ' .. ARGV[3])
return id
";

/// How far a log and some texts reach, without their content.
///
/// KEYS: log, texts…. Answers `{id or '', lengths…}`.
const HEAD: &str = r"
local head = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local found = {head and head[1] or ''}
for i = 2, #KEYS do
  found[i] = redis.call('STRLEN', KEYS[i])
end
return found
";

/// A node's device of a user comes (ARGV 3 > 0) or goes.
///
/// KEYS: the hash user → `node=expiry;…`. ARGV: user, node, time to live in ms or 0. Answers
/// `{others, count}`: whether the user is there through another node, or was through this one,
/// and how many users the hash has.
const PRESENCE: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ttl = tonumber(ARGV[3])
local kept, mine = '', 0
for node, expiry in string.gmatch(redis.call('HGET', KEYS[1], ARGV[1]) or '', '([^=;]+)=(%d+);') do
  if tonumber(expiry) > now then
    if node == ARGV[2] then mine = 1 else kept = kept .. node .. '=' .. expiry .. ';' end
  end
end
local others = kept ~= '' and 1 or 0
if ttl > 0 then
  redis.call('HSET', KEYS[1], ARGV[1], kept .. ARGV[2] .. '=' .. string.format('%.0f', now + ttl) .. ';')
  redis.call('PEXPIRE', KEYS[1], ttl * 4)
  if mine == 1 then others = 1 end
elseif kept ~= '' then
  redis.call('HSET', KEYS[1], ARGV[1], kept)
else
  redis.call('HDEL', KEYS[1], ARGV[1])
  if mine == 0 then others = 1 end
end
return {others, redis.call('HLEN', KEYS[1])}
";

/// Who is there, and how many; what has expired is dropped.
///
/// KEYS: the hash. ARGV: the most users to list. Answers `{count, users…}`.
const ONLINE: &str = r"
local limit = tonumber(ARGV[1])
local count = redis.call('HLEN', KEYS[1])
if count > limit * 2 then
  local listed = redis.call('HRANDFIELD', KEYS[1], limit)
  table.insert(listed, 1, count)
  return listed
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local all = redis.call('HGETALL', KEYS[1])
local listed, live = {0}, 0
for i = 1, #all, 2 do
  local there = false
  for expiry in string.gmatch(all[i + 1], '=(%d+);') do
    there = there or tonumber(expiry) > now
  end
  if there then
    live = live + 1
    if live <= limit then listed[#listed + 1] = all[i] end
  else
    redis.call('HDEL', KEYS[1], all[i])
  end
end
listed[1] = live
return listed
";

/// The scripts, known to the client by their hashes.
pub(super) struct Scripts {
    pub append_chunk: Script,
    pub append_event: Script,
    pub head: Script,
    pub presence: Script,
    pub online: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            append_chunk: Script::from_lua(APPEND_CHUNK),
            append_event: Script::from_lua(APPEND_EVENT),
            head: Script::from_lua(HEAD),
            presence: Script::from_lua(PRESENCE),
            online: Script::from_lua(ONLINE),
        }
    }
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
