#!lua flags=allow-oom
-- Fails if another learner has taken over the run.
local epoch = unpack(KEYS)
local mine = unpack(ARGV)
if redis.call('GET', epoch) ~= mine then return redis.error_reply('FENCED') end
return 1
