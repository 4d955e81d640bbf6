"""The sections of a run, each with its servers: started for it, stopped after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import load, rivals, rounds, store
from .machine import Gone
from .rivals import Redis, Target
from .servers import Failed, Fleet
from .wire import Broken

# What is measured of this store alone.
OTHERS: dict[str, str] = {}
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
    rounds: rounds.Rounds
    cases: Sequence[rounds.Case]
    extras: dict
    profile: bool
    sizes: list[tuple[str, int]]

    def run_all(self, others: bool) -> dict[str, str]:
        """Each section that was asked for; why one did not work. The others are measured all the same."""
        failed: dict[str, str] = {}
        for name, section in (("one", self.one), ("cluster", self.cluster)):
            cases = self.rounds.chosen(self.cases, name)
            if cases:
                self._try(name, lambda section=section, cases=cases: section(cases), failed)
        return failed

    def _try(self, name: str, section: Callable[[], None], failed: dict[str, str]) -> None:
        print(f"\n== {name}", flush=True)
        try:
            section()
        except (Failed, Broken, Gone, load.Refused, OSError) as error:
            failed[name] = str(error)
            print(f"{name} did not work: {error}", flush=True)
        finally:
            self.fleet.stop_all()

    def one(self, cases: list[rounds.Case]) -> None:
        """One node beside the others."""
        targets = {"ostraca": self._alone("ostraca", self.kv, 1)}
        if self.against:
            targets["before"] = self._alone("before", self.against, 2)
        others = rivals.start_rivals(self.fleet, self.programs, self.net)
        redis = others.pop("redis", None)
        targets |= {name: other for name, other in others.items() if isinstance(other, Target)}
        rounds.fill(targets.values())
        plain = None
        if isinstance(redis, Redis) and "redis-benchmark" in self.programs:
            plain = load.RedisBenchmark(self.programs["redis-benchmark"], redis, rounds.KEYS)
        self.rounds.run(self._with_before(cases), targets, plain)

    def cluster(self, cases: list[rounds.Case]) -> None:
        """Four shards with a replica each, asked through one node."""
        targets = {"ostraca": store.start_four(self.fleet, self.kv_path, self.net).target()}
        if self.against:
            targets["before"] = store.start_four(self.fleet, str(self.against), self.net, "before", 40).target()
        if "nginx" in self.programs:
            targets["nginx"] = rivals.start_nginx(self.fleet, self.programs["nginx"], f"{self.net}.101")
        rounds.fill(targets.values())
        self.rounds.run(self._with_before(cases), targets, shards=4)

    @property
    def kv_path(self) -> str:
        """The store's binary."""
        return str(self.kv)

    def _alone(self, name: str, kv: Path, host: int) -> Target:
        return store.start_alone(self.fleet, str(kv), self.net, name, host).target()

    def _with_before(self, cases: list[rounds.Case]) -> list[rounds.Case]:
        return [case.beside("before") for case in cases] if self.against else cases
