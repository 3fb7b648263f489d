#!lua flags=allow-oom
-- Drop a claimed group that cannot be used; its ticket goes back to being leased, and fail.lua follows. Idempotent; fenced.
-- The lease has no time left, so that the ticket is offered again even if the caller dies before fail.lua.
-- KEYS 1 epoch  2 queue  3 frame  4 bytes  5 state  6 lease
-- ARGV 1 epoch  2 consumer group  3 entry id  4 uid  5 frame length
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return redis.error_reply('FENCED') end
redis.call('XACK', KEYS[2], ARGV[2], ARGV[3])
if redis.call('XDEL', KEYS[2], ARGV[3]) == 0 then return 0 end
redis.call('UNLINK', KEYS[3])
redis.call('DECRBY', KEYS[4], ARGV[5])
redis.call('HDEL', KEYS[5], ARGV[4])
redis.call('ZADD', KEYS[6], 0, ARGV[4])
return 1
