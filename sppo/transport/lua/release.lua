#!lua flags=allow-oom
-- Hand a leased ticket back to the head of its list.
-- KEYS 1 lease  2 todo list of its stream  3 tickets   ARGV 1 uid
if redis.call('ZREM', KEYS[1], ARGV[1]) == 1 and redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 then redis.call('LPUSH', KEYS[2], ARGV[1]) end
return 1
