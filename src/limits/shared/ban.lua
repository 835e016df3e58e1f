-- Bans a source, twice as long at each strike.
--
-- KEYS: the ban, the strikes.
-- ARGV: first and longest ban, and how long strikes are remembered after a ban (ms).
-- Returns {how long the source is banned from now (ms)}.
local left = redis.call('PTTL', KEYS[1])
if left > 0 then
  -- Two instances saw the same offence.
  return {left}
end
local first, longest, memory = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local strikes = redis.call('INCR', KEYS[2])
local ban = math.min(first * 2 ^ math.min(strikes - 1, 40), math.max(first, longest))
redis.call('SET', KEYS[1], strikes, 'PX', string.format('%.0f', ban))
redis.call('PEXPIRE', KEYS[2], string.format('%.0f', ban + memory))
return {ban}
