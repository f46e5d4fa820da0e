-- End a reservation with no cost, or only the claim that one attempt has on it.
--
-- Item: id, attempt ('' ends it for good), signal.
-- Answer: 'first' | 'unknown' | 'repeated'.
-- Invariants: a release that comes before its reserve stops it; that of one attempt leaves others alone.

local function release()
  local id, attempt, signal = take(), take(), take()
  hear(signal)
  local name = attempt == '' and id or id .. '|' .. attempt
  local record = redis.call('HGET', OPEN, id)
  if record then
    local reservation = parse(record)
    if attempt == '' or attempt == reservation.attempt then
      let_go(id, reservation)
      if attempt == '' then
        redis.call('HSET', ENDED[1], id, 'released')
      else
        redis.call('SADD', WITHDRAWN[1], name)
      end
      note('released', id, reservation.model, signal, '0', '0', '', reservation.reserved_at, reservation.counters)
      return 'first'
    end
  end
  if ending_of(id) or withdrawn(id) or withdrawn(name) then
    return 'repeated'
  end
  redis.call('SADD', WITHDRAWN[1], name)
  -- An open reservation belongs to a later attempt, which ended this one's claim by taking it over.
  return record and 'repeated' or 'unknown'
end

write_even_when_full()
return each_item(release)
