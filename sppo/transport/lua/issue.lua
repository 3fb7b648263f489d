#!lua flags=allow-oom
-- Make one ticket available, whatever happened to it before: the learner is the truth about what
-- was trained. Idempotent; fenced.
-- state: a hash, uid -> q:<gid> | dead   tickets: a hash, uid -> msgpack
-- minv: a hash, uid -> oldest version    waiting: the todo list of the ticket's stream
-- Returns 'issued', 'open' (already somewhere) or 'dead'.
local epoch, state, tickets, minv, lease, waiting = unpack(KEYS)
local mine, uid, ticket, min_version = unpack(ARGV)
if redis.call('GET', epoch) ~= mine then return redis.error_reply('FENCED') end
local now = redis.call('HGET', state, uid)
if now == 'dead' then return 'dead' end
-- Also of a queued one: it may have been withdrawn meanwhile.
redis.call('HSET', tickets, uid, ticket)
redis.call('HSET', minv, uid, min_version)
if now and string.sub(now, 1, 2) == 'q:' then return 'open' end
if redis.call('ZSCORE', lease, uid) or redis.call('LPOS', waiting, uid) then return 'open' end
redis.call('RPUSH', waiting, uid)
return 'issued'
