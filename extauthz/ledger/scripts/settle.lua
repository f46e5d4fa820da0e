-- End a reservation with what it used.
--
-- Item: id, reserved at, model, what it used, signal, tokens, number of counters, the counters of the hold.
-- Answer: 'first' | 'late' | 'unknown' | 'repeated' | 'forgotten'.
-- Invariants: a reservation is booked once, on the counters that it was reserved on, or on those of the hold when it is
-- not known here; an expired one is put right once.

local function settle()
  local id, reserved_at, model, spent, signal, tokens = take(), take(), take(), amounts_of(take()), take(), take()
  local counters = {}
  for i = 1, tonumber(take()) do
    counters[i] = take()
  end
  hear(signal)

  local record = redis.call('HGET', OPEN, id)
  if record then
    local reservation = parse(record)
    let_go(id, reservation)
    book(reservation.counters, spent)
    redis.call('HSET', ENDED[1], id, 'settled')
    local cost = word_of(spent, reservation.counters)
    note('settled', id, model, signal, cost, cost, tokens, reservation.reserved_at, reservation.counters)
    return 'first'
  end

  local ending, generation = ending_of(id)
  if not ending then
    if withdrawn(id) then
      return 'repeated'
    end
    if NOW - reserved_at >= RETENTION then
      return 'forgotten'
    end
    redis.call('HSET', ENDED[1], id, 'settled')
    book(counters, spent)
    local cost = word_of(spent, counters)
    note('settled', id, model, signal, cost, cost, tokens, reserved_at, counters)
    return 'unknown'
  end

  local booked, rest = string.match(ending, '^expired (%S+)(.*)$')
  if not booked then
    return 'repeated'
  end
  local reserved_on = {}
  for counter in string.gmatch(rest, '%S+') do
    reserved_on[#reserved_on + 1] = counter
  end
  local correction = amounts_of(booked)
  for measure, amount in pairs(correction) do
    correction[measure] = text(tonumber(spent[measure]) - tonumber(amount))
  end
  redis.call('HSET', generation, id, 'settled')
  book(reserved_on, correction)
  local cost, difference = word_of(spent, reserved_on), word_of(correction, reserved_on)
  note('settled', id, model, signal, cost, difference, tokens, reserved_at, reserved_on)
  return 'late'
end

write_even_when_full()
return each_item(settle)
