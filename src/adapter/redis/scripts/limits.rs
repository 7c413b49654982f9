//! How often users have asked.

/// Counts one where it is allowed: the generic cell rate algorithm.
///
/// KEYS: the time at which all is forgotten, µs. ARGV: the µs that one takes to be forgotten, how
/// many may be remembered. Answers 0, or after how many µs it will be allowed.
pub(super) const COUNT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local each = tonumber(ARGV[1])
local free_at = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + each
local wait = free_at - now - each * ARGV[2]
if wait > 0 then
  return wait
end
redis.call('SET', KEYS[1], string.format('%.0f', free_at), 'PX', math.ceil((free_at - now) / 1000))
return 0
";
