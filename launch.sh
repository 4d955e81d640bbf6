#!/usr/bin/env bash
# launch.sh: builds the store and runs every node of sharding.toml on this machine, until Ctrl-C.
#
#   check ─→ build ─→ addresses free? ─→ start ─→ ready? ─→ table ─→ watch ─→ (Ctrl-C) SIGTERM ─→ all ended
#
# It ends nothing that it did not start: nodes are signalled one by one, by process id, and only while this shell's own
# job table says that they run. Nodes get process groups of their own (set -m), so that a Ctrl-C at the terminal reaches
# this script alone, and each node is asked to stop exactly once. Only when this script is itself killed with SIGKILL do
# nodes stay behind; the next launch then names them.
#
# Needs bash 3.2 (what macOS has) and nothing besides Rust and the usual Unix tools; curl only for what it tells you to
# paste.

set -uo pipefail

READY_SECONDS=60   # for all nodes to become ready; beyond it the table says who is not, and the others go on
STOP_SECONDS=15    # for a node to end after SIGTERM; beyond it it is killed, and that is said
LAST_LINES=10      # of a dead node's log, shown again

usage() {
    cat <<'TEXT'
Usage: ./launch.sh [--config FILE] [--data DIR] [--fresh] [--aliases]

Builds the store (release) and runs all nodes of a sharding.toml on this machine,
until Ctrl-C or SIGTERM, which stops all of them.

  --config FILE   another file than the sharding.toml beside this script
  --data DIR      where the nodes keep their data (default: data/ beside this script);
                  it is kept between runs
  --fresh         start empty: first removes the database files of this file's nodes
  --aliases       macOS: make the addresses that lo0 lacks (asks for your password);
                  without it, the commands that make them are only shown
  --help          this

Environment: CARGO_TARGET_DIR as cargo has it; KV_BIN=PATH runs that program instead
of building one.

Exit codes: 0 all nodes stopped as asked, 1 something went wrong, 2 usage.
TEXT
}

# Whoever reads this may have gone; that is noticed by the trap on PIPE below.
say() { printf '%s\n' "$*" 2>/dev/null; }
complain() { printf 'launch.sh: %s\n' "$*" >&2 2>/dev/null; } # the order matters: only printf's own troubles vanish
die() { complain "$@"; exit 1; }

# A path as it can be typed in the directory where the user stands.
shown() {
    case $1 in
        "$HERE"/*) printf '%q' "./${1#"$HERE"/}" ;;
        *) printf '%q' "$1" ;;
    esac
}

# The absolute form of a path that is given relative to where the user stands.
absolute() {
    case $1 in
        /*) printf '%s' "$1" ;;
        *) printf '%s' "$HERE/${1#./}" ;;
    esac
}

HERE=$(pwd)
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 1

CONFIG=$ROOT/sharding.toml
DATA=
FRESH=no
ALIASES=no
while [ $# -gt 0 ]; do
    case $1 in
        --config | --data)
            if [ $# -lt 2 ] || [ -z "$2" ]; then
                complain "$1 needs a value; see ./launch.sh --help"
                exit 2
            fi
            if [ "$1" = --config ]; then CONFIG=$(absolute "$2"); else DATA=$(absolute "$2"); fi
            shift
            ;;
        --fresh) FRESH=yes ;;
        --aliases) ALIASES=yes ;;
        --help | -h) usage; exit 0 ;;
        *) complain "unknown argument: $1; see ./launch.sh --help"; exit 2 ;;
    esac
    shift
done

# --- the program ---------------------------------------------------------------------------------------------------

# Sets KV to the absolute path of the program. Cargo itself says where it put it: CARGO_TARGET_DIR and the settings in
# .cargo/config.toml are then respected, whatever they are.
find_or_build() {
    if [ -n "${KV_BIN:-}" ]; then
        KV=$(absolute "$KV_BIN")
        [ -x "$KV" ] || die "KV_BIN=$KV_BIN is no program"
        return
    fi
    command -v cargo >/dev/null || die "cargo is not in the PATH: install Rust (https://rustup.rs), then run this again"
    say "building (release); the first time this takes some minutes"
    local messages
    messages=$(cargo build --release --manifest-path "$ROOT/Cargo.toml" --package ostraca --bin kv \
        --message-format json-render-diagnostics) || die "the build failed; nothing was started"
    KV=$(printf '%s\n' "$messages" | sed -n 's|.*"executable":"\([^"]*/kv\)".*|\1|p' | tail -n 1)
    [ -x "$KV" ] || die "the build did not say where it put kv; give its path: KV_BIN=PATH ./launch.sh"
}

