-- Remember the hold of an answer that is still to be made.
--
-- Item: name, hold, the most promises.
-- Answer: 1, or 0 when it is not remembered.
-- Invariants: the first to have a name keeps it; a full server keeps its room for money.

local function promise()
  local name, hold, count_max = take(), take(), tonumber(take())
  local known = promised_hold(name)
  if known then
    return known == hold and 1 or 0
  end
  local count = 0
  for _, generation in ipairs(PROMISED) do
    count = count + redis.call('HLEN', generation)
  end
  return count < count_max and redis.pcall('HSET', PROMISED[1], name, hold) == 1 and 1 or 0
end

return each_item(promise)
