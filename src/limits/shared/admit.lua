-- One check: is the source banned, do its buckets hold enough, is there a place
-- in every count? Only if all say yes is anything written.
--
-- KEYS: the ban, then the buckets, then the counts.
-- ARGV: instance, life of a count (ms), number of buckets;
--       for each bucket: cost and size (both as time, us);
--       for each count: places in all, what the instance holds besides this
--       one, number of the change.
-- Returns {ruling, index of what ruled, microseconds to wait}.
--
-- Times are whole microseconds of this server's clock, so the clocks of the
-- instances do not matter. They stay below 2^53, what a Lua number can hold;
-- tostring() would round them, hence %.0f.
local PASS, REFUSED, TOO_MANY, BANNED = 0, 1, 2, 3

local left = redis.call('PTTL', KEYS[1])
if left > 0 then
  return {BANNED, 0, left * 1000}
end

local instance, life, buckets = ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local at = 4

-- GCRA: a bucket is the time at which it will be full again, its theoretical
-- arrival time (ITU-T I.371). No key: it is full.
local full_at = {}
for i = 1, buckets do
  local cost, size = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  at = at + 2
  local arrival = tonumber(redis.call('GET', KEYS[1 + i]) or now) or now
  -- Never emptier than empty: the clock was set back, or the size was reduced.
  arrival = math.max(now, math.min(arrival, now + size)) + cost
  if arrival - now > size then
    return {REFUSED, i - 1, arrival - now - size}
  end
  full_at[i] = arrival
end

-- A count is a hash: instance -> "change:places". Whose heartbeat is gone does
-- not count.
local mine = {}
local alive = {}
local first = 1 + buckets
for i = first + 1, #KEYS do
  local max, places = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local held = redis.call('HGETALL', KEYS[i])
  for f = 1, #held, 2 do
    local other = held[f]
    local change, count = held[f + 1]:match('^(%d+):(%d+)$')
    if other == instance then
      mine[i] = tonumber(change)
    else
      if alive[other] == nil then
        alive[other] = redis.call('EXISTS', 'portcullis:alive:' .. other) == 1
      end
      if alive[other] then
        places = places + (tonumber(count) or 0)
      else
        redis.call('HDEL', KEYS[i], other)
      end
    end
  end
  if places >= max then
    return {TOO_MANY, i - first - 1, 0}
  end
  at = at + 3
end

for i = 1, buckets do
  local life_left = math.ceil((full_at[i] - now) / 1000)
  if life_left > 0 then
    redis.call('SET', KEYS[1 + i], string.format('%.0f', full_at[i]), 'PX', string.format('%.0f', life_left))
  end
end

at = 4 + 2 * buckets
for i = first + 1, #KEYS do
  local places, change = tonumber(ARGV[at + 1]), ARGV[at + 2]
  -- Of two changes that overtook each other the later one stands.
  if (mine[i] or 0) < tonumber(change) then
    redis.call('HSET', KEYS[i], instance, change .. ':' .. string.format('%.0f', places + 1))
  end
  redis.call('PEXPIRE', KEYS[i], life)
  at = at + 3
end

return {PASS, 0, 0}
