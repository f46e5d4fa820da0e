-- Give the hold of an answer that was promised.
--
-- Item: name.
-- Answer: the hold, '' when there is none.

local function promised()
  return promised_hold(take()) or ''
end

return each_item(promised)