# --- the nodes, one array per column -------------------------------------------------------------------------------

NAMES=() SHARDS=() ROLES=() ADDRESSES=() FILES=()
PIDS=()     # empty once the node has ended
STATES=()   # starting, ready, or how it ended
NODES=()    # 0 1 2 …, to walk through all columns
WIDTH=4     # of the longest name

read_nodes() {
    [ -r "$CONFIG" ] || die "there is no $(shown "$CONFIG"); name your file with --config FILE"
    local listing name shard role address file
    # The program checks the file first, and says all that is wrong with it.
    listing=$("$KV" check "$CONFIG" --nodes) || die "$(shown "$CONFIG") cannot be used; nothing was started"
    while IFS=$'\t' read -r name shard role address file; do
        [ -n "$name" ] || continue
        if [ -n "$DATA" ]; then file=$DATA/${file##*/}; fi
        case $file in /*) ;; *) file=$ROOT/$file ;; esac
        NODES+=("${#NAMES[@]}")
        NAMES+=("$name") SHARDS+=("$shard") ROLES+=("$role") ADDRESSES+=("$address") FILES+=("$file")
        PIDS+=("") STATES+=(starting)
        if [ ${#name} -gt "$WIDTH" ]; then WIDTH=${#name}; fi
    done <<<"$listing"
    [ ${#NAMES[@]} -gt 0 ] || die "$(shown "$CONFIG") names no nodes"
}

host_of() { local host=${1%:*}; host=${host#\[}; printf '%s' "${host%\]}"; }
port_of() { printf '%s' "${1##*:}"; }

# --- addresses -----------------------------------------------------------------------------------------------------

# macOS gives lo0 only 127.0.0.1; the other loopback addresses need an alias each, until the next restart.
check_aliases() {
    [ "$(uname)" = Darwin ] || return 0
    local have missing host address
    have=$(ifconfig lo0)
    missing=
    for address in "${ADDRESSES[@]}"; do
        host=$(host_of "$address")
        case $host in 127.*) ;; *) continue ;; esac
        case "$have"$'\n'"$missing" in
            *"inet $host "*) ;;
            *) missing="${missing}inet $host "$'\n' ;;
        esac
    done
    [ -n "$missing" ] || return 0
    if [ "$ALIASES" = yes ]; then
        while read -r _ host; do
            [ -n "$host" ] || continue
            say "sudo ifconfig lo0 alias $host up"
            sudo ifconfig lo0 alias "$host" up || die "the alias $host could not be made; nothing was started"
        done <<<"$missing"
        return 0
    fi
    complain "this Mac has no alias yet for some of the addresses. These commands make them, until the next restart:"
    while read -r _ host; do
        [ -n "$host" ] && printf '  sudo ifconfig lo0 alias %s up\n' "$host" >&2
    done <<<"$missing"
    complain "paste them, or let this script run them: ./launch.sh --aliases"
    exit 1
}

# Linux: the inodes of the sockets that listen at this address, or at all addresses. From /proc, for a small system has
# neither ss nor lsof.
listening_inodes() {
    local host port
    host=$(host_of "$1") port=$(port_of "$1")
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v host="$host" -v port="$port" '
        BEGIN {
            # /proc shows an IPv4 address as the hexadecimal of its bytes in reverse. Of IPv6 only the port is compared.
            if (split(host, byte, ".") == 4) for (i = 4; i >= 1; i--) want = want sprintf("%02X", byte[i])
            port = sprintf("%04X", port)
        }
        $4 == "0A" && split($2, at, ":") == 2 && at[2] == port &&
            (want == "" || at[1] ~ /^0+$/ || at[1] == want || at[1] == "0000000000000000FFFF0000" want) { print $10 }'
}

can_connect() {
    (exec 3<>"/dev/tcp/$(host_of "$1")/$(port_of "$1")") 2>/dev/null
}

in_use() {
    if [ -r /proc/net/tcp ]; then [ -n "$(listening_inodes "$1")" ]; else can_connect "$1"; fi
}

# Who listens there: process id and command, as far as this user may know.
owner_of() {
    local pid='' inode command=''
    if [ -r /proc/net/tcp ]; then
        for inode in $(listening_inodes "$1"); do
            pid=$(find /proc/[0-9]*/fd -maxdepth 1 -lname "socket:\[$inode\]" 2>/dev/null | head -n 1)
            pid=${pid#/proc/} pid=${pid%%/*}
            [ -z "$pid" ] || break
        done
        [ -z "$pid" ] || command=$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)
    elif command -v lsof >/dev/null; then
        pid=$(lsof -nP -iTCP:"$(port_of "$1")" -sTCP:LISTEN -Fpn 2>/dev/null |
            awk -v here="n$1" -v all="n*:$(port_of "$1")" '/^p/ { pid = substr($0, 2) } $0 == here || $0 == all { print pid; exit }')
        [ -z "$pid" ] || command=$(ps -o args= -p "$pid" 2>/dev/null)
    fi
    if [ -z "$pid" ]; then printf 'a process of another user'; else printf 'process %s: %s' "$pid" "${command:-?}"; fi
}

