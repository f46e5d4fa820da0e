-- Start the lease of a reservation anew.
--
-- Item: id, lease in ms, what is spent if it expires.
-- Answer: 1, or 0 when the reservation is not held.

local function renew()
  local id, lease, expiry = take(), take(), amounts_of(take())
  hear('access_log')
  local record = redis.call('HGET', OPEN, id)
  if not record then
    return 0
  end
  redis.call('ZADD', LEASES, text(NOW + lease), id)
  redis.call('HSET', OPEN, id, (string.gsub(record, '^%S+', word_of(expiry, parse(record).counters))))
  return 1
end

write_even_when_full()
return each_item(renew)
