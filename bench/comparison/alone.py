"""What is measured of this store alone: latency at a fixed rate, the replica's lag and its catching up, many keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from . import load, machine, rounds, servers
from .load import Generated
from .openloop import BenchClient
from .rivals import Target, fill_pairs, new_value
from .rounds import Rounds
from .store import Cluster, Node

OPEN_CONNECTIONS = 64
SET_CONNECTIONS = 128
LOOK_SECONDS = 0.01  # between two looks at the lag
CATCH_UP_SECONDS = 300.0  # beyond it the replica is taken for stuck
REST_SECONDS = 600.0  # for a store that was filled with millions of keys
RESTARTS = 3
TEMPLATES = 1000  # different values for millions of keys


def latency(bench: Rounds, client: BenchClient, node: Cluster) -> None:
    """p99 at half of the peak rate, of reads and of writes; the peak is measured in the same round, by wrk."""
    target = node.target()
    rounds.fill(target)
    client.preload(target.address, OPEN_CONNECTIONS, rounds.KEYS)
    cases = (
        rounds.Case("latency", "peak-get", "", "get", ("ostraca",)),
        rounds.Case("latency", "peak-set", "", "put", ("ostraca",)),
    )
    for turn in range(1, bench.rounds + 1):
        for case, name, workload, connections in (
            (cases[0], "open-get", "get", 32),
            (cases[1], "open-set", "set", SET_CONNECTIONS),
        ):
            works, generate = bench.generator(case, target, connections, 1)
            peak = bench.measure("latency", case.name, "ostraca", connections, turn, works, generate)
            run = lambda rate=peak["rate"] / 2, workload=workload: client(
                target.address, workload, rate, 2 * bench.seconds, OPEN_CONNECTIONS, rounds.KEYS
            )
            bench.measure("latency", name, "ostraca", OPEN_CONNECTIONS, turn, works, run)


def replica(bench: Rounds, client: BenchClient | None, pair: Cluster) -> None:
    """The lag at half the peak write rate, and how quickly a replica that was away has everything again."""
    target = pair.target()
    rounds.fill(target)
    case = rounds.Case("replica", "pair-set", "", "put", ("ostraca",))
    for turn in range(1, bench.rounds + 1):
        works, generate = bench.generator(case, pair.target(), SET_CONNECTIONS, 1)
        peak = bench.measure("replica", "pair-set", "ostraca", SET_CONNECTIONS, turn, works, generate)["rate"]
        _wait_level(pair)
        if client and client.knows_rates:
            _measure_lag(bench, client, pair, turn, peak / 2)
        _measure_catch_up(bench, pair, turn, peak)


def _wait_level(pair: Cluster) -> float:
    """Waits until the replica has everything; when that was."""
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while time.monotonic() < deadline:
        lags = pair.lags()
        if all(lag["lag_entries"] == 0 for lag in lags):
            return time.monotonic()
        time.sleep(LOOK_SECONDS)
    raise servers.Failed(f"the replica did not catch up within {CATCH_UP_SECONDS:.0f} s: {lags}")


def _measure_lag(bench: Rounds, client: BenchClient, pair: Cluster, turn: int, rate: float) -> None:
    seen: list[float] = []

    def look() -> None:
        """One look; an age that nobody knows counts as the longest that was seen."""
        for lag in pair.lags():
            seen.append(lag["lag_ms"] if lag["lag_ms"] is not None else max(seen, default=0.0))

    def generate() -> Generated:
        return client(
            pair.nodes[0].address,
            "set",
            rate,
            3 * bench.seconds,
            OPEN_CONNECTIONS,
            rounds.KEYS,
            meanwhile=look,
            every=LOOK_SECONDS,
        )

    one = bench.measure("replica", "lag", "ostraca", OPEN_CONNECTIONS, turn, pair.processes, generate)
    if not seen:
        raise servers.Failed("nobody looked at the replica's lag")
    seen.sort()
    at = lambda share: seen[min(len(seen) - 1, int(share * len(seen)))]
    one |= {"lag_p50_ms": at(0.5), "lag_p99_ms": at(0.99), "lag_max_ms": seen[-1], "looks": len(seen)}
    print(
        f"          lag p50 {one['lag_p50_ms']:.0f} ms, p99 {one['lag_p99_ms']:.0f} ms, most "
        f"{one['lag_max_ms']:.0f} ms, of {len(seen)} looks",
        flush=True,
    )


def _measure_catch_up(bench: Rounds, pair: Cluster, turn: int, peak: float) -> None:
    follower = next(node for node in pair.nodes if node.copy == 1)
    leader = pair.leader(0)
    _wait_level(pair)
    end = leader.status()["end"]
    pair.stop_node(follower)
    case = rounds.Case("replica", "missed", "", "put", ("ostraca",))
    # What the leader can write is measured now: nobody takes from it what it writes.
    done = bench.generator(case, pair.target(), SET_CONNECTIONS, 1, 2 * bench.seconds)[1]()
    most = max(peak, done["requests"] / done["seconds"])
    assert leader.process
    servers.settle([leader.process])
    missed = leader.status()["end"] - end
    began = time.monotonic()
    pair.start_node(follower)
    seconds = _wait_level(pair) - began
    rate = missed / seconds
    bench.keep(
        {
            "section": "replica",
            "case": "catch-up",
            "server": "ostraca",
            "connections": 1,
            "round": turn,
            "rate": rate,
            "seconds": seconds,
            "missed": missed,
            "missed_rate": most,
            "over_peak": rate / most,
            "errors": {},
        }
    )
    print(
        f"          caught up with {missed:,} writes in {seconds:.2f} s: {rate:,.0f} a second, {rate / most:.2f} × the "
        "leader's",
        flush=True,
    )


def large(
    bench: Rounds,
    start: Callable[[str], Cluster],
    sizes: list[tuple[str, int]],
    profiled: Callable[[str, Node, Callable[[float], object]], None] | None = None,
) -> None:
    """Reads and writes among millions of keys; bytes written, memory, files; `profiled` looks at the reads."""
    nodes: dict[str, tuple[Cluster, int]] = {}
    for name, keys in sizes:
        cluster = nodes.setdefault(name, (start(name), keys))[0]
        _fill_large(bench, cluster, name, keys)
    templates = {name: _templates(bench.directory, cluster.target(), name) for name, (cluster, _) in nodes.items()}
    for turn in range(1, bench.rounds + 1):
        for case, connections, seconds in (
            ("large-get", 32, 2 * bench.seconds),
            ("large-set", SET_CONNECTIONS, 4 * bench.seconds),
        ):
            for name, (cluster, keys) in nodes.items():
                file = templates[name][case]
                target = cluster.target()
                run = lambda: bench.wrk(target, file, connections, seconds, keys=keys)
                bench.measure("large", case, name, connections, turn, cluster.processes, run)
                _wait_rest(cluster)
        for name, (cluster, _) in nodes.items():
            _look_at_memory(bench, cluster.nodes[0], name, turn)
    for name, (cluster, keys) in nodes.items():
        if profiled:
            file, target = templates[name]["large-get"], cluster.target()
            load_for = lambda seconds: bench.wrk(target, file, 32, seconds, keys=keys)
            profiled(f"GET, {name} keys, 32 connections", cluster.nodes[0], load_for)
    for name, (cluster, _) in nodes.items():
        for turn in range(1, RESTARTS + 1):
            _restart(bench, cluster, name, turn)


def _fill_large(bench: Rounds, cluster: Cluster, name: str, keys: int) -> None:
    print(f"writing {keys:,} keys, in the order of their names", flush=True)
    began = time.monotonic()

    def told() -> Iterator[tuple[str, bytes]]:
        for number, pair in enumerate(fill_pairs(keys), 1):
            if number % 1_000_000 == 0:
                print(f"          {number:,} after {time.monotonic() - began:.0f} s", flush=True)
            yield pair

    cluster.target().fill(told())
    seconds = time.monotonic() - began
    _wait_rest(cluster)
    bench.keep(
        {
            "section": "large",
            "case": "large-fill",
            "server": name,
            "connections": 256,
            "round": 1,
            "rate": keys / seconds,
            "seconds": seconds,
            "errors": {},
        }
    )


def _wait_rest(cluster: Cluster) -> None:
    deadline = time.monotonic() + REST_SECONDS
    before = servers.cpu_of(cluster.processes)
    while time.monotonic() < deadline:
        time.sleep(1.0)
        now = servers.cpu_of(cluster.processes)
        if now - before <= servers.SETTLE_SHARE:
            return
        before = now


def _templates(directory: Path, target: Target, name: str) -> dict[str, Path]:
    """Requests in which # stands for a key's number: millions of whole requests would not fit into the generator."""
    assert target.put
    put = target.put
    return {
        "large-get": load.request_file(directory / f"get-{name}", [target.get("key-#")]),
        "large-set": load.request_file(
            directory / f"set-{name}", (put("key-#", new_value()) for _ in range(TEMPLATES))
        ),
    }


