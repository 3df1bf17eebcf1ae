-- Token buckets of one principal in GCRA form: all policies are charged, or none; a denial changes no key.
-- KEYS: one a policy, same hash tag. ARGV: cost, then quota and window (microseconds) for each policy.
-- Answers {allowed, then for each policy: tokens left, microseconds until `cost` tokens are there}.
-- A key holds the theoretical arrival time in integer microseconds; "now" is this server's clock.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local cost, allowed, tats, answer = tonumber(ARGV[1]), 1, {}, {}
for i, key in ipairs(KEYS) do
  local quota, window = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local held = redis.call('TYPE', key).ok == 'string' and tonumber(redis.call('GET', key)) or now
  if held ~= held then held = now end -- "nan" is a number to Lua
  -- Clamped: a clock that jumped or a garbled value can neither lock out for ever nor open the gate.
  local tat = math.min(math.max(held, now), now + window)
  local charged = tat + math.ceil(window * cost / quota)
  local wait = math.max(0, charged - now - window)
  if wait > 0 then allowed = 0 end
  tats[i] = {tat, charged, wait, held > now + window}
end
answer[1] = allowed
for i, key in ipairs(KEYS) do
  local quota, window = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local tat = allowed == 1 and tats[i][2] or tats[i][1]
  if allowed == 1 or tats[i][4] then -- what is too far ahead is repaired even by a denial: it may have no time to live
    -- %.0f: Lua's own tostring keeps 14 digits, a microsecond clock has 16.
    if redis.call('TYPE', key).ok ~= 'string' then redis.call('DEL', key) end
    redis.call('SET', key, string.format('%.0f', tat), 'PX', math.ceil((tat - now) / 1000) + 1000)
  end
  answer[2 * i] = math.floor((now + window - tat) * quota / window)
  answer[2 * i + 1] = tats[i][3]
end
return answer