check_addresses() {
    local i taken=0
    for i in "${NODES[@]}"; do
        in_use "${ADDRESSES[i]}" || continue
        taken=$((taken + 1))
        complain "${ADDRESSES[i]} (${NAMES[i]}) is in use by $(owner_of "${ADDRESSES[i]}")"
    done
    [ "$taken" -gt 0 ] || return 0
    complain "nothing was started. If that is this cluster, use it, or stop it where it was launched; else give other"
    complain "addresses in a file of your own: ./launch.sh --config FILE"
    exit 1
}

# --- data ----------------------------------------------------------------------------------------------------------

# Does some process hold this database file open?
held() {
    if command -v flock >/dev/null; then
        ! flock -n "$1" true
    elif command -v lsof >/dev/null; then
        lsof -t -- "$1" >/dev/null 2>&1
    else
        false
    fi
}

prepare_data() {
    local i file
    for i in "${NODES[@]}"; do
        file=${FILES[i]}
        mkdir -p "$(dirname "$file")" || die "the directory of $file cannot be made; nothing was started"
        if [ "$FRESH" = yes ] && [ -e "$file" ] && held "$file"; then
            die "$(shown "$file") is in use by another process; nothing was removed or started"
        fi
    done
    [ "$FRESH" = yes ] || return 0
    for i in "${NODES[@]}"; do
        file=${FILES[i]}
        # The database, and what a node keeps beside it; nothing else in that directory is touched.
        rm -rf -- "$file" "$file.new" "$file.incoming" "$file.ledger" "$file".log-???????????????? ||
            die "$(shown "$file") cannot be removed"
    done
    say "starting empty: the database files of these ${#NAMES[@]} nodes were removed"
}

# --- running -------------------------------------------------------------------------------------------------------

# Puts the node's name before each line of its log, and leaves the last lines in a file when the log ends. It outlives
# every signal that this script gets, for a node also has something to say while it stops.
prefix() {
    trap '' INT TERM HUP PIPE
    local name=$1 file=$2 line count=0 first lines
    lines=()
    while IFS= read -r line || [ -n "$line" ]; do
        printf '%-*s | %s\n' "$WIDTH" "$name" "$line" 2>/dev/null
        lines[count % LAST_LINES]=$line
        count=$((count + 1))
    done
    first=$((count > LAST_LINES ? count - LAST_LINES : 0))
    while [ "$first" -lt "$count" ]; do
        printf '    %s\n' "${lines[first % LAST_LINES]}"
        first=$((first + 1))
    done >"$file.part"
    mv "$file.part" "$file"
}

start_nodes() {
    local i
    set -m
    for i in "${NODES[@]}"; do
        "$KV" serve --config-file "$CONFIG" --http-addr "${ADDRESSES[i]}" --db-location "${FILES[i]}" \
            --log-format human </dev/null > >(prefix "${NAMES[i]}" "$RUN/$i") 2>&1 &
        PIDS[i]=$!
    done
    set +m
}

