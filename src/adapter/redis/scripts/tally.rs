//! What is counted of running generations.

/// Says how far a generation is; what was sent is left as it is.
///
/// KEYS: the counts. ARGV: time to live in ms, tokens, errors, ms to the first token or ''.
pub(super) const TALLY: &str = r"
redis.call('HSET', KEYS[1], 'tokens', ARGV[2], 'errors', ARGV[3])
if ARGV[4] == '' then
  redis.call('HDEL', KEYS[1], 'first')
else
  redis.call('HSET', KEYS[1], 'first', ARGV[4])
end
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
";

/// Adds to what was sent.
///
/// KEYS: the counts. ARGV: time to live in ms, bytes.
pub(super) const ADD_SENT: &str = r"
redis.call('HINCRBY', KEYS[1], 'sent', ARGV[2])
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
";

/// KEYS: the counts. Answers `{tokens, errors, first, sent}`, each where it was counted.
pub(super) const READ: &str = r"
return redis.call('HMGET', KEYS[1], 'tokens', 'errors', 'first', 'sent')
";
