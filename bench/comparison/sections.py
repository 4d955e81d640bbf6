"""The sections of a run, each with its servers: started for it, stopped after it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import alone, load, profile, rivals, rounds, store
from .openloop import BenchClient
from .rivals import Redis, Target
from .servers import Fleet
from .store import Cluster, Node

# What is measured of this store alone.
OTHERS = {
    "latency": "p99 at half the peak rate, in an open loop; needs benchclient",
    "replica": "a replica's lag at half the peak write rate (needs benchclient), and its catching up",
    "large": "one and ten million keys, with --large",
    "profile": "where the time goes, with --profile; needs perf",
}
NAMES = ("one", "cluster", *OTHERS)


@dataclass
class Bench:
    """Everything that a section needs."""

    fleet: Fleet
    programs: dict[str, str]
    kv: Path
    benchclient: Path | None
    net: str
    against: Path | None
    loop: rounds.Rounds
    cases: Sequence[rounds.Case]
    extras: dict
    profile: bool  # whether perf is asked, too
    sizes: list[tuple[str, int]]

    def run_all(self, others: bool) -> dict[str, str]:
        """Each section that was asked for; why one did not work. The others are measured all the same."""
        failed: dict[str, str] = {}
        for name, section in (("one", self.one), ("cluster", self.cluster)):
            cases = self.loop.chosen(self.cases, name)
            if cases:
                self._try(name, lambda section=section, cases=cases: section(cases), failed)
        if others:
            self._run_others(failed)
        return failed | {f"{name}, from then on": why for name, why in self.loop.dropped.items()}

    def _run_others(self, failed: dict[str, str]) -> None:
        asked = self.loop.is_wanted
        client = BenchClient(self.benchclient, self.fleet.directory) if self.benchclient else None
        if client is None or not client.knows_rates:
            client = None
            if asked("latency", "") or asked("replica", ""):
                print(
                    "no benchclient that knows --rate: neither p99 at half the peak rate nor lag is measured"
                )
        if asked("latency", "") and client:
            self._try("latency", lambda: alone.latency(self.loop, client, self._node("ostraca", 1)), failed)
        if asked("replica", ""):
            self._try(
                "replica",
                lambda: alone.replica(self.loop, client, store.start_pair(self.fleet, str(self.kv), self.net)),
                failed,
            )
        if self.sizes and asked("large", ""):
            look = self._keep_profile if self.profile else None
            self._try("large", lambda: alone.large(self.loop, self._large_node, self.sizes, look), failed)
        if self.profile and asked("profile", ""):
            self._try("profile", self.profiles, failed)

    def _try(self, name: str, section: Callable[[], None], failed: dict[str, str]) -> None:
        print(f"\n== {name}", flush=True)
        try:
            section()
        except rounds.TROUBLE as error:
            failed[name] = str(error)
            print(f"{name} did not work: {error}", flush=True)
        except Exception as error:  # a fault of ours; what was measured before and what comes after is not lost
            failed[name] = repr(error)
            traceback.print_exc()
        finally:
            self.fleet.stop_all()

    def one(self, cases: list[rounds.Case]) -> None:
        """One node beside the others."""
        targets = {"ostraca": self._node("ostraca", 1).target()}
        if self.against:
            targets["before"] = store.start_alone(self.fleet, str(self.against), self.net, "before", 2).target()
        needed = {server for case in cases for server in case.servers}
        others = rivals.start_rivals(self.fleet, self.programs, self.net, needed)
        redis = others.pop("redis", None)
        targets |= {name: other for name, other in others.items() if isinstance(other, Target)}
        self._fill(targets)
        plain = None
        if isinstance(redis, Redis) and "redis-benchmark" in self.programs:
            plain = load.RedisBenchmark(self.programs["redis-benchmark"], redis, rounds.KEYS)
        self.loop.run(self._with_before(cases), targets, plain)

    def cluster(self, cases: list[rounds.Case]) -> None:
        """Four shards with a replica each, asked through one node."""
        targets = {"ostraca": store.start_four(self.fleet, str(self.kv), self.net).target()}
        if self.against:
            targets["before"] = store.start_four(self.fleet, str(self.against), self.net, "before", 40).target()
        if "nginx" in self.programs:
            targets["nginx"] = rivals.start_nginx(self.fleet, self.programs["nginx"], f"{self.net}.101")
        self._fill(targets)
        self.loop.run(self._with_before(cases), targets, shards=4)

    def _fill(self, targets: dict[str, Target]) -> None:
        for name, target in list(targets.items()):
            with self.loop.without(targets, name):
                rounds.fill(target)

    def profiles(self) -> None:
        """Of one node that reads and that writes, and of two that a forwarded read passes through."""
        node = self._node("ostraca", 1)
        rounds.fill(node.target())
        for title, verb, connections, depth in (
            ("GET, one node, 32 connections", "get", 32, 1),
            ("GET, one node, 32 connections, 16 pipelined", "get", 32, rounds.DEPTH),
            ("SET, one node, 128 connections", "put", 128, 1),
            ("SET, one node, one connection", "put", 1, 1),
        ):
            case = rounds.Case("one", f"{verb}{depth}", title, verb, ("ostraca",), depth=depth)
            self._profile(title, case, node, node.nodes[0], connections)
        self.fleet.stop_all()
        four = store.start_four(self.fleet, str(self.kv), self.net)
        rounds.fill(four.target())
        for title, verb, keys, shard in (
            ("GET of another node's key, 32 connections: the node that is asked", "get", "other", 0),
            ("GET of another node's key, 32 connections: the node that has it", "get", "other", rounds.OTHER_SHARD),
            ("SET of any key, 128 connections: the node that is asked", "put", "all", 0),
            ("SET of any key, 128 connections: the leader of another shard", "put", "all", rounds.OTHER_SHARD),
        ):
            case = rounds.Case("cluster", verb, title, verb, ("ostraca",), keys=keys)
            self._profile(title, case, four, four.leader(shard), 32 if verb == "get" else 128)

    def _profile(self, title: str, case: rounds.Case, cluster: Cluster, node: Node, connections: int) -> None:
        shards = cluster.shards
        load_for = lambda seconds: self.loop.generator(case, cluster.target(), connections, shards, seconds)[1]()
        self._keep_profile(title, node, load_for)

    def _keep_profile(self, title: str, node: Node, load_for: Callable[[float], object]) -> None:
        assert node.process
        text = profile.taken(node.process, self.fleet.directory, load_for)
        if text:
            self.extras.setdefault("profiles", {})[title] = text
            print(f"profile taken: {title}", flush=True)

    def _node(self, name: str, host: int) -> Cluster:
        return store.start_alone(self.fleet, str(self.kv), self.net, name, host)

    def _large_node(self, name: str) -> Cluster:
        return self._node(name, 3 + len(name))  # 1M and 10M side by side, at addresses of their own

    def _with_before(self, cases: list[rounds.Case]) -> list[rounds.Case]:
        return [case.beside("before") for case in cases] if self.against else cases


def expected_minutes(
    is_wanted: Callable[[str, str], bool], turns: int, seconds: float, profile_too: bool, sizes: Sequence[str]
) -> float:
    """About how long what is measured of this store alone takes."""
    parts = {
        "latency": turns * (6 * seconds + 4) + 15,
        "replica": turns * (7 * seconds + 8) + 10,
        "large": turns * len(sizes) * (6 * seconds + 8) + ("1M" in sizes) * 45 + ("10M" in sizes) * 450,
        "profile": 80.0 * profile_too,
    }
    return sum(part for name, part in parts.items() if is_wanted(name, "")) / 60
