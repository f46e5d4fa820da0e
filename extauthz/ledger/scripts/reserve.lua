-- Hold money on every counter of a request, or on none.
--
-- Item: id, attempt, reserved at, model, lease in ms, what is spent if it expires, not after ('' for any time), '1' to
-- repeat after a failover what was granted before (neither time, window nor limit is judged again), number of claims;
-- and for each claim counter, limit ('' for none), amount, '1' when all of the amount must fit; at last what
-- take_befores takes.
-- Answer: {'reserved', least available in USD ('' without limits in it), what each claim was granted, if only now…}
--       | {'refused', index of the claim that binds, limit, spent, held} | {'stale_window'} | {'ended', state}
--       | {'too_late'} | {'known'} for one to repeat that is open.
-- Invariants: held is the sum of the amounts in open records; nothing is held unless the answer is 'reserved'. What is
-- carried over from the windows before is so, once, where claims are judged, be they refused.

local function take_claims()
  local claims = {}
  for i = 1, tonumber(take()) do
    local counter, limit, amount, whole = take(), take(), take(), take()
    claims[i] = { counter = counter, limit = tonumber(limit), amount = tonumber(amount), whole = whole == '1' }
    claims[i].measure = measure_of(counter)
  end
  return claims
end

local function look_at(claims, carried)
  if #claims > 0 then
    local counters = {}
    for i, claim in ipairs(claims) do
      counters[i] = claim.counter
    end
    local spent, held = redis.call('HMGET', SPENT, unpack(counters)), redis.call('HMGET', HELD, unpack(counters))
    for i, claim in ipairs(claims) do
      claim.spent, claim.held = spent[i] or '0', held[i] or '0'
      if claim.limit then
        claim.limit = limit_of(claim.counter, claim.limit)
        claim.available = claim.limit - tonumber(claim.spent) - tonumber(claim.held) - (carried[claim.counter] or 0)
      end
    end
  end
end

local function outside_of_windows(claims)
  for _, claim in ipairs(claims) do
    local window_start, window_end = string.match(claim.counter, '|(%d+)|(%d+)$')
    if window_start and (NOW < tonumber(window_start) or NOW >= tonumber(window_end)) then
      return true
    end
  end
  return false
end

-- Whether one claim that refuses is to be told of before another: exhausted ones come first, then those in USD, those
-- in tokens and those in requests, then the one with the least available.
local RANKS = { usd = 1, tokens = 2, requests = 3 }
local function binds_before(claim, other)
  if claim.exhausted ~= other.exhausted then
    return claim.exhausted
  elseif claim.measure ~= other.measure then
    return RANKS[claim.measure] < RANKS[other.measure]
  end
  return claim.available < other.available
end

local function refusing(claims)
  local index
  for i, claim in ipairs(claims) do
    if claim.limit then
      claim.exhausted = tonumber(claim.spent) >= claim.limit
      local refuses = claim.exhausted or claim.available < (claim.whole and claim.amount or 1)
      if refuses and (not index or binds_before(claim, claims[index])) then
        index = i
      end
    end
  end
  return index
end

-- What each counter holds, once where several claims name it: partial claims share what the tightest limit leaves, and
-- after that whole ones get all that they asked for.
local function grants(claims)
  local counters, granted = {}, {}
  for _, whole in ipairs({ false, true }) do
    local choose = whole and math.max or math.min
    for _, claim in ipairs(claims) do
      if claim.whole == whole then
        local amount = math.min(claim.amount, claim.available or claim.amount)
        if granted[claim.counter] then
          granted[claim.counter] = choose(granted[claim.counter], amount)
        else
          counters[#counters + 1] = claim.counter
          granted[claim.counter] = amount
        end
      end
    end
  end
  return counters, granted
end

local function least_available(claims, granted)
  local least
  for _, claim in ipairs(claims) do
    if claim.available and claim.measure == 'usd' then
      local available = claim.available - (granted[claim.counter] or 0)
      least = math.min(least or available, available)
    end
  end
  return { 'reserved', least and text(least) or '' }
end

local function reserve()
  local id, attempt, reserved_at, model, lease, expiry = take(), take(), take(), take(), take(), take()
  local not_after, repeated = tonumber(take()), take() == '1'
  local claims, befores = take_claims(), take_befores()

  local ending = ending_of(id) or (withdrawn(id) and 'released')
  if ending then
    return { 'ended', string.match(ending, '^%S+') }
  end
  if withdrawn(id .. '|' .. attempt) then
    return { 'ended', 'released' }
  end
  local record = redis.call('HGET', OPEN, id)
  if record then
    if repeated then
      return { 'known' }
    end
    local kept, rest = string.match(record, '^(%S+) %S+(.*)$')
    redis.call('HSET', OPEN, id, kept .. ' ' .. attempt .. rest)
    look_at(claims, still_to_carry(befores))
    return least_available(claims, {})
  end
  if (not_after and NOW > not_after) or NOW - reserved_at >= RETENTION then
    return { 'too_late' }
  end
  if not repeated and outside_of_windows(claims) then
    return { 'stale_window' }
  end
  carry_over(befores)
  look_at(claims, {})
  local refusal = refusing(claims)
  if refusal then
    return { 'refused', refusal, text(claims[refusal].limit), claims[refusal].spent, claims[refusal].held }
  end

  local counters, granted = grants(claims)
  local fields = { word_of(amounts_of(expiry), counters), attempt, reserved_at, model }
  for _, counter in ipairs(counters) do
    local amount = text(granted[counter])
    if amount ~= '0' then
      redis.call('HINCRBY', HELD, counter, amount)
    end
    fields[#fields + 1] = counter
    fields[#fields + 1] = amount
  end
  redis.call('HSET', OPEN, id, table.concat(fields, ' '))
  redis.call('ZADD', LEASES, text(NOW + lease), id)
  local answer = least_available(claims, granted)
  for _, claim in ipairs(claims) do
    answer[#answer + 1] = text(granted[claim.counter])
  end
  return answer
end

return each_item(reserve)
