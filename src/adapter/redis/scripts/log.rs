//! Logs and texts, in one step each.

/// Appends to a text at an expected offset and publishes.
///
/// KEYS: text, channel; for offset 0 the generation's newest attempt, too. ARGV: offset, header,
/// delta, time to live in ms (set with the first bytes; the periodic check renews it); for offset
/// 0 the attempt, too. Answers `{state, n}`: `{1, heard}` appended, `{0, len}` nothing new,
/// `{-1, len}` too short. A partly applied chunk is published whole: readers cut by offset.
///
/// Where a later attempt has taken the text, the offset refuses an earlier one, but for offset 0:
/// only there the newest attempt is asked for.
pub(super) const APPEND_CHUNK: &str = r"
local len = redis.call('STRLEN', KEYS[1])
local offset = tonumber(ARGV[1])
if len == offset then
  if len == 0 then
    local newest, attempt = tonumber(redis.call('GET', KEYS[3]) or 1) or 1, tonumber(ARGV[5])
    if newest > attempt then
      return {-1, 0}
    elseif newest < attempt then
      redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[4])
    end
  end
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

/// Makes the newest older text that of an attempt, and refuses the older attempts from then on.
///
/// KEYS: the generation's newest attempt, the attempt's text, those of older attempts, the newest
/// first. ARGV: attempt, time to live in ms. Answers the text.
pub(super) const TAKE_TEXT: &str = r"
if (tonumber(redis.call('GET', KEYS[1]) or 1) or 1) <= tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
local taken = redis.call('STRLEN', KEYS[2]) > 0
for i = 3, #KEYS do
  if taken then
    redis.call('UNLINK', KEYS[i])
  elseif redis.call('STRLEN', KEYS[i]) > 0 then
    redis.call('RENAME', KEYS[i], KEYS[2])
    taken = true
  end
end
if not taken then
  return ''
end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return redis.call('GET', KEYS[2])
";

/// Appends the event `ARGV[3]` to the log `KEYS[1]`, publishes it on `KEYS[2]`, and has its `id`
/// and how many `heard` of it. Where the log is gone or shorter than known, a new epoch begins: above the old one and not
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
local heard = redis.call('SPUBLISH', KEYS[2], 'E1' .. id .. ' ' .. ARGV[3])
"
    };
}

/// Appends to a log and publishes.
///
/// KEYS: log, channel. ARGV: the epoch and seq that the node knows the log to have reached, the
/// event, time to live in ms. Answers `{id, heard}`: the new entry's id, and how many nodes heard.
pub(super) const APPEND_EVENT: &str = concat!(append!(), "return {id, heard}\n");

/// Appends an event that the store has, in the order of the store's revisions.
///
/// KEYS: log, channel, revision. ARGV: as above, then the event's revision, and 1 where the log
/// must have those before it. Answers `{id, last, heard}`; the id is empty where nothing was appended.
pub(super) const APPEND_STORED: &str = concat!(
    r"
local last = tonumber(redis.call('GET', KEYS[3]) or 0) or 0
local revision = tonumber(ARGV[5])
if ARGV[6] == '1' and revision > last + 1 then
  return {'', last, 0}
end
",
    append!(),
    r"
if revision > last then
  redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[4])
end
return {id, last, heard}
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
