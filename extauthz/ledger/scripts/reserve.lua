-- Hold money on every counter of a request, or on none.
--
-- Item: id, attempt, reserved at, model, lease in ms, cost of its expiry, not after ('' for any time), '1' to repeat
-- after a failover what was granted before (neither time, window nor limit is judged again), number of claims; and for
-- each claim counter, limit ('' for none), amount, '1' when all of the amount must fit.
-- Answer: {'reserved', least available ('' without limits), what was granted to each claim, if it was only now…}
--       | {'refused', index of the claim that binds, limit, spent, held} | {'stale_window'} | {'ended', state}
--       | {'too_late'} | {'known'} for one to repeat that is open.
-- Invariants: held is the sum of the amounts in open records; nothing is written unless the answer is 'reserved'.

local function take_claims()
  local claims, counters = {}, {}
  for i = 1, tonumber(take()) do
    local counter, limit, amount, whole = take(), take(), take(), take()
    claims[i] = { counter = counter, limit = tonumber(limit), amount = tonumber(amount), whole = whole == '1' }
    counters[i] = counter
  end
  if #claims > 0 then
    local spent, held = redis.call('HMGET', SPENT, unpack(counters)), redis.call('HMGET', HELD, unpack(counters))
    for i, claim in ipairs(claims) do
      claim.spent, claim.held = spent[i] or '0', held[i] or '0'
      if claim.limit then
        claim.limit = limit_of(claim.counter, claim.limit)
        claim.available = claim.limit - tonumber(claim.spent) - tonumber(claim.held)
      end
    end
  end
  return claims
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

-- The claim that refuses: an exhausted one if there is any, else the one with the least available.
local function refusing(claims)
  local index, least, exhausted
  for i, claim in ipairs(claims) do
    if claim.limit then
      local is_exhausted = tonumber(claim.spent) >= claim.limit
      if is_exhausted or claim.available < (claim.whole and claim.amount or 1) then
        local binds_more = not index or (is_exhausted and not exhausted)
          or (is_exhausted == exhausted and claim.available < least)
        if binds_more then
          index, least, exhausted = i, claim.available, is_exhausted
        end
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
    if claim.available then
      local available = claim.available - (granted[claim.counter] or 0)
      least = math.min(least or available, available)
    end
  end
  return { 'reserved', least and text(least) or '' }
end

local function reserve()
  local id, attempt, reserved_at, model, lease, expiry_cost = take(), take(), take(), take(), take(), take()
  local not_after, repeated = tonumber(take()), take() == '1'
  local claims = take_claims()

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
    local cost, rest = string.match(record, '^(%S+) %S+(.*)$')
    redis.call('HSET', OPEN, id, cost .. ' ' .. attempt .. rest)
    return least_available(claims, {})
  end
  if (not_after and NOW > not_after) or NOW - reserved_at >= RETENTION then
    return { 'too_late' }
  end
  if not repeated and outside_of_windows(claims) then
    return { 'stale_window' }
  end
  local refusal = refusing(claims)
  if refusal then
    return { 'refused', refusal, text(claims[refusal].limit), claims[refusal].spent, claims[refusal].held }
  end

  local counters, granted = grants(claims)
  local fields = { expiry_cost, attempt, reserved_at, model }
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
