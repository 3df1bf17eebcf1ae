-- Version-guarded cache entries: fill and invalidate commute, so no order of events leaves a stale value.
-- KEYS: entry (hash v d f), floor (highest version known invalidated), lease (who may fill)
-- ARGV: 'fill' token version data now_ms ttl_ms | 'invalidate' version floor_ttl_ms
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('DEL', KEYS[1]) end
local cached = tonumber(redis.call('HGET', KEYS[1], 'v') or '') or -1
local floor = tonumber(redis.call('TYPE', KEYS[2]).ok == 'string' and redis.call('GET', KEYS[2]) or '') or -1
if ARGV[1] == 'fill' then
  -- Without our lease nothing is filled: after FLUSHALL a slow loader would bring a stale value back.
  if redis.call('TYPE', KEYS[3]).ok ~= 'string' or redis.call('GET', KEYS[3]) ~= ARGV[2] then return 0 end
  redis.call('DEL', KEYS[3])
  local version = tonumber(ARGV[3])
  if version < floor or version < cached then return 0 end
  redis.call('HSET', KEYS[1], 'v', ARGV[3], 'd', ARGV[4], 'f', ARGV[5])
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
  return 1
end
local version = tonumber(ARGV[2])
redis.call('SET', KEYS[2], string.format('%d', math.max(floor, version)), 'PX', ARGV[3])
if cached < version then redis.call('DEL', KEYS[1]) end
redis.call('DEL', KEYS[3])
return 1
