-- Tell how counters stand.
--
-- Item: number of counters; for each its key and its configured limit.
-- Answer: {limit, spent, held, limit, spent, held, …}.

local function standings()
  local answer = {}
  for _ = 1, tonumber(take()) do
    local counter, limit = take(), take()
    answer[#answer + 1] = text(limit_of(counter, tonumber(limit)))
    answer[#answer + 1] = redis.call('HGET', SPENT, counter) or '0'
    answer[#answer + 1] = redis.call('HGET', HELD, counter) or '0'
  end
  return answer
end

return each_item(standings)
