-- Writes what an instance holds of some counts.
--
-- KEYS: the counts.
-- ARGV: instance, life of a count (ms); for each count: number of the change,
--       places held.
local instance, life = ARGV[1], ARGV[2]
for i = 1, #KEYS do
  local change, places = ARGV[1 + 2 * i], ARGV[2 + 2 * i]
  local known = redis.call('HGET', KEYS[i], instance)
  local latest = known and tonumber(known:match('^(%d+):')) or 0
  -- Of two changes that overtook each other the later one stands.
  if latest < tonumber(change) then
    if places == '0' then
      redis.call('HDEL', KEYS[i], instance)
    else
      redis.call('HSET', KEYS[i], instance, change .. ':' .. places)
    end
  end
  if places ~= '0' then
    redis.call('PEXPIRE', KEYS[i], life)
  end
end
return #KEYS
