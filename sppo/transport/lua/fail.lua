-- Count a reported failure: offer the ticket again, or give it up with its reason.
-- KEYS 1 lease  2 todo list of its stream  3 failures (hash)  4 state  5 dead (stream)  6 tickets  7 minv
-- ARGV 1 uid  2 stream  3 reason  4 most attempts
-- Returns 1 if the ticket is now a dead letter.
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('HGET', KEYS[4], ARGV[1]) or redis.call('HEXISTS', KEYS[6], ARGV[1]) == 0 then return 0 end
if redis.call('HINCRBY', KEYS[3], ARGV[1], 1) >= tonumber(ARGV[4]) then
  redis.call('HSET', KEYS[4], ARGV[1], 'dead')
  redis.call('XADD', KEYS[5], '*', 'uid', ARGV[1], 'stream', ARGV[2], 'reason', ARGV[3])
  redis.call('HDEL', KEYS[6], ARGV[1])
  redis.call('HDEL', KEYS[7], ARGV[1])
  return 1
end
if not redis.call('LPOS', KEYS[2], ARGV[1]) then redis.call('RPUSH', KEYS[2], ARGV[1]) end
return 0
