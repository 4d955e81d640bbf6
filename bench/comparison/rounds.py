"""What is measured side by side, and the loop that does it: every server in turn, again and again.

    for each round:  for each case and number of connections:  for each server, in another order each round:  measure

So a disturbance from outside falls on all of them alike, or shows as spread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from . import load, machine, servers, store, wire
from .load import Generated, Measurement, Wrk
from .rivals import HELD_OPEN, Target, fill_pairs, key_name, new_value
from .servers import Process

KEYS = 100_000
CONNECTIONS = (1, 32, 128, 512)
DEPTH = 16  # requests under way on each connection when pipelined
OTHER_SHARD = 2  # Mumbai: the one whose keys are "another node's"
FILL_TRIES = 3
OURS = ("ostraca", "before")
TROUBLE = (wire.Broken, servers.Failed, load.Refused, machine.Gone, OSError)
WARM_SECONDS = 1  # of the same load before a server's first measurement, not counted


@dataclass(frozen=True)
class Case:
    """A load and those that it is given to."""

    section: str  # what runs meanwhile: "one" node or "cluster"
    name: str
    title: str
    verb: str  # get or put
    servers: tuple[str, ...]
    connections: tuple[int, ...] = CONNECTIONS
    depth: int = 1
    keys: str = "all"  # or those of the first node ("own"), or of one other ("other")

    def beside(self, server: str) -> Case:
        """The same case with another server, next to the store."""
        return replace(self, servers=("ostraca", server, *self.servers[1:]))


ALL = (
    Case("one", "get", "GET, one node", "get", ("ostraca", "nginx", HELD_OPEN, "webdis", "etcd")),
    Case("one", "get16", "GET, 16 pipelined", "get", ("ostraca", "nginx", "webdis"), depth=DEPTH),
    Case("one", "set", "SET, one node", "put", ("ostraca", "webdis", "etcd", "redis")),
    Case("one", "set16", "SET, 16 pipelined", "put", ("ostraca", "webdis"), depth=DEPTH),
    Case("cluster", "nginx", "nginx, in the same rounds", "get", ("nginx",), (32,)),
    Case("cluster", "direct", "GET of the node's own keys", "get", ("ostraca",), keys="own"),
    Case("cluster", "other", "GET of another node's keys", "get", ("ostraca",), keys="other"),
    Case("cluster", "any", "GET of any key through one node", "get", ("ostraca",)),
    Case("cluster", "any16", "the same, 16 pipelined", "get", ("ostraca",), (32, 128), DEPTH),
    Case("cluster", "through", "SET of any key through one node", "put", ("ostraca",)),
    Case("cluster", "through16", "the same, 16 pipelined", "put", ("ostraca",), (32, 128), DEPTH),
)
BRIEF = (
    Case("one", "get", "GET, one node", "get", ("ostraca", "nginx"), (32,)),
    Case("one", "get16", "GET, 16 pipelined", "get", ("ostraca", "nginx"), (32,), DEPTH),
    Case("one", "set", "SET, one node", "put", ("ostraca", "webdis"), (1, 128)),
    Case("cluster", "other", "GET of another node's keys", "get", ("ostraca", "nginx"), (32,), keys="other"),
    Case("cluster", "through", "SET through one node", "put", ("ostraca", "nginx"), (128,)),
)


class Rounds:
    """Measures cases, and keeps what was measured."""

    def __init__(
        self, directory: Path, wrk: Wrk, rounds: int, seconds: float, wanted: Callable[[str, str], bool]
    ) -> None:
        self.directory, self.wrk, self.rounds, self.seconds = directory, wrk, rounds, seconds
        self.is_wanted = wanted
        self.measurements: list[Measurement] = []
        # Other servers that did not hold out, and why: the rest is measured without them.
        self.dropped: dict[str, str] = {}
        self._files: dict[tuple[str, str, str], Path] = {}

    def chosen(self, cases: Iterable[Case], section: str) -> list[Case]:
        """The cases of a section that were asked for."""
        return [case for case in cases if case.section == section and self.is_wanted(section, case.name)]

    def run(
        self, cases: list[Case], targets: dict[str, Target], redis: load.RedisBenchmark | None = None, shards: int = 1
    ) -> None:
        """All rounds of these cases. A server that is not there is left out."""
        for name, target in list(targets.items()):
            # A key beside those of the load: what is written here is not read by it.
            with self.without(targets, name):
                target.check(key_name(KEYS))
        steps = [(case, connections) for case in cases for connections in case.connections]
        for turn in range(1, self.rounds + 1):
            for case, connections in steps:
                there = [
                    name
                    for name in case.servers
                    if name in targets or (name == "redis" and redis and name not in self.dropped)
                ]
                first = turn % len(there) if there else 0
                for name in there[first:] + there[:first]:
                    with self.without(targets, name):
                        self._turn(case, name, connections, turn, targets, redis, shards)

    def _turn(
        self,
        case: Case,
        name: str,
        connections: int,
        turn: int,
        targets: dict[str, Target],
        redis: load.RedisBenchmark | None,
        shards: int,
    ) -> None:
        """One server's turn in a round."""
        if name == "redis":
            assert redis
            works, generate = [redis.redis.process], lambda: redis(connections, self.seconds)
        else:
            works, generate = self.generator(case, targets[name], connections, shards)
            if turn == 1:
                self.generator(case, targets[name], connections, shards, WARM_SECONDS)[1]()
        self.measure(case.section, case.name, name, connections, turn, works, generate)

    @contextmanager
    def without(self, targets: dict[str, Target], name: str) -> Iterator[None]:
        """Goes on without a server that fails, if it is another's; the store's own failure ends the section."""
        try:
            yield
        except TROUBLE as error:
            if name in OURS:
                raise
            print(f"{name} is left out from here on: {error}", flush=True)
            self.dropped[name] = str(error)
            targets.pop(name, None)

    def generator(
        self, case: Case, target: Target, connections: int, shards: int, seconds: float | None = None
    ) -> tuple[list[Process], Callable[[], Generated]]:
        """Whose work is counted, and what makes it: wrk with the requests of a case."""
        requests = self._requests(case, target, shards)
        return target.processes, lambda: self.wrk(target, requests, connections, seconds or self.seconds, case.depth)

    def measure(
        self,
        section: str,
        case: str,
        server: str,
        connections: int,
        turn: int,
        works: list[Process],
        generate: Callable[[], Generated],
    ) -> Measurement:
        """Measures once, says so, and keeps it."""
        one: Measurement = {
            "section": section,
            "case": case,
            "server": server,
            "connections": connections,
            "round": turn,
        }
        one |= load.measured(works, self.directory, generate)
        self.measurements.append(one)
        errors = f"  NOT VALID: {one['errors']}" if one["errors"] else ""
        late = f"  p99 {one['p99_us'] / 1000:8.2f} ms" if "p99_us" in one else ""
        print(
            f"{time.strftime('%H:%M:%S')}  round {turn}  {case:10} {connections:4} connections  {server:10} "
            f"{one['rate']:10,.0f}/s  {one['cpu_us']:7.1f} µs CPU{late}{errors}",
            flush=True,
        )
        return one

    def keep(self, one: Measurement) -> None:
        """Keeps what was measured otherwise."""
        self.measurements.append(one)

    def _requests(self, case: Case, target: Target, shards: int) -> Path:
        """The file with every request of a case, made once for a target."""
        name = (target.name + str(target.address), case.verb, case.keys)
        if name not in self._files:
            path = self.directory / f"requests-{len(self._files)}"
            self._files[name] = load.request_file(path, self._each(case, target, shards))
        return self._files[name]

    @staticmethod
    def _each(case: Case, target: Target, shards: int) -> Iterable[bytes]:
        for number in range(KEYS):
            key = key_name(number)
            if case.keys != "all" and store.shard_of(key, shards) != (0 if case.keys == "own" else OTHER_SHARD):
                continue
            # nginx stands as a yardstick beside writes, too: it is read.
            yield target.put(key, new_value()) if case.verb == "put" and target.put else target.get(key)


def fill(target: Target) -> None:
    """Writes every key to a target that takes writes, so that no read finds nothing."""
    if target.put:
        began = time.monotonic()
        _fill_one(target)
        print(f"{target.name}: {KEYS:,} keys written in {time.monotonic() - began:.1f} s", flush=True)


def _fill_one(target: Target) -> None:
    """All keys; once more when that fails, for a machine that is very busy may break a connection."""
    for tries in range(FILL_TRIES, 0, -1):
        try:
            target.fill(fill_pairs(KEYS))
            return
        except wire.Broken as error:
            if tries == 1:
                raise
            print(f"{target.name} could not be filled, and is tried again: {error}", flush=True)


def expected_seconds(cases: Iterable[Case], rounds: int, seconds: float) -> float:
    """About how long a run of cases takes."""
    points = sum(len(case.connections) * len(case.servers) for case in cases)
    return points * (rounds * (seconds + 0.9) + WARM_SECONDS + 0.3)
