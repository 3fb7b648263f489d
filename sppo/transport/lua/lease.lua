-- Lend one ticket: an expired lease first, then evaluation, then training.
-- A member whose applied version belongs to another epoch, or is older than the ticket asks for, gets none.
-- KEYS 1 epoch  2 tickets  3 minv  4 lease (zset, score: deadline in server ms)  5 todo:eval  6 todo  7 attempts
-- ARGV 1 applied epoch  2 applied n  3 lease ms
-- Returns {ticket, attempt} or false.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local uid = nil
for _, late in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, 100)) do
  if redis.call('HEXISTS', KEYS[2], late) == 0 then
    redis.call('ZREM', KEYS[4], late)  -- settled meanwhile by the push of another attempt
  elseif not uid and tonumber(redis.call('HGET', KEYS[3], late) or '0') <= tonumber(ARGV[2]) then
    uid = late
  end
end
for i = 5, 6 do
  local head = redis.call('LINDEX', KEYS[i], 0)
  while head and redis.call('HEXISTS', KEYS[2], head) == 0 do
    redis.call('LPOP', KEYS[i])
    head = redis.call('LINDEX', KEYS[i], 0)
  end
  if head and not uid and tonumber(redis.call('HGET', KEYS[3], head) or '0') <= tonumber(ARGV[2]) then
    redis.call('LPOP', KEYS[i])
    uid = head
  end
end
if not uid then return false end
redis.call('ZADD', KEYS[4], now + ARGV[3], uid)
return {redis.call('HGET', KEYS[2], uid), redis.call('HINCRBY', KEYS[7], uid, 1)}
