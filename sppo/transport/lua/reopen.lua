#!lua flags=allow-oom
-- Take the run back after the server lost its newest writes: nobody holds it, or the epoch that
-- this one had replaced.
-- replaced: that epoch   readers: the consumer group
-- Returns 1, or 0 if another learner has it.
local epoch, before, queue = unpack(KEYS)
local mine, replaced, readers = unpack(ARGV)
local now = redis.call('GET', epoch) or ''
if now ~= '' and now ~= mine and now ~= replaced then return 0 end
redis.call('SET', epoch, mine)
redis.call('SET', before, replaced)
redis.pcall('XGROUP', 'CREATE', queue, readers, '0', 'MKSTREAM')
return 1
