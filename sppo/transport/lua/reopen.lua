#!lua flags=allow-oom
-- Take the run back after the server lost its newest writes: nobody holds it, or the epoch that this one had replaced.
-- KEYS 1 epoch  2 epoch:before  3 queue (stream)
-- ARGV 1 epoch  2 consumer group  3 the epoch it replaced
-- Returns 1, or 0 if another learner has it.
local now = redis.call('GET', KEYS[1]) or ''
if now ~= '' and now ~= ARGV[1] and now ~= ARGV[3] then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[3])
redis.pcall('XGROUP', 'CREATE', KEYS[3], ARGV[2], '0', 'MKSTREAM')
return 1
