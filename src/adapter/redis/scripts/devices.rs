//! A user's devices.
//!
//! One hash for each user: label → `count:number:expiry`, how many devices a node has, as its
//! statement of that number says; `@online`, where they count as online; `@seen`, when they were
//! last seen. Of a node's statements the one with the highest number holds, so that they may come
//! late or twice. What is no statement is taken for one that has expired.

/// A node states how many devices of a user it has.
///
/// KEYS: hash. ARGV: label, count, number, how long it vouches, the most devices on all nodes (0:
/// no limit), how long the hash is kept. Answers -1 where there would be too many, and nothing was
/// changed; else whether the user was offline.
pub(super) const STATE: &str = concat!(
    now!(),
    r"
local count, number, max = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5])
local online, others, known = false, 0, 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if all[i] == '@online' then
    online = true
  elseif all[i] ~= '@seen' then
    local c, n, expiry = string.match(all[i + 1], '^(%d+):(%d+):(%d+)$')
    if all[i] == ARGV[1] then
      known = tonumber(n or 0)
    elseif tonumber(expiry or 0) > now then
      others = others + tonumber(c)
    else
      redis.call('HDEL', KEYS[1], all[i])
    end
  end
end
if max > 0 and others + count > max then
  return -1
end
if number > known then
  local value = ARGV[2] .. ':' .. ARGV[3] .. ':' .. string.format('%.0f', now + ARGV[4])
  redis.call('HSET', KEYS[1], ARGV[1], value, '@seen', string.format('%.0f', now))
  if count > 0 and not online then
    redis.call('HSET', KEYS[1], '@online', 1)
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
end
return online and 0 or 1
"
);

/// Takes a user offline who has no device any more, and a dead node's devices before that.
///
/// KEYS: hash. ARGV: the dead node's label, or empty. Answers 1 where the user was online and is
/// not any longer.
pub(super) const SETTLE: &str = concat!(
    now!(),
    r"
local online, live = false, 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if all[i] == '@online' then
    online = true
  elseif all[i] ~= '@seen' then
    local count, expiry = string.match(all[i + 1], '^(%d+):%d+:(%d+)$')
    if all[i] == ARGV[1] then
      redis.call('HDEL', KEYS[1], all[i])
      if tonumber(count or 0) > 0 then
        redis.call('HSET', KEYS[1], '@seen', string.format('%.0f', now))
      end
    elseif tonumber(expiry or 0) > now then
      live = live + tonumber(count)
    end
  end
end
if online and live == 0 then
  return redis.call('HDEL', KEYS[1], '@online')
end
return 0
"
);

/// How many devices a user has.
///
/// KEYS: hash. Answers `{count, last seen or 0, now}`.
pub(super) const READ: &str = concat!(
    now!(),
    r"
local live, seen = 0, 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if all[i] == '@seen' then
    seen = tonumber(all[i + 1]) or 0
  elseif all[i] ~= '@online' then
    local count, expiry = string.match(all[i + 1], '^(%d+):%d+:(%d+)$')
    if tonumber(expiry or 0) > now then live = live + tonumber(count) end
  end
end
return {live, seen, now}
"
);
