#!lua flags=allow-oom
-- Lend one ticket: an expired lease first, then evaluation, then training.
-- A member whose applied version belongs to another epoch, or is older than the ticket asks for, gets none.
-- KEYS 1 tickets  2 minv  3 lease (zset, score: deadline in server ms)  4 todo:eval  5 todo  6 attempts
-- ARGV 1 applied epoch  2 applied n  3 lease ms  4 the key of the epoch (generators may read it only, and a server that
--      checks permissions takes every one of KEYS for written)
-- Returns {ticket, attempt} or false.
if redis.call('GET', ARGV[4]) ~= ARGV[1] then return false end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local uid = nil
for _, late in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 100)) do
  if redis.call('HEXISTS', KEYS[1], late) == 0 then
    redis.call('ZREM', KEYS[3], late)  -- settled meanwhile by the push of another attempt
  elseif not uid and tonumber(redis.call('HGET', KEYS[2], late) or '0') <= tonumber(ARGV[2]) then
    uid = late
  end
end
for i = 4, 5 do
  local head = redis.call('LINDEX', KEYS[i], 0)
  while head and redis.call('HEXISTS', KEYS[1], head) == 0 do
    redis.call('LPOP', KEYS[i])
    head = redis.call('LINDEX', KEYS[i], 0)
  end
  if head and not uid and tonumber(redis.call('HGET', KEYS[2], head) or '0') <= tonumber(ARGV[2]) then
    redis.call('LPOP', KEYS[i])
    uid = head
  end
end
if not uid then return false end
redis.call('ZADD', KEYS[3], now + ARGV[3], uid)
return {redis.call('HGET', KEYS[1], uid), redis.call('HINCRBY', KEYS[6], uid, 1)}
