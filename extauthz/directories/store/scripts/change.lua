-- Change records of payers, all or none, and write down who did; extauthz/directories/store/redis.py says what stands
-- under each key.
--
-- KEYS: the tables, in the order of their names' enumeration, the first being that of keys; then ended, log, changes.
-- ARGV: the change's id, who, what, scopes, remark; how many entries and changes are kept; until when a rotated key must
--   have ended to be dropped (ms before now), and how many are at once; the edits, each:
--   number of its table, name, what is expected ('any', 'none', or 'was' with the next argument), the record as it was,
--   what becomes of it ('put' or 'drop'), the record as it is to be, when it ends ('' for never).
-- Reply: 'made', 'repeated' or 'conflict'.

local ENDED, LOG, CHANGES = KEYS[#KEYS - 2], KEYS[#KEYS - 1], KEYS[#KEYS]
local EDITS_FROM, ARGUMENTS = 10, 7

if redis.call('ZSCORE', CHANGES, ARGV[1]) then
  return 'repeated'
end

for at = EDITS_FROM, #ARGV, ARGUMENTS do
  local expected = ARGV[at + 2]
  if expected ~= 'any' then
    local found = redis.call('HGET', KEYS[tonumber(ARGV[at])], ARGV[at + 1])
    if (expected == 'none' and found) or (expected == 'was' and found ~= ARGV[at + 3]) then
      return 'conflict'
    end
  end
end

for at = EDITS_FROM, #ARGV, ARGUMENTS do
  local number, name, ends = tonumber(ARGV[at]), ARGV[at + 1], ARGV[at + 6]
  if ARGV[at + 4] == 'put' then
    redis.call('HSET', KEYS[number], name, ARGV[at + 5])
  else
    redis.call('HDEL', KEYS[number], name)
    ends = ''
  end
  if number == 1 and ends ~= '' then
    redis.call('ZADD', ENDED, ends, name)
  elseif number == 1 then
    redis.call('ZREM', ENDED, name)
  end
end

redis.call('XADD', LOG, 'MAXLEN', '~', ARGV[6], '*', 'change', ARGV[1], 'who', ARGV[2], 'what', ARGV[3],
  'scopes', ARGV[4], 'remark', ARGV[5])

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZADD', CHANGES, now, ARGV[1])
redis.call('ZREMRANGEBYRANK', CHANGES, 0, -(tonumber(ARGV[7]) + 1))

local over = redis.call('ZRANGEBYSCORE', ENDED, '-inf', string.format('%.0f', now - ARGV[8]), 'LIMIT', 0, ARGV[9])
for _, name in ipairs(over) do
  redis.call('HDEL', KEYS[1], name)
  redis.call('ZREM', ENDED, name)
end
return 'made'
