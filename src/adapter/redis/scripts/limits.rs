//! How often users have asked.

/// Counts one where it is allowed: the generic cell rate algorithm.
///
/// KEYS: the time at which all is forgotten, µs. ARGV: the µs that one takes to be forgotten, how
/// many may be remembered. Answers 0, or after how many µs it will be allowed.
pub(super) const COUNT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local each = tonumber(ARGV[1])
local free_at = math.max(tonumber(redis.call('GET', KEYS[1]) or 0) or 0, now) + each
local wait = free_at - now - each * ARGV[2]
if wait > 0 then
  return wait
end
redis.call('SET', KEYS[1], string.format('%.0f', free_at), 'PX', math.ceil((free_at - now) / 1000))
return 0
";

/// Spends tokens in the window of the clock that it is now; with 0 only asks. The count ends with
/// its window.
///
/// KEYS: what was spent. ARGV: the window in ms, tokens, how many there are. Answers 0, or after
/// how many ms the window ends where nothing is left.
pub(super) const SPEND: &str = concat!(
    now!(),
    r"
local left = ARGV[1] - now % ARGV[1]
local spent = 0
if ARGV[2] == '0' then
  spent = tonumber(redis.call('GET', KEYS[1]) or 0) or 0
else
  spent = redis.call('INCRBY', KEYS[1], ARGV[2])
  redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', now + left))
end
if spent >= tonumber(ARGV[3]) then
  return left
end
return 0
"
);
