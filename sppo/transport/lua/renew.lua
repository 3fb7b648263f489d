#!lua flags=allow-oom
-- Prolong a lease that is still held.
local lease = unpack(KEYS)
local uid, lease_ms = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZADD', lease, 'XX', now + lease_ms, uid)