def _look_at_memory(bench: Rounds, node: Node, name: str, turn: int) -> None:
    assert node.process
    memory = machine.resident_bytes(node.process.pid)
    files = sum(
        path.stat().st_blocks * 512
        for path in node.room.rglob("*")
        if path.is_file() and path.suffix not in (".log", ".toml")
    )
    bench.keep(
        {
            "section": "large",
            "case": "memory",
            "server": name,
            "connections": 0,
            "round": turn,
            "resident": memory["all"],
            "anonymous": memory["anonymous"],
            "peak": memory["peak"],
            "files": files,
            "errors": {},
        }
    )
    print(
        f"          {name}: {memory['all'] / (1 << 20):.0f} MiB resident, {files / (1 << 20):,.0f} MiB of files",
        flush=True,
    )


def _restart(bench: Rounds, cluster: Cluster, name: str, turn: int) -> None:
    """How long a node takes to be ready again with its files."""
    node = cluster.nodes[0]
    cluster.stop_node(node)
    began = time.monotonic()
    cluster.start_node(node)
    cluster.wait_ready(node)
    bench.keep(
        {
            "section": "large",
            "case": "restart",
            "server": name,
            "connections": 0,
            "round": turn,
            "seconds": time.monotonic() - began,
            "errors": {},
        }
    )
