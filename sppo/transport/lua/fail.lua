#!lua flags=allow-oom
-- Count a reported failure: offer the ticket again, or give it up with its reason. One attempt
-- counts once.
-- waiting: the todo list of the ticket's stream   dead: a stream
-- failures: a hash, uid -> count and uid:at -> last attempt counted
-- Returns 1 if the ticket is a dead letter now.
local lease, waiting, failures, state, dead, tickets, minv = unpack(KEYS)
local uid, stream, reason, most, attempt = unpack(ARGV)
local at = uid .. ':at'
local counted = redis.call('HGET', failures, at) == attempt
local now = redis.call('HGET', state, uid)
if now == 'dead' then return counted and 1 or 0 end
if now or counted or redis.call('HEXISTS', tickets, uid) == 0 then return 0 end
redis.call('HSET', failures, at, attempt)
redis.call('ZREM', lease, uid)
if redis.call('HINCRBY', failures, uid, 1) >= tonumber(most) then
  redis.call('HSET', state, uid, 'dead')
  redis.call('XADD', dead, '*', 'uid', uid, 'stream', stream, 'reason', reason)
  redis.call('HDEL', tickets, uid)
  redis.call('HDEL', minv, uid)
  return 1
end
if not redis.call('LPOS', waiting, uid) then redis.call('RPUSH', waiting, uid) end
return 0
