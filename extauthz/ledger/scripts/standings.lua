-- Tell how counters stand.
--
-- Item: what take_befores takes; number of counters; for each its key and its configured limit.
-- Answer: {limit, spent, held, limit, spent, held, …}.
-- What is still to be carried over from the window before is spent already, and nothing is written.

local function standings()
  local answer, carried = {}, still_to_carry(take_befores())
  for _ = 1, tonumber(take()) do
    local counter, limit = take(), take()
    answer[#answer + 1] = text(limit_of(counter, tonumber(limit)))
    local spent = redis.call('HGET', SPENT, counter) or '0'
    answer[#answer + 1] = carried[counter] and text(spent + carried[counter]) or spent
    answer[#answer + 1] = redis.call('HGET', HELD, counter) or '0'
  end
  return answer
end

return each_item(standings)
