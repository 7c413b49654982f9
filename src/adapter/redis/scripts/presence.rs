//! Who is in a session.
//!
//! Two keys: a hash, user → `label=expiry;…`, the nodes that have a device of theirs; and a sorted
//! set, user → until when they are there, or were. A label is a node's name in what it vouches for.

/// A node has a device of a user, or still has it.
///
/// KEYS: hash, sorted set. ARGV: user, label, how long the node vouches, how long it is remembered
/// who was there, the most of those, the most users to list. Answers `{first, count, users…}`.
pub(super) const ENTER: &str = concat!(
    now!(),
    r"
local ttl, kept, departed_max = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local others, first = '', 1
for label, expiry in string.gmatch(redis.call('HGET', KEYS[1], ARGV[1]) or '', '([^=;]+)=(%d+);') do
  if tonumber(expiry) > now then
    first = 0
    if label ~= ARGV[2] then others = others .. label .. '=' .. expiry .. ';' end
  end
end
local expiry = string.format('%.0f', now + ttl)
redis.call('HSET', KEYS[1], ARGV[1], others .. ARGV[2] .. '=' .. expiry .. ';')
redis.call('ZADD', KEYS[2], expiry, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ttl + kept)
redis.call('PEXPIRE', KEYS[2], ttl + kept)
local count = redis.call('ZCOUNT', KEYS[2], '(' .. now, '+inf')
local over = redis.call('ZCARD', KEYS[2]) - count - departed_max
local old
if over > 0 then
  old = redis.call('ZRANGE', KEYS[2], 0, math.min(over, 100) - 1)
else
  old = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - kept, 'LIMIT', 0, 100)
end
if #old > 0 then
  redis.call('HDEL', KEYS[1], unpack(old))
  redis.call('ZREM', KEYS[2], unpack(old))
end
local answer = {first, count}
local listed = tonumber(ARGV[6])
if listed > 0 then
  for i, user in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. now, '+inf', 'LIMIT', 0, listed)) do
    answer[i + 2] = user
  end
end
return answer
"
);

/// A node has no device of some users any more.
///
/// KEYS: hash, sorted set. ARGV: label, users…. Answers `{count, users…}`: how many are there now,
/// and of whom that was the last one.
pub(super) const LEAVE: &str = concat!(
    now!(),
    r"
local answer = {0}
for i = 2, #ARGV do
  local user, mine, others, latest = ARGV[i], false, '', 0
  for label, expiry in string.gmatch(redis.call('HGET', KEYS[1], user) or '', '([^=;]+)=(%d+);') do
    if label == ARGV[1] then
      mine = true
    elseif tonumber(expiry) > now then
      others = others .. label .. '=' .. expiry .. ';'
      latest = math.max(latest, tonumber(expiry))
    end
  end
  if mine and others ~= '' then
    redis.call('HSET', KEYS[1], user, others)
    redis.call('ZADD', KEYS[2], latest, user)
  elseif mine then
    redis.call('HDEL', KEYS[1], user)
    redis.call('ZADD', KEYS[2], now, user)
    answer[#answer + 1] = user
  end
end
answer[1] = redis.call('ZCOUNT', KEYS[2], '(' .. now, '+inf')
return answer
"
);

/// Who is there, and how many.
///
/// KEYS: sorted set. ARGV: the most users to list. Answers `{count, users…}`.
pub(super) const ONLINE: &str = concat!(
    now!(),
    r"
local users = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'LIMIT', 0, ARGV[1])
table.insert(users, 1, redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf'))
return users
"
);

/// Whether a user is there, or was within a time.
///
/// KEYS: sorted set. ARGV: user, the time. Answers 1 or 0.
pub(super) const WAS_IN: &str = concat!(
    now!(),
    r"
local until_when = redis.call('ZSCORE', KEYS[1], ARGV[1])
return until_when and tonumber(until_when) > now - tonumber(ARGV[2]) and 1 or 0
"
);
