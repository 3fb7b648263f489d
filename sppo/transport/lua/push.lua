#!lua flags=allow-oom
-- Make a stored frame visible and end the lease. The frame was SET with an expiry just before; here it becomes lasting.
-- Repeating the step for the same gid changes nothing but makes the frame lasting again (a resent SET re-arms the expiry).
-- KEYS 1 queue (stream)  2 frame  3 state  4 lease  5 bytes (counter)  6 tickets
-- ARGV 1 gid  2 uid  3 stream  4 frame length  5 cap of groups  6 cap of bytes
-- Returns OK, DUP, LOST (send the frame again) or FULL.
local state = redis.call('HGET', KEYS[3], ARGV[2])
if state == 'q:' .. ARGV[1] then
  redis.call('PERSIST', KEYS[2])
  redis.call('ZREM', KEYS[4], ARGV[2])
  return 'DUP'
end
if state or redis.call('HEXISTS', KEYS[6], ARGV[2]) == 0 then
  redis.call('UNLINK', KEYS[2])
  redis.call('ZREM', KEYS[4], ARGV[2])
  return 'DUP'
end
if redis.call('STRLEN', KEYS[2]) ~= tonumber(ARGV[4]) then return 'LOST' end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[5])
   or tonumber(redis.call('GET', KEYS[5]) or '0') + tonumber(ARGV[4]) > tonumber(ARGV[6]) then
  redis.call('UNLINK', KEYS[2])  -- frames that wait to become visible would take memory beyond the cap
  return 'FULL'
end
redis.call('PERSIST', KEYS[2])
redis.call('HSET', KEYS[3], ARGV[2], 'q:' .. ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[2])
redis.call('INCRBY', KEYS[5], ARGV[4])
redis.call('XADD', KEYS[1], '*', 'gid', ARGV[1], 'uid', ARGV[2], 'stream', ARGV[3], 'nbytes', ARGV[4])
return 'OK'
