//! Logs and texts, in one step each.

/// Appends to a text at an expected offset and publishes.
///
/// KEYS: text, channel. ARGV: offset, header, delta, time to live in ms (set with the first
/// bytes; the periodic check renews it). Answers `{state, n}`: `{1, heard}` appended,
/// `{0, len}` nothing new, `{-1, len}` too short. A partly applied chunk is published whole:
/// readers cut by offset.
pub(super) const APPEND_CHUNK: &str = r"
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

/// Appends the event `ARGV[3]` to the log `KEYS[1]`, publishes it on `KEYS[2]`, and has its `id`.
/// Where the log is gone or shorter than known, a new epoch begins: above the old one and not
/// below Redis' clock.
macro_rules! append {
    () => {
        r"
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
"
    };
}

/// Appends to a log and publishes.
///
/// KEYS: log, channel. ARGV: the epoch and seq that the node knows the log to have reached, the
/// event, time to live in ms. Answers the new entry's id.
pub(super) const APPEND_EVENT: &str = concat!(append!(), "return id\n");

/// Appends an event that the store has, in the order of the store's revisions.
///
/// KEYS: log, channel, revision. ARGV: as above, then the event's revision, and 1 where the log
/// must have those before it. Answers `{id, last}`; the id is empty where nothing was appended.
pub(super) const APPEND_STORED: &str = concat!(
    r"
local last = tonumber(redis.call('GET', KEYS[3]) or 0)
local revision = tonumber(ARGV[5])
if ARGV[6] == '1' and revision > last + 1 then
  return {'', last}
end
",
    append!(),
    r"
if revision > last then
  redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[4])
end
return {id, last}
"
);

/// How far a log and some texts reach, without their content.
///
/// KEYS: log, texts…. Answers `{id or '', lengths…}`.
pub(super) const HEAD: &str = r"
local head = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local found = {head and head[1] or ''}
for i = 2, #KEYS do
  found[i] = redis.call('STRLEN', KEYS[i])
end
return found
";
