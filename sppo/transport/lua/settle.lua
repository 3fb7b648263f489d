#!lua flags=allow-oom
-- End one claimed group after the checkpoint that covers it is durable. Idempotent; fenced.
-- No mark is left: a late push of the ticket is dropped because the ticket is gone.
-- readers: the consumer group   nbytes: the frame's length
local epoch, queue, frame, bytes, state, tickets, minv, attempts, failures = unpack(KEYS)
local mine, readers, entry, uid, nbytes, gid = unpack(ARGV)
if redis.call('GET', epoch) ~= mine then return redis.error_reply('FENCED') end
redis.call('XACK', queue, readers, entry)
if redis.call('XDEL', queue, entry) == 0 then return 0 end
redis.call('UNLINK', frame)
redis.call('DECRBY', bytes, nbytes)
-- After the server lost its newest writes a ticket may have a second group: the first one's end
-- must not end it.
if redis.call('HGET', state, uid) ~= 'q:' .. gid then return 1 end
for _, hash in ipairs({state, tickets, minv, attempts, failures}) do
  redis.call('HDEL', hash, uid)
end
redis.call('HDEL', failures, uid .. ':at')
return 1
