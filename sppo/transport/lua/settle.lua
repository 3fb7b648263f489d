-- End one claimed group after the checkpoint that covers it is durable. Idempotent; fenced.
-- KEYS 1 epoch  2 queue  3 frame  4 bytes  5 state  6 tickets  7 minv  8 attempts  9 failures
-- ARGV 1 epoch  2 consumer group  3 entry id  4 uid  5 frame length
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return redis.error_reply('FENCED') end
redis.call('XACK', KEYS[2], ARGV[2], ARGV[3])
if redis.call('XDEL', KEYS[2], ARGV[3]) == 0 then return 0 end
redis.call('UNLINK', KEYS[3])
redis.call('DECRBY', KEYS[4], ARGV[5])
redis.call('HSET', KEYS[5], ARGV[4], 'done')
for i = 6, 9 do redis.call('HDEL', KEYS[i], ARGV[4]) end
redis.call('HDEL', KEYS[9], ARGV[4] .. ':at')
return 1
