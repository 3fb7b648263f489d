#!lua flags=allow-oom
-- Make one ticket available, whatever happened to it before: the learner is the truth about what was trained. Idempotent; fenced.
-- KEYS 1 epoch  2 state (hash uid -> q:<gid> | dead)  3 tickets (hash uid -> msgpack)
--      4 minv (hash uid -> oldest version)  5 lease (zset)  6 todo list of the ticket's stream
-- ARGV 1 epoch  2 uid  3 ticket  4 min_version
-- Returns 'issued', 'open' (already somewhere) or 'dead'.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return redis.error_reply('FENCED') end
local state = redis.call('HGET', KEYS[2], ARGV[2])
if state == 'dead' then return 'dead' end
redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])  -- also of a queued one: it may have been withdrawn meanwhile
redis.call('HSET', KEYS[4], ARGV[2], ARGV[4])
if state and string.sub(state, 1, 2) == 'q:' then return 'open' end
if redis.call('ZSCORE', KEYS[5], ARGV[2]) or redis.call('LPOS', KEYS[6], ARGV[2]) then return 'open' end
redis.call('RPUSH', KEYS[6], ARGV[2])
return 'issued'
