-- Use every command that the scripts use, once, on two keys of its own: where a right is missing this fails, at the
-- connecting, before another script stops halfway with money.
--
-- KEYS: two more. No items. Answer: none. Nothing is left behind.

local PROBE, OTHER = KEYS[#KEYS - 1], KEYS[#KEYS]

-- Redis 6.2 and 7.0 do not say which command it was.
local function try(command, ...)
  local answer = redis.pcall(command, ...)
  if type(answer) == 'table' and answer.err then
    error('+' .. string.lower(command) .. ' is needed: ' .. answer.err)
  end
end

write_even_when_full()
try('HSET', PROBE, 'field', '1')
try('HINCRBY', PROBE, 'field', '1')
try('HGET', PROBE, 'field')
try('HMGET', PROBE, 'field')
try('HEXISTS', PROBE, 'field')
try('HLEN', PROBE)
try('HDEL', PROBE, 'field')
try('SADD', PROBE, 'member')
try('SISMEMBER', PROBE, 'member')
try('UNLINK', PROBE)
try('ZADD', PROBE, '1', 'member')
try('ZRANGEBYSCORE', PROBE, '-inf', '1', 'LIMIT', 0, 1)
try('ZREM', PROBE, 'member')
try('XADD', PROBE, '*', 'field', 'value')
try('XLEN', PROBE)
try('XRANGE', PROBE, '-', '+', 'COUNT', '1')
try('XTRIM', PROBE, 'MINID', '0-1')
try('RENAME', PROBE, OTHER)
try('EXISTS', OTHER)
try('UNLINK', OTHER)
return { NOW, {} }