# This shell's jobs that run, as " 12 34 ". A process id is signalled only while it stands here: later it may be a
# stranger's.
running() {
    local pids
    pids=$(jobs -pr)
    printf ' %s ' "${pids//$'\n'/ }"
}

# Waits a moment; a signal cuts it short.
nap() {
    sleep "$1" &
    wait "$!" 2>/dev/null
}

# The log's last lines come a moment after the node's end.
wait_for_log() {
    local tries=0
    while [ ! -e "$RUN/$1" ] && [ "$tries" -lt 20 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
}

# Notes which nodes have ended, and says so if that was not asked for. LEFT is the number of those that run.
reap() {
    local i pids code
    pids=$(running)
    LEFT=0
    for i in "${NODES[@]}"; do
        [ -n "${PIDS[i]}" ] || continue
        case $pids in *" ${PIDS[i]} "*) LEFT=$((LEFT + 1)); continue ;; esac
        wait "${PIDS[i]}" 2>/dev/null
        code=$?
        PIDS[i]=
        STATES[i]="ended with exit code $code"
        wait_for_log "$i"
        if [ "$STOPPING" = no ]; then
            FAILED=yes
            complain "${NAMES[i]} (${ADDRESSES[i]}) has ended with exit code $code$(signal_of "$code"); the others go on. Its last lines:"
            cat "$RUN/$i" >&2 2>/dev/null
        elif [ "$code" -ne 0 ] && [ "$code" -ne 143 ]; then
            FAILED=yes
            complain "${NAMES[i]} ended with exit code $code$(signal_of "$code")"
        fi
    done
}

signal_of() {
    if [ "$1" -gt 128 ] && kill -l "$(($1 - 128))" >/dev/null 2>&1; then
        printf ' (SIG%s)' "$(kill -l "$(($1 - 128))")"
    fi
}

is_ready() {
    local status
    status=$(
        exec 2>/dev/null
        exec 3<>"/dev/tcp/$(host_of "$1")/$(port_of "$1")" || exit 1
        printf 'GET /readyz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$1" >&3
        IFS= read -r -t 2 line <&3 && printf '%s' "$line"
        # To its end, for a connection that is dropped while the node writes would be a warning in its log.
        while IFS= read -r -t 2 line <&3; do :; done
    )
    case $status in "HTTP/1.1 200"*) return 0 ;; *) return 1 ;; esac
}

# READY is the number of ready nodes, WAITING of those that run and are not ready.
ask_ready() {
    local i
    READY=0 WAITING=0
    for i in "${NODES[@]}"; do
        [ -n "${PIDS[i]}" ] || continue
        if [ "${STATES[i]}" = ready ]; then
            READY=$((READY + 1))
        elif is_ready "${ADDRESSES[i]}"; then
            STATES[i]=ready
            READY=$((READY + 1))
            [ "$ANNOUNCED" = no ] || say "${NAMES[i]} is ready now"
        else
            WAITING=$((WAITING + 1))
        fi
    done
}

announce() {
    local i first='' late='' status
    ANNOUNCED=yes
    # If others took an address since we looked, it was they who answered "ready", and our node has ended meanwhile.
    nap 0.2
    reap
    [ "$LEFT" -gt 0 ] || return 0
    READY=0
    for i in "${NODES[@]}"; do
        case ${STATES[i]} in
            ready) READY=$((READY + 1)) first=${first:-$i} ;;
            starting) STATES[i]="not ready" late=${late:-$i} ;;
        esac
    done
    say ""
    if [ "$READY" -eq "${#NAMES[@]}" ]; then
        say "All $READY nodes are ready:"
    else
        say "$READY of ${#NAMES[@]} nodes are ready:"
    fi
    say ""
    {
        printf 'NODE\tSHARD\tROLE\tADDRESS\tPROCESS\tSTATE\tDATA\n'
        for i in "${NODES[@]}"; do
            printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "${NAMES[i]}" "${SHARDS[i]}" "${ROLES[i]}" "${ADDRESSES[i]}" \
                "${PIDS[i]:--}" "${STATES[i]}" "$(shown "${FILES[i]}")"
        done
    } | columns
    say ""
    if [ -n "$late" ]; then
        say "Why ${NAMES[late]} is not ready: curl http://${ADDRESSES[late]}/readyz"
        say ""
    fi
    if [ -z "$first" ]; then
        say "No node is ready yet. Ctrl-C stops all of them."
        return
    fi
    # Without --url, kv asks the first address of ./sharding.toml.
    status="$(shown "$KV") status"
    if [ "$first" -ne 0 ] || [ -n "${KV_URL:-}" ] || ! [ "$HERE/sharding.toml" -ef "$CONFIG" ]; then
        status="$status --url http://${ADDRESSES[first]}"
    fi
    say "Paste into another terminal (any node takes any key):"
    say ""
    say "  curl 'http://${ADDRESSES[first]}/set?key=greeting&value=hello'"
    say "  curl 'http://${ADDRESSES[first]}/get?key=greeting'"
    say "  $status"
    say ""
    say "Ctrl-C stops all nodes; their data stays."
    say ""
}

