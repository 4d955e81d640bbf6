-- bench/load.lua: what wrk sends. bench/compare says which requests; this plays them in random order and reports as JSON.
--
--   wrk … -s bench/load.lua URL -- list FILE DEPTH       requests of FILE, each behind its length in 8 digits
--   wrk … -s bench/load.lua URL -- keys FILE DEPTH N     the same, with a random number below N, in 12 digits, for each #
--
-- DEPTH requests are sent at once (pipelined). A list is put together before the load begins, so that while it runs the
-- generator does nothing but choose; N keys may be too many to hold, so theirs are put together as they go.

local requests, depth, keys = {}, 1, nil
local seeds = 0

function setup(thread)
    seeds = seeds + 1
    thread:set("seed", seeds)
end

local function read(path)
    local file = assert(io.open(path, "rb"))
    local all, at, found = file:read("*a"), 1, {}
    file:close()
    while at <= #all do
        local length = tonumber(all:sub(at, at + 7))
        found[#found + 1] = all:sub(at + 8, at + 7 + length)
        at = at + 8 + length
    end
    return found
end

-- In random order, every request once, `depth` of them to a piece.
local function pieces(all)
    for i = #all, 2, -1 do
        local j = math.random(i)
        all[i], all[j] = all[j], all[i]
    end
    local whole = {}
    for at = 1, #all - depth + 1, depth do
        whole[#whole + 1] = table.concat(all, "", at, at + depth - 1)
    end
    return whole
end

function init(args)
    math.randomseed(os.time() * 1000 + seed)
    for _ = 1, 10 do math.random() end
    depth, keys = tonumber(args[3]), tonumber(args[4])
    requests = read(args[2])
    if not keys and depth > 1 then requests = pieces(requests) end
    assert(#requests > 0, "no requests")
    if not keys then return end
    local parts = {}
    for i, text in ipairs(requests) do
        local at = assert(text:find("#", 1, true), "no # for the key")
        parts[i] = { text:sub(1, at - 1), text:sub(at + 1) }
    end
    requests = parts
end

local function one()
    local parts = requests[math.random(#requests)]
    return parts[1] .. string.format("%012d", math.random(0, keys - 1)) .. parts[2]
end

function request()
    if not keys then return requests[math.random(#requests)] end
    if depth == 1 then return one() end
    local some = {}
    for i = 1, depth do some[i] = one() end
    return table.concat(some)
end

function done(summary, latency, _)
    local errors = summary.errors
    io.write(string.format(
        'RESULT {"requests": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d, "max_us": %d, "errors": {"connect": %d, ' ..
        '"read": %d, "write": %d, "timeout": %d, "status": %d}}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99), latency.max,
        errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
