-- Forget a promise.
--
-- Item: name.
-- Answer: 1.

local function forget()
  local name = take()
  for _, generation in ipairs(PROMISED) do
    redis.call('HDEL', generation, name)
  end
  return 1
end

return each_item(forget)
