#!lua flags=allow-oom
-- Take over the run: from now on calls of an older epoch are fenced. Idempotent.
-- readers: the consumer group
-- Returns the epoch that was replaced, or an empty text.
local epoch, before, queue = unpack(KEYS)
local mine, readers = unpack(ARGV)
local now = redis.call('GET', epoch) or ''
if now ~= mine then
  redis.call('SET', epoch, mine)
  redis.call('SET', before, now)
end
redis.pcall('XGROUP', 'CREATE', queue, readers, '0', 'MKSTREAM')  -- an error: the group is there
return redis.call('GET', before)
