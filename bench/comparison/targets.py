"""What was to be reached, figure by figure, and how each is read from the measurements.

The rates of the original list were absolute where they named another server's rate beside them ("20,000 a second where
nginx gives 70,000"); here they are ratios to that server in the same rounds, for only that means something elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .figures import Figures, Point, Spread

Reading = Callable[[Figures], Spread | None]


@dataclass(frozen=True)
class Goal:
    """A figure: what it is, what is wanted of it, where it is read."""

    case: str
    what: str
    unit: str  # "×" stands before, others behind the number
    reach: float | None
    beyond: float | None
    reading: Reading
    less_is_better: bool = False

    def shown(self, value: float) -> str:
        """A value with its unit."""
        if self.unit == "×":
            return f"{value:.2f} ×"
        if self.unit == "bytes":
            return f"{value:,.0f} bytes"
        return f"{value:.0f} {self.unit}" if value >= 100 else f"{value:.1f} {self.unit}"

    def wanted(self, value: float | None) -> str:
        """A bound as it is written in the table."""
        if value is None:
            return ""
        number = f"{value:.2f}".rstrip("0").rstrip(".") if self.unit == "×" else f"{value:,.0f}"
        return f"{'≤' if self.less_is_better else '≥'} {number}{' ×' if self.unit == '×' else ' ' + self.unit}"

    def holds(self, value: float, bound: float | None) -> bool:
        """Whether a value is as good as a bound."""
        return bound is not None and (value <= bound if self.less_is_better else value >= bound)

    def verdict(self, value: float | None) -> str:
        """What came of it, in words."""
        if value is None:
            return "not measured"
        if self.holds(value, self.beyond):
            return "**beyond**"
        if self.holds(value, self.reach):
            return "**met**"
        if self.reach is None:
            return "not reached"
        off = abs(value - self.reach) / self.reach * 100
        if off > 100:
            return f"missed: {value / self.reach:.1f} times as much"
        return f"missed by {off:.0f} %" if off >= 0.5 else "missed by a hair"


def ratio(above: Point, below: Point, quantity: str = "rate") -> Reading:
    """One point's over another's, within rounds."""
    return lambda figures: figures.ratio(above, below, quantity)


def plain(point: Point, quantity: str, factor: float = 1.0) -> Reading:
    """A quantity itself, in a unit of which it has `factor`."""

    def read(figures: Figures) -> Spread | None:
        spread = figures.spread(point, quantity)
        return spread and spread.times(factor)

    return read


def peak_over(case: str, below: Point) -> Reading:
    """The best rate of a case, over all its connections, to another point's."""

    def read(figures: Figures) -> Spread | None:
        best = figures.peak(case, "ostraca")
        return best and figures.ratio(best, below)

    return read


def _at(case: str, connections: int, server: str = "ostraca") -> Point:
    return Point(case, server, connections)


GET, SET, NGINX = _at("get", 32), _at("set", 128), _at("nginx", 32, "nginx")
MIB = 1 / (1 << 20)

GOALS = (
    Goal("GET, one node, 32 connections", "rate against webdis", "×", 1.3, 1.5, ratio(GET, _at("get", 32, "webdis"))),
    Goal("", "rate against nginx with a 100-byte file", "×", 1.2, None, ratio(GET, _at("get", 32, "nginx"))),
    Goal("", "rate against etcd's HTTP gateway", "×", 8, None, ratio(GET, _at("get", 32, "etcd"))),
    Goal("", "server CPU per request", "µs", 11, 8, plain(GET, "cpu_us"), True),
    Goal(
        "GET, 16 pipelined, 32 connections",
        "rate against its own, not pipelined",
        "×",
        4,
        None,
        ratio(_at("get16", 32), GET),
    ),
    Goal(
        "", "rate against nginx, not pipelined", "×", None, 600 / 130, ratio(_at("get16", 32), _at("get", 32, "nginx"))
    ),
    Goal(
        "durable SET, one node, 128 connections",
        "rate against webdis",
        "×",
        1.1,
        1.5,
        ratio(SET, _at("set", 128, "webdis")),
    ),
    Goal("", "rate against etcd's HTTP gateway", "×", 4, None, ratio(SET, _at("set", 128, "etcd"))),
    Goal("", "rate against `redis-benchmark` on that Redis", "×", None, 1, ratio(SET, _at("set", 128, "redis"))),
    Goal(
        "durable SET, one connection",
        "rate against `redis-benchmark` on that Redis",
        "×",
        1,
        None,
        ratio(_at("set", 1), _at("set", 1, "redis")),
    ),
    Goal(
        "GET of another node's key, 32 connections",
        "rate against a GET of the node's own",
        "×",
        0.6,
        0.85,
        ratio(_at("other", 32), _at("direct", 32)),
    ),
    Goal("", "CPU per request, all nodes", "µs", 18, None, plain(_at("other", 32), "cpu_us"), True),
    Goal(
        "SET through one node of four shards with replicas",
        "best rate against nginx' GET (20,000 where it gives 70,000)",
        "×",
        20 / 70,
        40 / 70,
        peak_over("through", NGINX),
    ),
    Goal(
        "", "512 connections against 128: no collapse", "×", 0.8, None, ratio(_at("through", 512), _at("through", 128))
    ),
    Goal("half the peak rate, open loop", "p99 of GET", "ms", 2, 1, plain(_at("open-get", 64), "p99_us", 1e-3), True),
    Goal("", "p99 of a durable SET", "ms", 10, 4, plain(_at("open-set", 64), "p99_us", 1e-3), True),
    Goal(
        "replica", "p99 of its lag at half the peak write rate", "ms", 20, 5, plain(_at("lag", 64), "lag_p99_ms"), True
    ),
    Goal("", "catching up, against what its leader can write", "×", 1, None, plain(_at("catch-up", 1), "over_peak")),
    Goal(
        "10 million keys against 1 million",
        "GET, 32 connections",
        "×",
        0.85,
        None,
        ratio(_at("large-get", 32, "10M"), _at("large-get", 32, "1M")),
    ),
    Goal("", "SET, 128 connections", "×", 0.5, 0.8, ratio(_at("large-set", 128, "10M"), _at("large-set", 128, "1M"))),
    Goal(
        "bytes written per SET of 100 bytes, 128 connections",
        "1 million keys",
        "bytes",
        3000,
        1000,
        plain(_at("large-set", 128, "1M"), "written"),
        True,
    ),
    Goal("", "10 million keys", "bytes", 6000, 1000, plain(_at("large-set", 128, "10M"), "written"), True),
    Goal(
        "memory",
        "resident at most, 10 million values of 100 bytes, written and read",
        "MiB",
        400,
        None,
        plain(_at("memory", 0, "10M"), "peak", MIB),
        True,
    ),
)
