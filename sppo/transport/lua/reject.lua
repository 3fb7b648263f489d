#!lua flags=allow-oom
-- Drop a claimed group that cannot be used; its ticket goes back to being leased, and fail.lua
-- follows. Idempotent; fenced.
-- The lease has no time left, so that the ticket is offered again even if the caller dies before
-- fail.lua.
-- readers: the consumer group   nbytes: the frame's length
local epoch, queue, frame, bytes, state, lease = unpack(KEYS)
local mine, readers, entry, uid, nbytes = unpack(ARGV)
if redis.call('GET', epoch) ~= mine then return redis.error_reply('FENCED') end
redis.call('XACK', queue, readers, entry)
if redis.call('XDEL', queue, entry) == 0 then return 0 end
redis.call('UNLINK', frame)
redis.call('DECRBY', bytes, nbytes)
redis.call('HDEL', state, uid)
redis.call('ZADD', lease, 0, uid)
return 1
