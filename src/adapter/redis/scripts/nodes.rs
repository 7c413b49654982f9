//! Which nodes live, and who takes out the users of those that do not.
//!
//! Two sorted sets: the nodes that live, label → last beat; the dead whose users are still to be
//! taken out, label → until when somebody is at it.

/// A node says that it lives, and sees who does not.
///
/// Nobody is taken for dead by a node whose own beats have not come regularly for as long as it
/// takes: where Redis was away or everything stood still, all beats are old. A beat that was
/// answered to nobody, such as one that waited until Redis went on, breaks the regularity as well.
///
/// KEYS: living, dead. ARGV: label, after how long a node is dead, since when this node's beats
/// have come regularly and when the last one did (as that was answered; 0 at first), 1 where this
/// is the label's first beat, the label before it (or empty), which what comes late may still be
/// written under, for how long a dead node is claimed (0: none is wanted). Answers `{since, now,
/// living, claimed or ''}`; `since` is 0 where this node was taken for dead.
pub(super) const BEAT: &str = concat!(
    now!(),
    r"
local label, dead_after, since = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local last = redis.call('ZSCORE', KEYS[1], label)
if not last and (ARGV[5] ~= '1' or redis.call('ZSCORE', KEYS[2], label)) then
  return {0, 0, 0, ''}
end
if since == 0 or not last or tonumber(last) ~= tonumber(ARGV[4]) or now - last > dead_after * 3 / 4 then
  since = now
end
redis.call('ZADD', KEYS[1], now, label)
if ARGV[6] ~= '' then
  redis.call('ZREM', KEYS[1], ARGV[6])
  redis.call('ZADD', KEYS[2], now + dead_after, ARGV[6])
end
local claimed = ''
if now - since >= dead_after then
  for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - dead_after, 'LIMIT', 0, 16)) do
    redis.call('ZREM', KEYS[1], dead)
    redis.call('ZADD', KEYS[2], 0, dead)
  end
  if tonumber(ARGV[7]) > 0 then
    claimed = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1)[1] or ''
    if claimed ~= '' then
      redis.call('ZADD', KEYS[2], now + ARGV[7], claimed)
    end
  end
end
return {since, now, redis.call('ZCOUNT', KEYS[1], now - dead_after, '+inf'), claimed}
"
);

/// Goes on claiming a dead node.
///
/// KEYS: dead. ARGV: label, for how long.
pub(super) const HOLD_CLAIM: &str = concat!(
    now!(),
    r"
return redis.call('ZADD', KEYS[1], 'XX', now + ARGV[2], ARGV[1])
"
);

/// A node ends. Its users are left to the others, who may begin after a while.
///
/// KEYS: living, dead. ARGV: label, how long that is.
pub(super) const RESIGN: &str = concat!(
    now!(),
    r"
if redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then
  redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1])
end
return 1
"
);
