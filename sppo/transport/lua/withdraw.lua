#!lua flags=allow-oom
-- Forget a ticket that nobody will use. Fenced.
local epoch, tickets, minv, lease, todo, todo_eval, attempts, failures = unpack(KEYS)
local mine, uid = unpack(ARGV)
if redis.call('GET', epoch) ~= mine then return redis.error_reply('FENCED') end
redis.call('ZREM', lease, uid)
redis.call('LREM', todo, 0, uid)
redis.call('LREM', todo_eval, 0, uid)
for _, hash in ipairs({tickets, minv, attempts, failures}) do
  redis.call('HDEL', hash, uid)
end
redis.call('HDEL', failures, uid .. ':at')
return 1
