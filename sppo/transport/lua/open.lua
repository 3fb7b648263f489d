#!lua flags=allow-oom
-- Take over the run: from now on calls of an older epoch are fenced. Idempotent.
-- KEYS 1 epoch  2 epoch:before  3 queue (stream)
-- ARGV 1 epoch  2 consumer group
-- Returns the epoch that was replaced, or an empty text.
local now = redis.call('GET', KEYS[1]) or ''
if now ~= ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1])
  redis.call('SET', KEYS[2], now)
end
redis.pcall('XGROUP', 'CREATE', KEYS[3], ARGV[2], '0', 'MKSTREAM')  -- an error: the group is there
return redis.call('GET', KEYS[2])
