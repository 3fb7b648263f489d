-- Lend one ticket: an expired lease first, then evaluation, then training.
-- A member whose applied version belongs to another epoch, or is older than the ticket asks for, gets none.
-- KEYS 1 epoch  2 tickets  3 minv  4 lease (zset, score: deadline in server ms)  5 todo:eval  6 todo  7 attempts
-- ARGV 1 applied epoch  2 applied n  3 lease ms
-- Returns {ticket, attempt} or false.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function may(uid)
  return tonumber(redis.call('HGET', KEYS[3], uid) or '0') <= tonumber(ARGV[2])
end
local uid = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, 1)[1]
if uid and not may(uid) then uid = nil end
for i = 5, 6 do
  if not uid then
    local head = redis.call('LINDEX', KEYS[i], 0)
    if head and may(head) then
      redis.call('LPOP', KEYS[i])
      uid = head
    end
  end
end
if not uid then return false end
local ticket = redis.call('HGET', KEYS[2], uid)
if not ticket then
  redis.call('ZREM', KEYS[4], uid)
  return false
end
redis.call('ZADD', KEYS[4], now + ARGV[3], uid)
return {ticket, redis.call('HINCRBY', KEYS[7], uid, 1)}
