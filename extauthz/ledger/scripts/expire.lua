-- End reservations whose lease has run out, the oldest first, and clean up, a bounded piece at each call.
--
-- Item (one): the most reservations to end, the most journal entries to keep, the most to fold into the checkpoint and
-- the most counters to look at in this call, how often endings, withdrawals and promises start a new generation, in ms.
-- Answer: {when an access log last told of a stream (0 for never), id, what was booked, id, what was booked, …}.
-- Invariants: nothing scans; an ending is kept for at least four generations, a promise for two; the checkpoint of a counter and the
-- journal's entries on it always add up to what is spent.

local function expire(count_max)
  local expired = { tonumber(redis.call('HGET', META, 'heard_at') or '0') }
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', text(NOW), 'LIMIT', 0, count_max)) do
    local record = redis.call('HGET', OPEN, id)
    if record then
      local reservation = parse(record)
      let_go(id, reservation)
      local booked = reservation.expiry
      book(reservation.counters, amounts_of(booked))
      local ending = 'expired ' .. booked .. ' ' .. table.concat(reservation.counters, ' ')
      redis.call('HSET', ENDED[1], id, ending)
      note('expired', id, reservation.model, 'lease', booked, booked, '', reservation.reserved_at, reservation.counters)
      expired[#expired + 1] = id
      expired[#expired + 1] = booked
    else
      redis.call('ZREM', LEASES, id) -- somebody removed the record by hand; the others must not wait behind it
    end
  end
  return expired
end

-- Move each generation one place on and let the oldest go, unless that was done a moment ago.
local function start_generation(keys, name, every)
  local last = tonumber(redis.call('HGET', META, name) or '0')
  if NOW - last < every then
    return
  end
  redis.call('UNLINK', keys[#keys]) -- its memory is freed beside, however much it is
  for i = #keys - 1, 1, -1 do
    if redis.call('EXISTS', keys[i]) == 1 then
      redis.call('RENAME', keys[i], keys[i + 1])
    end
  end
  redis.call('HSET', META, name, text(NOW))
end

-- Forget counters that nothing can be booked on any more.
local function drop_counters(count_max)
  for _, counter in ipairs(redis.call('ZRANGEBYSCORE', WINDOWS, '-inf', text(NOW), 'LIMIT', 0, count_max)) do
    if redis.call('HEXISTS', HELD, counter) == 1 then
      redis.call('ZADD', WINDOWS, text(NOW + RETENTION), counter)
    else
      redis.call('ZREM', WINDOWS, counter)
      redis.call('HDEL', SPENT, counter)
      redis.call('HDEL', CHECKPOINT, counter)
      redis.call('HDEL', GRANTED, counter)
      redis.call('HDEL', META, 'carried|' .. counter)
    end
  end
end

local function fold(fields)
  local entry = {}
  for i = 1, #fields, 2 do
    entry[fields[i]] = fields[i + 1]
  end
  if entry.booked == '0' then
    return
  end
  local booked = amounts_of(entry.booked)
  for counter in string.gmatch(entry.counters, '%S+') do
    local due, amount = due_of(counter), booked[measure_of(counter)]
    if amount ~= '0' and (not due or due > NOW or redis.call('HEXISTS', SPENT, counter) == 1) then
      redis.call('HINCRBY', CHECKPOINT, counter, amount)
    end
  end
end

local function trim_journal(length_max, count_max)
  if tonumber(redis.call('HGET', META, 'audited_until') or '0') > NOW then
    return -- somebody reads it from its beginning
  end
  local excess = redis.call('XLEN', JOURNAL) - length_max
  if excess <= 0 then
    return
  end
  local entries = redis.call('XRANGE', JOURNAL, '-', '+', 'COUNT', text(math.min(excess, count_max)))
  for _, entry in ipairs(entries) do
    fold(entry[2])
  end
  local last = entries[#entries][1]
  local milliseconds, sequence = string.match(last, '^(%d+)-(%d+)$')
  redis.call('XTRIM', JOURNAL, 'MINID', milliseconds .. '-' .. text(sequence + 1))
  redis.call('HSET', META, 'checkpoint_at', last)
end

local function maintain()
  local count_max, journal_max, folded_max, counters_max = take(), tonumber(take()), tonumber(take()), take()
  local ended_every, withdrawn_every, promised_every = tonumber(take()), tonumber(take()), tonumber(take())
  local expired = expire(count_max)
  start_generation(ENDED, 'ended_since', ended_every)
  start_generation(WITHDRAWN, 'withdrawn_since', withdrawn_every)
  start_generation(PROMISED, 'promised_since', promised_every)
  drop_counters(counters_max)
  trim_journal(journal_max, folded_max)
  return expired
end

write_even_when_full()
return each_item(maintain)
