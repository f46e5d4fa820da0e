-- Change the books by hand, and write down who did.
--
-- Item: id, kind, counter, amount ('' for none), who, and what take_befores takes.
--   reset   nothing is spent on the counter any more
--   import  the amount is spent on it, too
--   grant   its limit is higher by the amount, in its window
--   limit   the amount is the limit of its scope and label from now on; with none, the configured one is again
-- The amount is in the counter's measure. What is to be carried over from the window before is so first: a reset is of
-- that, too, and a limit is one of this window.
-- Answer: 1, or 0 when this was done already.

local function add(counter, amount)
  local spent = redis.call('HINCRBY', SPENT, counter, amount)
  if spent == 0 then
    redis.call('HDEL', SPENT, counter)
  else
    keep_until_due(counter)
  end
  carry_on(counter, spent - amount, spent)
  return amount
end

local amendments = {
  reset = function(counter)
    local spent = redis.call('HGET', SPENT, counter)
    return spent and add(counter, '-' .. spent) or '0'
  end,
  import = add,
  grant = function(counter, amount)
    redis.call('HINCRBY', GRANTED, counter, amount)
    keep_until_due(counter)
    return '0'
  end,
  limit = function(counter, amount)
    local budget = string.gsub(counter, '|%d+|%d+$', '')
    if amount == '' then
      redis.call('HDEL', LIMITS, budget)
    else
      redis.call('HSET', LIMITS, budget, amount)
    end
    return '0'
  end,
}

local function amend()
  local id, kind, counter, amount, who = take(), take(), take(), take(), take()
  local befores = take_befores()
  if ending_of(id) then
    return 0
  end
  redis.call('HSET', ENDED[1], id, kind)
  carry_over(befores)
  local booked = amendments[kind](counter, amount)
  -- A limit that was taken away is not one of 0: whoever restores books from the journal must tell them apart.
  local how = kind == 'limit' and amount == '' and 'limit_removed' or kind
  local cost = word_on(counter, amount == '' and '0' or amount)
  note(how, id, '', '', cost, word_on(counter, booked), '', '0', { counter }, who)
  return 1
end

return each_item(amend)
