#!lua flags=allow-oom
-- Fails if another learner has taken over the run.
-- KEYS 1 epoch   ARGV 1 epoch
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return redis.error_reply('FENCED') end
return 1
