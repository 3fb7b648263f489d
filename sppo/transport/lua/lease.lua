#!lua flags=allow-oom
-- Lend one ticket: an expired lease first, then evaluation, then training.
-- A member whose applied version belongs to another epoch, or is older than the ticket asks for,
-- gets none.
-- lease: a sorted set, scored by the deadline in the server's milliseconds
-- epoch_key: an argument, since generators may only read it, and a server that checks permissions
-- takes every one of KEYS for written
-- Returns {ticket, attempt} or false.
local tickets, minv, lease, todo_eval, todo, attempts = unpack(KEYS)
local applied_epoch, applied_n, lease_ms, epoch_key = unpack(ARGV)
if redis.call('GET', epoch_key) ~= applied_epoch then return false end
local function is_open(uid) return redis.call('HEXISTS', tickets, uid) == 1 end
local function may_begin(uid)
  return tonumber(redis.call('HGET', minv, uid) or '0') <= tonumber(applied_n)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local uid = nil
for _, late in ipairs(redis.call('ZRANGEBYSCORE', lease, '-inf', now, 'LIMIT', 0, 100)) do
  if not is_open(late) then
    redis.call('ZREM', lease, late)  -- settled meanwhile by the push of another attempt
  elseif not uid and may_begin(late) then
    uid = late
  end
end
for _, list in ipairs({todo_eval, todo}) do
  local head = redis.call('LINDEX', list, 0)
  while head and not is_open(head) do
    redis.call('LPOP', list)
    head = redis.call('LINDEX', list, 0)
  end
  if head and not uid and may_begin(head) then
    redis.call('LPOP', list)
    uid = head
  end
end
if not uid then return false end
redis.call('ZADD', lease, now + lease_ms, uid)
return {redis.call('HGET', tickets, uid), redis.call('HINCRBY', attempts, uid, 1)}
