#!lua flags=allow-oom
-- Hand a leased ticket back to the head of its list.
-- waiting: the todo list of the ticket's stream
local lease, waiting, tickets = unpack(KEYS)
local uid = unpack(ARGV)
if redis.call('ZREM', lease, uid) == 1 and redis.call('HEXISTS', tickets, uid) == 1 then
  redis.call('LPUSH', waiting, uid)
end
return 1
