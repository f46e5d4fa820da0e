-- What every script begins with; extauthz/ledger/keys.py says what stands under each key.
--
-- Amounts are nano-USD, tokens or requests, times Unix milliseconds of this server's clock. Lua's numbers are doubles,
-- exact up to 2^53 (9.0 million USD). An amount travels from redis.call to redis.call, or through text(): `..`, tostring
-- and cjson keep 14 digits, which is less than 100,001 USD.
--
-- What a request used is one word, '<nano-USD>,<tokens>,<requests>'; of each counter the script takes that in its
-- measure. Where all counters are in USD the word that is kept is '<nano-USD>' alone: so it was kept before there were
-- other measures.
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

-- What a counter is in: 'usd', 'tokens' or 'requests'. That stands behind the name of its window; a scope has no `|`
-- in it, nor a filter a `/`.
local MEASURES = {}
local function measure_of(counter)
  local measure = MEASURES[counter]
  if not measure then
    local named = string.find(counter, '/', 1, true) and string.match(counter, '^[^|]*|[^|/]*/([^|/]*)')
    measure = (named == 'tokens' or named == 'requests') and named or 'usd'
    MEASURES[counter] = measure
  end
  return measure
end

-- Amounts by measure, of a word, as they stand in it.
local function amounts_of(word)
  local usd, tokens, requests = string.match(word, '^([^,]+),?([^,]*),?([^,]*)$')
  return { usd = usd, tokens = tokens == '' and '0' or tokens, requests = requests == '' and '0' or requests }
end

-- The word that is kept of amounts which concern these counters.
local function word_of(amounts, counters)
  for _, counter in ipairs(counters) do
    if measure_of(counter) ~= 'usd' then
      return table.concat({ amounts.usd, amounts.tokens, amounts.requests }, ',')
    end
  end
  return amounts.usd
end

-- The word for an amount that concerns one counter alone.
local function word_on(counter, amount)
  local amounts = { usd = '0', tokens = '0', requests = '0' }
  amounts[measure_of(counter)] = amount
  return word_of(amounts, { counter })
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

-- An open reservation, as its record says: '<expiry> <attempt> <reserved at> <model>[ <counter> <amount>]…', where the
-- expiry is the word for what is spent then.
local function parse(record)
  local expiry, attempt, reserved_at, model, rest = string.match(record, '^(%S+) (%S+) (%S+) (%S+)(.*)$')
  local counters, amounts = {}, {}
  for counter, amount in string.gmatch(rest, '(%S+) (%S+)') do
    counters[#counters + 1] = counter
    amounts[#amounts + 1] = amount
  end
  return {
    expiry = expiry, attempt = attempt, reserved_at = reserved_at, model = model,
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

-- Write what happened to money. Each entry has the same fields, which the stream then stores once. `cost` and `booked`
-- are words; the sum of what is `booked` in a counter's measure over all entries that name it, and of its checkpoint,
-- is what is spent on it.
local function note(how, id, model, signal, cost, booked, tokens, reserved_at, counters, who)
  redis.call('XADD', JOURNAL, '*', 'how', how, 'id', id, 'model', model, 'signal', signal, 'cost', cost,
    'booked', booked, 'tokens', tokens, 'reserved_at', reserved_at, 'counters', table.concat(counters, ' '),
    'who', who or '')
end

-- Add to what is spent, and give what that was and is. Nothing is ever below 0: what a correction would take too much
-- (after a reset) stays booked.
local function add_to(counter, amount)
  local spent = redis.call('HINCRBY', SPENT, counter, amount)
  if spent < 0 then
    redis.call('HDEL', SPENT, counter)
    note('floored', '', '', '', '0', word_on(counter, text(-spent)), '', '0', { counter })
  elseif spent == 0 then
    redis.call('HDEL', SPENT, counter)
  elseif spent == tonumber(amount) then
    keep_until_due(counter)
  end
  return spent - amount, math.max(0, spent)
end

-- Book on a counter what is carried into it from the window before, or back again.
local function carry(counter, amount, id)
  local before, after = add_to(counter, amount)
  note('carried', id, '', '', '0', word_on(counter, amount), '', '0', { counter })
  return before, after
end

-- Carry on what changes of a counter's overspend after later windows took it over; each is known by the one before it.
local CARRIED_ON_MAX = 100
local function carry_on(counter, before, after)
  for _ = 1, CARRIED_ON_MAX do
    local window_end = string.match(counter, '|(%d+)$')
    local carried = window_end and NOW >= tonumber(window_end) and redis.call('HGET', META, 'carried|' .. counter)
    local limit, into = string.match(carried or '', '^(%-?%d+) (%S+)$')
    local change = limit and math.max(0, after - limit) - math.max(0, before - limit) or 0
    if change == 0 then
      return
    end
    counter, before, after = into, carry(into, text(change), '')
  end
end

-- Counters that take over the overspend of the window before: how many, and for each itself, the other, its limit.
local function take_befores()
  local befores = {}
  for i = 1, tonumber(take()) do
    local counter, before, limit = take(), take(), take()
    befores[i] = { counter = counter, before = before, limit = limit }
  end
  return befores
end

-- What is still to be taken over from the window before, and the limit that says so; nil when nothing is.
local function overspent(before)
  local spent = redis.call('HGET', SPENT, before.before)
  if spent and redis.call('HEXISTS', META, 'carried|' .. before.before) == 0 then
    local limit = tonumber(limit_of(before.before, before.limit))
    return math.max(0, tonumber(spent) - limit), limit
  end
end

-- What of each counter is to be taken over and was not yet: it is spent already.
local function still_to_carry(befores)
  local amounts = {}
  for _, before in ipairs(befores) do
    amounts[before.counter] = overspent(before)
  end
  return amounts
end

-- Take over what was overspent in the windows before, once, and keep the counters for the next windows to do the same:
-- one is up to an eighth longer than the one before (March, or a day of 25 hours).
local function carry_over(befores)
  for _, before in ipairs(befores) do
    local window_start, window_end = string.match(before.counter, '|(%d+)|(%d+)$')
    local kept = (window_end - window_start) * 9 / 8 + RETENTION
    redis.call('ZADD', WINDOWS, text(window_end + kept), before.counter)
    local amount, limit = overspent(before)
    if amount then
      redis.call('HSET', META, 'carried|' .. before.before, text(limit) .. ' ' .. before.counter)
      if amount > 0 then
        carry_on(before.counter, carry(before.counter, text(amount), before.counter))
      end
    end
  end
end

local function book(counters, amounts)
  for _, counter in ipairs(counters) do
    local amount = amounts[measure_of(counter)]
    if amount ~= '0' then
      carry_on(counter, add_to(counter, amount))
    end
  end
end
