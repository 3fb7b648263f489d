#!lua flags=allow-oom
-- Prolong leases that are still held.
-- KEYS 1 lease   ARGV 1 lease ms, then uids
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', now + ARGV[1], ARGV[i]) end
return #ARGV - 1
