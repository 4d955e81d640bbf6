"""The parts of the page, each from the measurements of its section: text, tables, charts; empty without any."""

from __future__ import annotations

from pathlib import Path

from . import chart, tables
from .chart import Bar, Curve
from .figures import Figures, Point
from .rivals import HELD_OPEN
from .tables import NAMES, number

WITH_HTTP = ("ostraca", "nginx", HELD_OPEN, "webdis", "etcd")
WRITERS = ("ostraca", "webdis", "etcd", "redis")
THROUGH = {"direct": "GET, own keys", "other": "GET, another node's", "any": "GET, any key", "through": "SET, any key"}

LATE = """wrk waits for all 16 answers before it sends the next 16. Where a connection gets about 16 answers per 40 ms, the
server sent them in pieces, each of which waited for a late acknowledgement of the one before.
"""
LATENCY = """## Latency at half the peak rate

Open loop: requests are due at fixed times, whether or not earlier ones were answered, and a request's time counts from
when it was due. One node, 64 connections, `benchclient --rate`, on the same cores.

"""
REPLICA = """## The replica

A leader and its replica. The lag is the age of the oldest write that the leader does not know the replica to have on
its disk, as the leader says it, looked at tens of times a second while writes came at half the pair's rate. For
catching up the replica was stopped, missed writes, and was started again; counted from the start of its process until
the leader knew that it had everything.

"""
LARGE = """## Many keys

This store alone, default settings, keys of 16 bytes and values of 100, written first in the order of their names, then
read and written at random. Bytes are those that the process caused to be written until it rested again after the load
(`write_bytes` of /proc/PID/io), and, for comparison, what the whole device wrote meanwhile, the file system's journal
included. What the store does not hold in its own cache (64 MiB) it reads from its file, which the kernel's cache holds
where memory allows.

"""
PROFILES = """## Where the time goes

Shares of the node's processor time, by `perf` at 999 samples a second: each function without what it calls. In a
virtual machine without counters of its own, samples in the kernel fall on the places where it allows interrupts again
(`finish_task_switch`, `_raw_spin_unlock_irqrestore`); the kernel's sum is right all the same.

"""


def one(figures: Figures, charts: Path) -> str:
    """One node beside the others."""
    if not figures.points("get") and not figures.points("set"):
        return ""
    parts = ["## One node\n"]
    for case, title, servers in (
        ("get", "GET", WITH_HTTP),
        ("get16", "GET, 16 requests pipelined on each connection", WITH_HTTP),
        ("set", "Durable SET", WRITERS),
        ("set16", "Durable SET, 16 requests pipelined", WRITERS),
    ):
        if not figures.points(case):
            continue
        parts += [
            f"### {title}\n",
            _curves(figures, charts, case, f"{title}: answers a second", servers),
            "Answers a second:\n",
            tables.of_case(figures, case, "rate", servers),
            "How many times as fast as the others, within rounds:\n",
            tables.ratios(figures, case, servers[1:]),
            "Processor time of all the server's processes per request, in µs:\n",
            tables.of_case(figures, case, "cpu_us", servers, brief=True),
        ]
    parts += [_bars(figures, charts)]
    if figures.points("set16"):
        parts += [LATE]
    return "\n".join(parts)


def _curves(figures: Figures, charts: Path, case: str, title: str, servers: tuple[str, ...]) -> str:
    connections = sorted({point.connections for point in figures.points(case)})
    lines = [
        Curve(NAMES[server], server, [figures.spread(Point(case, server, count), "rate") for count in connections])
        for server in servers
    ]
    text = chart.curves(
        title,
        "median of the rounds, least to greatest; more is better",
        [str(count) for count in connections],
        [line for line in lines if any(line.values)],
    )
    return _keep(charts, case, title, text)


def _bars(figures: Figures, charts: Path) -> str:
    some = []
    for case, connections, what, servers in (("get", 32, "GET", WITH_HTTP), ("set", 128, "SET", WRITERS)):
        for server in servers:
            value = figures.spread(Point(case, server, connections), "cpu_us")
            if value and server != "etcd":
                some.append(Bar(f"{what} · {NAMES[server]}", server, value, f"{value.median:.1f} µs"))
    if not some:
        return ""
    title = "Processor time per request, one node"
    below = "GET with 32 connections, SET with 128; all processes of a server; less is better. etcd is off this scale"
    return _keep(charts, "cpu", title, chart.bars(title, below, some))


def _keep(charts: Path, name: str, title: str, text: str) -> str:
    (charts / f"{name}.svg").write_text(text)
    return f"![{title}]({charts.name}/{name}.svg)\n"


