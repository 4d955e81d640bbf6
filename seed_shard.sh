#!/usr/bin/env bash
# seed_shard.sh: writes keys through one node, and counts on which shard each one landed.
#
# The node forwards what is not its own; the KV-Shard header of each answer tells who owns the key. One curl sends all
# requests over kept-alive connections; what it prints is counted by awk as it comes. Only 2xx is a success; every other
# answer is counted by its code, and so is every request that got none.
#
# Needs bash 3.2 and curl. With curl 7.84 and newer several requests are under way at a time.

set -uo pipefail

PARALLEL=16          # requests under way at a time, where curl can
CONNECT_SECONDS=2    # for a connection
ANSWER_SECONDS=35    # for an answer: a node gives up after 30 by itself

usage() {
    cat <<'TEXT'
Usage: ./seed_shard.sh [N] [--addr HOST:PORT] [--prefix PREFIX]

Writes the keys PREFIX1 … PREFIXN through one node, with the values value-1 … value-N,
and shows how many landed on each shard.

  N                 how many keys (default 1000)
  --addr HOST:PORT  any node, with or without http:// (default: KV_URL, or the first
                    address in the sharding.toml beside this script)
  --prefix PREFIX   what each key begins with (default: seed-)
  --help            this

Exit codes: 0 all keys were written, 1 some were not, 2 usage, 5 no node there.
TEXT
}

complain() { printf 'seed_shard.sh: %s\n' "$*" >&2; }
misused() { complain "$*; see ./seed_shard.sh --help"; exit 2; }

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 1
COUNT=
ADDR=${KV_URL:-}
PREFIX=seed-
while [ $# -gt 0 ]; do
    case $1 in
        --addr | --prefix)
            [ $# -ge 2 ] || misused "$1 needs a value"
            if [ "$1" = --addr ]; then ADDR=$2; else PREFIX=$2; fi
            shift
            ;;
        --help | -h) usage; exit 0 ;;
        -*) misused "unknown argument: $1" ;;
        *)
            [ -z "$COUNT" ] || misused "unknown argument: $1"
            COUNT=$1
            ;;
    esac
    shift
done

COUNT=${COUNT:-1000}
case $COUNT in
    *[!0-9]* | 0* | ??????????*) misused "N is a number from 1 to 999999999, not $COUNT" ;;
esac
command -v curl >/dev/null || { complain "curl is not in the PATH: install it, then run this again"; exit 1; }

if [ -z "$ADDR" ]; then
    ADDR=$(sed -n 's/^[[:space:]]*address[[:space:]]*=[[:space:]]*"\([^"]*\)".*/\1/p' "$ROOT/sharding.toml" | head -n 1)
    [ -n "$ADDR" ] || misused "no address found in $ROOT/sharding.toml: give one with --addr HOST:PORT"
fi
ADDR=${ADDR#http://}
ADDR=${ADDR%/}
case $ADDR in
    *[!A-Za-z0-9.:_\[\]-]*) misused "--addr is HOST:PORT, such as 127.0.0.2:8080" ;;
    *:*) ;;
    *) misused "--addr is HOST:PORT, such as 127.0.0.2:8080" ;;
esac

# Percent-encodes each byte that is not safe in a query, so that any prefix can be used.
encode() {
    local LC_ALL=C text=$1 out='' byte i
    for ((i = 0; i < ${#text}; i++)); do
        byte=${text:i:1}
        case $byte in
            [A-Za-z0-9._-]) out=$out$byte ;;
            # 256 is added for bytes above 127, which printf takes for negative numbers.
            *) out=$out$(printf '%%%02X' "$((($(printf '%d' "'$byte") + 256) % 256))") ;;
        esac
    done
    printf '%s' "$out"
}

# The URLs, in curl's own configuration format. Globbing is off: [ and ] are bytes of a key.
requests() {
    awk -v count="$COUNT" -v base="http://$ADDR/set?key=$1" 'BEGIN {
        for (i = 1; i <= count; i++) printf "url = \"%s%d&value=value-%d\"\n", base, i, i
    }'
}

# Counts what curl prints: after each answer a line "#> STATUS SHARD"; before it, in the bodies of errors, a "code". The
# last line of the result is for the exit code: it is not shown.
count() {
    awk -v count="$COUNT" -v addr="$ADDR" -v live="$1" '
        function progress(end) {
            if (live) printf "\r%d/%d keys, %d failed%s", done, count, failed, end > "/dev/stderr"
        }
        { sub(/\r$/, "") }
        tolower($1) == "kv-shard:" { shard = $2; next }
        /"code": *"/ { code = $0; sub(/.*"code": *"/, "", code); sub(/".*/, "", code); codes[code]++; next }
        $1 == "#>" {
            done++
            if ($2 ~ /^2/) { ok++; shards[($3 == "" ? shard : $3)]++ }
            else { failed++; statuses[$2]++ }
            shard = ""
            if (done % 100 == 0) progress("")
        }
        END {
            progress("\n")
            printf "%d keys written through %s\n", ok, addr
            for (name in shards) {
                printf "  %-16s %8d  %5.1f %%\n", (name == "" ? "(no KV-Shard)" : name), shards[name], 100 * shards[name] / ok | "sort"
            }
            close("sort")
            if (failed) printf "%d failed:\n", failed
            for (status in statuses) {
                printf "  %8d  %s\n", statuses[status], (status == "000" ? "without an answer" : "answered " status)
            }
            for (code in codes) printf "  %8d  of them said %s\n", codes[code], code
            if (done < count) printf "%d were not tried\n", count - done
            exit (failed || done < count)
        }'
}

# A node that is not there is said once, not a thousand times.
curl --silent --output /dev/null --connect-timeout "$CONNECT_SECONDS" --max-time 5 "http://$ADDR/livez"
case $? in
    0) ;;
    28)
        complain "the node at $ADDR does not answer"
        complain "hint: try another one with --addr HOST:PORT"
        exit 5
        ;;
    *)
        complain "there is no node at $ADDR"
        complain "hint: start a cluster with ./launch.sh, or name another node with --addr HOST:PORT"
        exit 5
        ;;
esac

OPTIONS=(--silent --globoff --noproxy '*' --connect-timeout "$CONNECT_SECONDS" --max-time "$ANSWER_SECONDS")
# %header{} came with curl 7.84. Before it, one request at a time with its headers shown: in parallel they would mix.
VERSION=$(curl --version | awk 'NR == 1 { split($2, v, "."); printf "%d%03d", v[1], v[2] }')
if [ "$VERSION" -ge 7084 ]; then
    OPTIONS+=(--parallel --parallel-immediate --parallel-max "$PARALLEL" --write-out '\n#> %{http_code} %header{kv-shard}\n')
else
    OPTIONS+=(--dump-header - --write-out '\n#> %{http_code}\n')
fi
if [ -t 2 ]; then LIVE=1; else LIVE=0; fi
# What curl says on standard error (in parallel a progress meter of its own, silent or not) is counted anyway.
requests "$(encode "$PREFIX")" | curl "${OPTIONS[@]}" --config - 2>/dev/null | count "$LIVE"
# The count alone decides: curl's own exit code is that of one of its requests.
exit "${PIPESTATUS[2]}"
