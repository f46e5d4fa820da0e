-- Tell how counters stand.
--
-- Item: number of counters, the counters.
-- Answer: {spent, held, spent, held, …}.

local function standings()
  local answer = {}
  for _ = 1, tonumber(take()) do
    local counter = take()
    answer[#answer + 1] = redis.call('HGET', SPENT, counter) or '0'
    answer[#answer + 1] = redis.call('HGET', HELD, counter) or '0'
  end
  return answer
end

return each_item(standings)
