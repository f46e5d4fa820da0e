-- What every script begins with; extauthz/ledger/keys.py says what stands under each key.
--
-- Amounts are nano-USD, times Unix milliseconds of this server's clock. Lua's numbers are doubles, exact up to 2^53
-- (9.0 million USD). An amount travels from redis.call to redis.call, or through text(): `..`, tostring and cjson keep
-- 14 digits, which is less than 100,001 USD.
--
-- ARGV: the retention of endings in ms, the number of items, the items one after the other.
-- Reply: {now, the answer to each item}.

local SPENT, HELD, WINDOWS, OPEN, LEASES, JOURNAL, CHECKPOINT, META, GRANTED, LIMITS =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local WITHDRAWN = { KEYS[11], KEYS[12] }
local ENDED = { KEYS[13], KEYS[14], KEYS[15], KEYS[16], KEYS[17] }
local PROMISED = { KEYS[18], KEYS[19], KEYS[20] }

local clock = redis.call('TIME')
local NOW = clock[1] * 1000 + math.floor(clock[2] / 1000)
local RETENTION = tonumber(ARGV[1])

local cursor = 3
local function take()
  cursor = cursor + 1
  return ARGV[cursor - 1]
end

local function each_item(carry_out)
  local answers = {}
  for item = 1, tonumber(ARGV[2]) do
    answers[item] = carry_out()
  end
  return { NOW, answers }
end

local function text(number)
  return string.format('%.0f', number)
end

-- The ending of a reservation and where it stands: 'settled', 'released', or 'expired <booked> <counter>…'.
local function ending_of(id)
  for _, generation in ipairs(ENDED) do
    local ending = redis.call('HGET', generation, id)
    if ending then
      return ending, generation
    end
  end
end

-- Whether a release came for something that was not there: a reservation, or one attempt's claim (<id>|<attempt>).
local function withdrawn(name)
  return redis.call('SISMEMBER', WITHDRAWN[1], name) == 1 or redis.call('SISMEMBER', WITHDRAWN[2], name) == 1
end

-- The hold that was promised under a name.
local function promised_hold(name)
  for _, generation in ipairs(PROMISED) do
    local hold = redis.call('HGET', generation, name)
    if hold then
      return hold
    end
  end
end

-- An open reservation, as its record says: '<expiry cost> <attempt> <reserved at> <model>[ <counter> <amount>]…'.
local function parse(record)
  local expiry_cost, attempt, reserved_at, model, rest = string.match(record, '^(%S+) (%S+) (%S+) (%S+)(.*)$')
  local counters, amounts = {}, {}
  for counter, amount in string.gmatch(rest, '(%S+) (%S+)') do
    counters[#counters + 1] = counter
    amounts[#amounts + 1] = amount
  end
  return {
    expiry_cost = expiry_cost, attempt = attempt, reserved_at = reserved_at, model = model,
    counters = counters, amounts = amounts,
  }
end

-- Go on when maxmemory is reached. A script that has written may write on, and HDEL may always write (scriptVerifyOOM
-- in Redis' source): so endings, which free memory, work on a full server, and new reservations are refused there.
local function write_even_when_full()
  redis.call('HDEL', META, '')
end

-- Remember that an access log told of a stream, now and then: without any, no reservation is ever settled.
local function hear(signal)
  if signal == 'access_log' and NOW - (redis.call('HGET', META, 'heard_at') or 0) > 5000 then
    redis.call('HSET', META, 'heard_at', text(NOW))
  end
end

-- Give back what a reservation holds.
local function let_go(id, reservation)
  redis.call('HDEL', OPEN, id)
  redis.call('ZREM', LEASES, id)
  for i, counter in ipairs(reservation.counters) do
    local amount = reservation.amounts[i]
    if amount ~= '0' and redis.call('HINCRBY', HELD, counter, '-' .. amount) == 0 then
      redis.call('HDEL', HELD, counter)
    end
  end
end

-- The time from which nothing that is still booked can concern a counter; nil for one of a lifetime.
local function due_of(counter)
  local window_end = string.match(counter, '|(%d+)$')
  return window_end and window_end + RETENTION
end

-- Remember when a counter can be dropped.
local function keep_until_due(counter)
  local due = due_of(counter)
  if due then
    redis.call('ZADD', WINDOWS, 'NX', text(math.max(due, NOW)), counter)
  end
end

-- The limit of a counter: the configured one, or that which stands in for it, and what was granted on top.
local AMENDED = redis.call('EXISTS', GRANTED, LIMITS) > 0
local function limit_of(counter, configured)
  if not AMENDED then
    return configured
  end
  local limit = redis.call('HGET', LIMITS, (string.gsub(counter, '|%d+|%d+$', ''))) or configured
  return tonumber(limit) + (redis.call('HGET', GRANTED, counter) or 0)
end

-- Write what happened to money. Each entry has the same fields, which the stream then stores once. The sum of `booked`
-- over all entries that name a counter, and of its checkpoint, is what is spent on it.
local function note(how, id, model, signal, cost, booked, tokens, reserved_at, counters, who)
  redis.call('XADD', JOURNAL, '*', 'how', how, 'id', id, 'model', model, 'signal', signal, 'cost', cost,
    'booked', booked, 'tokens', tokens, 'reserved_at', reserved_at, 'counters', table.concat(counters, ' '),
    'who', who or '')
end

-- Add to what is spent. Nothing is ever below 0: what a correction would take too much (after a reset) stays booked.
local function book(counters, cost)
  if cost == 0 then
    return
  end
  for _, counter in ipairs(counters) do
    local spent = redis.call('HINCRBY', SPENT, counter, text(cost))
    if spent < 0 then
      redis.call('HDEL', SPENT, counter)
      note('floored', '', '', '', '0', text(-spent), '', '0', { counter })
    elseif spent == 0 then
      redis.call('HDEL', SPENT, counter)
    elseif spent == cost then
      keep_until_due(counter)
    end
  end
end
