#!lua flags=allow-oom
-- End one claimed group after the checkpoint that covers it is durable. Idempotent; fenced.
-- No mark is left: a late push of the ticket is dropped because the ticket is gone.
-- KEYS 1 epoch  2 queue  3 frame  4 bytes  5 state  6 tickets  7 minv  8 attempts  9 failures
-- ARGV 1 epoch  2 consumer group  3 entry id  4 uid  5 frame length  6 gid
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return redis.error_reply('FENCED') end
redis.call('XACK', KEYS[2], ARGV[2], ARGV[3])
if redis.call('XDEL', KEYS[2], ARGV[3]) == 0 then return 0 end
redis.call('UNLINK', KEYS[3])
redis.call('DECRBY', KEYS[4], ARGV[5])
-- After the server lost its newest writes a ticket may have a second group: the first one's end must not end it.
if redis.call('HGET', KEYS[5], ARGV[4]) ~= 'q:' .. ARGV[6] then return 1 end
redis.call('HDEL', KEYS[5], ARGV[4])
for i = 6, 9 do redis.call('HDEL', KEYS[i], ARGV[4]) end
redis.call('HDEL', KEYS[9], ARGV[4] .. ':at')
return 1
