#!lua flags=allow-oom
-- Make a stored frame visible and end the lease. The frame was SET with an expiry just before; here
-- it becomes lasting. Repeating the step for the same gid changes nothing but makes the frame
-- lasting again (a resent SET re-arms the expiry).
-- queue: a stream   bytes: a counter   nbytes: the frame's length
-- Returns OK, DUP, LOST (send the frame again) or FULL.
local queue, frame, state, lease, bytes, tickets = unpack(KEYS)
local gid, uid, stream, nbytes, max_groups, max_bytes = unpack(ARGV)
local now = redis.call('HGET', state, uid)
if now == 'q:' .. gid then
  redis.call('PERSIST', frame)
  redis.call('ZREM', lease, uid)
  return 'DUP'
end
if now or redis.call('HEXISTS', tickets, uid) == 0 then
  redis.call('UNLINK', frame)
  redis.call('ZREM', lease, uid)
  return 'DUP'
end
if redis.call('STRLEN', frame) ~= tonumber(nbytes) then return 'LOST' end
if redis.call('XLEN', queue) >= tonumber(max_groups)
   or tonumber(redis.call('GET', bytes) or '0') + tonumber(nbytes) > tonumber(max_bytes) then
  -- Frames that wait to become visible would take memory beyond the cap.
  redis.call('UNLINK', frame)
  return 'FULL'
end
redis.call('PERSIST', frame)
redis.call('HSET', state, uid, 'q:' .. gid)
redis.call('ZREM', lease, uid)
redis.call('INCRBY', bytes, nbytes)
redis.call('XADD', queue, '*', 'gid', gid, 'uid', uid, 'stream', stream, 'nbytes', nbytes)
return 'OK'