def cluster(figures: Figures, charts: Path) -> str:
    """Four shards with replicas, through one node."""
    there = [case for case in THROUGH if figures.points(case)]
    if not there:
        return ""
    counts = sorted({point.connections for case in there for point in figures.points(case)})
    lines = [
        Curve(
            THROUGH[case],
            "ostraca" if case == "direct" else case,
            [figures.spread(Point(case, "ostraca", count), "rate") for count in counts],
        )
        for case in there
    ]
    title = "Four shards with a replica each, asked through one node: answers a second"
    text = chart.curves(
        title, "median of the rounds, least to greatest; more is better", [str(count) for count in counts], lines
    )
    head = ["connections", *(str(count) for count in counts)]

    def rows(quantity: str, brief: bool) -> list[list[str]]:
        found = []
        for case in [*there, *(f"{case}16" for case in there)]:
            name = THROUGH.get(case) or f"{THROUGH[case[:-2]]}, 16 pipelined"
            values = [figures.spread(Point(case, "ostraca", count), quantity) for count in counts]
            if any(values):
                found.append(
                    [name, *(number(value.median) if brief and value else tables.spread(value) for value in values)]
                )
        return found

    nginx = figures.spread(Point("nginx", "nginx", 32), "rate")
    beside = (
        f" nginx gave {number(nginx.median)} answers a second in the same rounds (GET, 32 connections)."
        if nginx
        else ""
    )
    return f"""## A cluster through one node

Eight nodes: four shards, each with a leader and a replica, as in the shipped `sharding.toml`. All requests go to one
node. Of any key, three of four requests are for another shard and are passed on; writes also go to the replicas
meanwhile. Eight nodes, the generator and all forwarding share the same cores.{beside}

{_keep(charts, "cluster", title, text)}
Answers a second:

{tables.table(head, rows("rate", False))}
Processor time of all eight nodes per request, in µs, replication included:

{tables.table(head, rows("cpu_us", True))}"""


def alone(figures: Figures) -> str:
    """What was measured of this store alone: latency, replica, many keys."""
    parts = []
    opens = [(name, Point(case, "ostraca", 64)) for name, case in (("GET", "open-get"), ("durable SET", "open-set"))]
    rows = []
    for name, point in opens:
        if figures.at(point):
            cells = [figures.spread(point, quantity) for quantity in ("rate", "p50_us", "p99_us", "p999_us", "max_us")]
            rows.append(
                [name, tables.spread(cells[0]), *(tables.spread(cell and cell.times(1e-3)) for cell in cells[1:])]
            )
    if rows:
        parts.append(LATENCY + tables.table(["", "requests a second", "p50 ms", "p99 ms", "p99.9 ms", "most ms"], rows))
    parts.append(_replica(figures))
    parts.append(_large(figures))
    return "\n".join(part for part in parts if part)


def _replica(figures: Figures) -> str:
    lag, catch = Point("lag", "ostraca", 64), Point("catch-up", "ostraca", 1)
    if not figures.at(lag) and not figures.at(catch):
        return ""
    rows = []
    for name, point, quantity in (
        ("writes a second of the pair, 128 connections", Point("pair-set", "ostraca", 128), "rate"),
        ("writes a second while the lag was looked at", lag, "rate"),
        ("lag, p50, ms", lag, "lag_p50_ms"),
        ("lag, p99, ms", lag, "lag_p99_ms"),
        ("lag, most, ms", lag, "lag_max_ms"),
        ("writes that the replica missed while it was stopped", catch, "missed"),
        ("writes a second of the leader meanwhile, 128 connections", catch, "missed_rate"),
        ("seconds until the replica had them", catch, "seconds"),
        ("that is, writes a second", catch, "rate"),
    ):
        if value := figures.spread(point, quantity):
            rows.append([name, tables.spread(value)])
    return REPLICA + tables.table(["", ""], rows)


def _large(figures: Figures) -> str:
    sizes = [size for size in ("1M", "10M") if figures.points("memory") and figures.at(Point("memory", size, 0))]
    if not sizes:
        return ""
    rows = []
    for name, case, connections, quantity, factor in (
        ("written at first, keys a second", "large-fill", 256, "rate", 1),
        ("GET, 32 connections, a second", "large-get", 32, "rate", 1),
        ("GET, µs CPU", "large-get", 32, "cpu_us", 1),
        ("durable SET, 128 connections, a second", "large-set", 128, "rate", 1),
        ("durable SET, µs CPU", "large-set", 128, "cpu_us", 1),
        ("bytes written per SET, by the process", "large-set", 128, "written", 1),
        ("bytes written per SET, by the device", "large-set", 128, "device", 1),
        ("the node's files, MiB", "memory", 0, "files", 1 / (1 << 20)),
        ("ready again after a restart, s", "restart", 0, "seconds", 1),
        ("resident at most, MiB", "memory", 0, "peak", 1 / (1 << 20)),
        ("resident after a round, MiB", "memory", 0, "resident", 1 / (1 << 20)),
        ("of it no pages of files, MiB", "memory", 0, "anonymous", 1 / (1 << 20)),
    ):
        values = [figures.spread(Point(case, size, connections), quantity) for size in sizes]
        if any(values):
            rows.append([name, *(tables.spread(value and value.times(factor)) for value in values)])
    return LARGE + tables.table(["keys", *sizes], rows)


def profiles(results: list[dict]) -> str:
    """Where the time goes."""
    parts = []
    for result in results:
        for name, text in result["extras"].get("profiles", {}).items():
            parts.append(f"### {name}\n\n```text\n{text.rstrip()}\n```\n")
    if not parts:
        return ""
    return PROFILES + "\n".join(parts)