# Tab-separated lines in aligned columns.
columns() {
    awk -F '\t' '
        { for (i = 1; i <= NF; i++) { cell[NR, i] = $i; if (length($i) > width[i]) width[i] = length($i) } }
        END {
            for (row = 1; row <= NR; row++) {
                line = " "
                for (i = 1; i <= NF; i++) line = line sprintf((i < NF ? " %-" width[i] "s " : " %s"), cell[row, i])
                print line
            }
        }'
}

# --- stopping ------------------------------------------------------------------------------------------------------

# Sends a signal to each node that runs, and to nothing else.
signal_nodes() {
    local i pids
    pids=$(running)
    for i in "${NODES[@]}"; do
        [ -n "${PIDS[i]}" ] || continue
        case $pids in *" ${PIDS[i]} "*) kill -s "$1" "${PIDS[i]}" 2>/dev/null ;; esac
    done
}

stop_nodes() {
    local i deadline
    STOPPING=yes
    reap
    [ "$LEFT" -gt 0 ] || return 0
    say "stopping $LEFT nodes"
    signal_nodes TERM
    deadline=$((SECONDS + STOP_SECONDS))
    while reap; [ "$LEFT" -gt 0 ]; do
        if [ "$SECONDS" -ge "$deadline" ] || [ "$ASKED" -gt 1 ]; then
            for i in "${NODES[@]}"; do
                [ -z "${PIDS[i]}" ] || complain "${NAMES[i]} has not stopped: killing process ${PIDS[i]}"
            done
            signal_nodes KILL
            while reap; [ "$LEFT" -gt 0 ]; do nap 0.1; done
            break
        fi
        nap 0.1
    done
    say "all nodes have stopped"
}

leave() {
    local code=$?
    trap - EXIT
    stop_nodes
    rm -rf "$RUN"
    exit "$code"
}

# --- the whole -----------------------------------------------------------------------------------------------------

ASKED=0         # how often we were asked to stop; the second time, nodes are killed
STOPPING=no
FAILED=no
ANNOUNCED=no
LEFT=0 READY=0 WAITING=0

find_or_build
read_nodes
check_aliases
check_addresses
prepare_data

RUN=$(mktemp -d "${TMPDIR:-/tmp}/launch.XXXXXX") || die "no temporary directory could be made"
trap 'ASKED=$((ASKED + 1))' INT TERM HUP
# Whoever reads what we print has gone (launch.sh | head): that is a wish to stop too, and must not end this script alone.
trap '[ "$ASKED" -gt 0 ] || ASKED=1' PIPE
trap leave EXIT

start_nodes
say "started ${#NAMES[@]} nodes; waiting until they are ready"
READY_DEADLINE=$((SECONDS + READY_SECONDS))
while [ "$ASKED" -eq 0 ]; do
    reap
    if [ "$LEFT" -eq 0 ]; then die "all nodes have ended"; fi
    if [ "$ANNOUNCED" = no ] || [ "$WAITING" -gt 0 ]; then ask_ready; fi
    if [ "$ANNOUNCED" = no ] && { [ "$WAITING" -eq 0 ] || [ "$SECONDS" -ge "$READY_DEADLINE" ]; }; then announce; fi
    if [ "$ANNOUNCED" = no ]; then nap 0.2; else nap 1; fi
done
stop_nodes
[ "$FAILED" = no ]
