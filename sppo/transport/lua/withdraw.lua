#!lua flags=allow-oom
-- Forget a ticket that nobody will use. Fenced.
-- KEYS 1 epoch  2 tickets  3 minv  4 lease  5 todo  6 todo:eval  7 attempts  8 failures
-- ARGV 1 epoch  2 uid
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return redis.error_reply('FENCED') end
redis.call('ZREM', KEYS[4], ARGV[2])
redis.call('LREM', KEYS[5], 0, ARGV[2])
redis.call('LREM', KEYS[6], 0, ARGV[2])
for _, i in ipairs({2, 3, 7, 8}) do redis.call('HDEL', KEYS[i], ARGV[2]) end
redis.call('HDEL', KEYS[8], ARGV[2] .. ':at')
return 1
