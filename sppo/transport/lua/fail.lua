#!lua flags=allow-oom
-- Count a reported failure: offer the ticket again, or give it up with its reason. One attempt counts once.
-- KEYS 1 lease  2 todo list of its stream  3 failures (hash: uid -> count, uid:at -> last attempt counted)
--      4 state  5 dead (stream)  6 tickets  7 minv
-- ARGV 1 uid  2 stream  3 reason  4 most attempts  5 attempt
-- Returns 1 if the ticket is a dead letter now.
local state = redis.call('HGET', KEYS[4], ARGV[1])
if state == 'dead' then return redis.call('HGET', KEYS[3], ARGV[1] .. ':at') == ARGV[5] and 1 or 0 end
if state or redis.call('HEXISTS', KEYS[6], ARGV[1]) == 0 then return 0 end
if redis.call('HGET', KEYS[3], ARGV[1] .. ':at') == ARGV[5] then return 0 end
redis.call('HSET', KEYS[3], ARGV[1] .. ':at', ARGV[5])
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('HINCRBY', KEYS[3], ARGV[1], 1) >= tonumber(ARGV[4]) then
  redis.call('HSET', KEYS[4], ARGV[1], 'dead')
  redis.call('XADD', KEYS[5], '*', 'uid', ARGV[1], 'stream', ARGV[2], 'reason', ARGV[3])
  redis.call('HDEL', KEYS[6], ARGV[1])
  redis.call('HDEL', KEYS[7], ARGV[1])
  return 1
end
if not redis.call('LPOS', KEYS[2], ARGV[1]) then redis.call('RPUSH', KEYS[2], ARGV[1]) end
return 0
