"""docs/performance.md and its charts, from the JSON of a run (or of several, measured on one machine)."""

from __future__ import annotations

from pathlib import Path

from . import chart, tables
from .chart import Bar, Curve
from .figures import Figures, Point
from .rivals import DURABILITY
from .tables import LABELS, number

NOTES = "performance-notes.md"  # beside the page, written by people
WITH_HTTP = ("ostraca", "nginx", "webdis", "etcd")
WRITERS = ("ostraca", "webdis", "etcd", "redis")
THROUGH = {"direct": "GET, own keys", "other": "GET, another node's", "any": "GET, any key", "through": "SET, any key"}


def write(results: list[dict], out: Path) -> None:
    """Writes the page, and its charts into a directory of the same name beside it."""
    charts = out.with_suffix("")
    charts.mkdir(parents=True, exist_ok=True)
    figures = Figures(one for result in results for one in result["measurements"])
    notes = out.parent / NOTES
    parts = [
        _head(results), _summary(figures, results), _machine(results[-1]), _one(figures, charts), _cluster(figures, charts),
        _alone(figures, charts), _profiles(results), notes.read_text() if notes.exists() else "", _method(results, figures),
    ]
    out.write_text("\n".join(part for part in parts if part))


def _head(results: list[dict]) -> str:
    dates = " and ".join(result["date"] + " UTC" for result in results)
    return f"""# Performance

How fast this store is beside what people would pick instead. All servers ran on one machine, on loopback, in turn, under
the same load: 100,000 keys of 16 bytes in random order, values of 100 random bytes, keep-alive. **A write counts when it is
on the disk**: every server that takes writes here syncs before it answers.

This page is written by `bench/compare` (measured {dates}); run it to see your machine's numbers:

```console
$ bench/compare
```

Absolute numbers say as much about the machine as about the server, and the load generator had the same cores. What counts
are the ratios within a round, in which everything was measured shortly after one another, and the processor time that a
request costs. Small figures are the least and the greatest of the rounds.
"""


def _summary(figures: Figures, results: list[dict]) -> str:
    text, asked, met = tables.goals(figures)
    lines = ["## What was to be reached, and what is", "", f"{met} of {asked} figures that were measured are met.", "", text]
    invalid = figures.invalid()
    if invalid:
        lines.append(f"{len(invalid)} measurements had errors, and count for nothing:\n")
        lines += [f"- {one['case']}, {LABELS.get(one['server'], one['server'])}, {one['connections']} connections, round "
                  f"{one['round']}: " + ", ".join(f"{count} × {kind}" for kind, count in one["errors"].items())
                  for one in invalid]
        lines.append("")
    for result in results:
        lines += [f"Not measured: section `{name}` failed ({why.splitlines()[0]}).\n" for name, why in result["failed"].items()]
    return "\n".join(lines)


def _machine(result: dict) -> str:
    machine, versions = result["machine"], result["versions"]
    rows = [
        ["Ostraca " + versions["ostraca"], DURABILITY["ostraca"]],
        ["Redis " + versions.get("redis-server", "(missing)"), DURABILITY["redis"]],
        ["webdis " + versions.get("webdis", "(missing)"), DURABILITY["webdis"]],
        ["etcd " + versions.get("etcd", "(missing)"), DURABILITY["etcd"]],
        ["nginx " + versions.get("nginx", "(missing)"), DURABILITY["nginx"]],
    ]
    servers = "\n".join(f"| {name} | {text} |" for name, text in rows)
    kind = "a virtual machine with " if machine["virtual"] else ""
    stolen = sum(one.get("stolen", 0) for one in result["measurements"])
    stolen_text = f"; the host gave {stolen:.0f} s of processor time to others meanwhile" if stolen >= 1 else ""
    device = f" on `{machine['device']}`" if machine["device"] else ""
    return f"""## The machine and the servers

{kind.capitalize()}{machine['cores']} cores ({machine['processor']}), {machine['memory_bytes'] / (1 << 30):.0f} GiB of memory, {machine['system']}, Linux
{machine['kernel']}; files on {machine['file_system']}{device}, where appending 4 KiB with fdatasync takes {machine['fdatasync_us']} µs. Load average at the
start {machine['load']}{stolen_text}. Load: wrk {versions.get('wrk', '')} with one thread, `redis-benchmark`
{versions.get('redis-benchmark', '(missing)')}, both on the same cores. {result['rounds']} rounds of {result['seconds']} seconds each; {result.get('minutes', 0):.0f} minutes in all.

| server | durability and settings |
|---|---|
{servers}
"""


def _one(figures: Figures, charts: Path) -> str:
    if not figures.points("get") and not figures.points("set"):
        return ""
    parts = ["## One node\n"]
    for case, title, servers in (("get", "GET", WITH_HTTP), ("get16", "GET, 16 requests pipelined on each connection", WITH_HTTP),
                                 ("set", "Durable SET", WRITERS), ("set16", "Durable SET, 16 requests pipelined", WRITERS)):
        if not figures.points(case):
            continue
        parts += [f"### {title}\n", _curves(figures, charts, case, f"{title}: answers a second", servers),
                  "Answers a second:\n", tables.of_case(figures, case, "rate", servers),
                  "How many times as fast as the others, within rounds:\n", tables.ratios(figures, case, servers[1:]),
                  "Processor time of all the server's processes per request, in µs:\n",
                  tables.of_case(figures, case, "cpu_us", servers, brief=True)]
    parts += [_bars(figures, charts)]
    if figures.points("set16"):
        parts += ["wrk waits for all 16 answers before it sends the next 16. webdis and, on few connections, others send them in "
                  "pieces that the client's kernel acknowledges late: where a rate is near 16 per 40 ms, that is why.\n"]
    return "\n".join(parts)


def _curves(figures: Figures, charts: Path, case: str, title: str, servers: tuple[str, ...]) -> str:
    connections = sorted({point.connections for point in figures.points(case)})
    lines = [Curve(LABELS[server].split(",")[0].split(" (")[0], server,
                   [figures.spread(Point(case, server, count), "rate") for count in connections]) for server in servers]
    text = chart.curves(title, "median of the rounds, least to greatest; more is better", [str(count) for count in connections],
                        [line for line in lines if any(line.values)])
    return _keep(charts, case, title, text)


def _bars(figures: Figures, charts: Path) -> str:
    some = []
    for case, connections, what, servers in (("get", 32, "GET", WITH_HTTP), ("set", 128, "SET", WRITERS)):
        for server in servers:
            value = figures.spread(Point(case, server, connections), "cpu_us")
            if value and server != "etcd":
                some.append(Bar(f"{what} · {LABELS[server].split(',')[0].split(' (')[0]}", server, value, f"{value.median:.1f} µs"))
    if not some:
        return ""
    title = "Processor time per request, one node"
    below = "GET with 32 connections, durable SET with 128; all processes of a server; less is better. etcd, in the table, is off this scale"
    return _keep(charts, "cpu", title, chart.bars(title, below, some))


def _keep(charts: Path, name: str, title: str, text: str) -> str:
    (charts / f"{name}.svg").write_text(text)
    return f"![{title}]({charts.name}/{name}.svg)\n"


def _cluster(figures: Figures, charts: Path) -> str:
    there = [case for case in THROUGH if figures.points(case)]
    if not there:
        return ""
    counts = sorted({point.connections for case in there for point in figures.points(case)})
    lines = [Curve(THROUGH[case], "ostraca" if case == "direct" else case,
                   [figures.spread(Point(case, "ostraca", count), "rate") for count in counts]) for case in there]
    title = "Four shards with a replica each, asked through one node: answers a second"
    text = chart.curves(title, "median of the rounds, least to greatest; more is better", [str(count) for count in counts], lines)
    head = ["connections", *(str(count) for count in counts)]

    def rows(quantity: str, brief: bool) -> list[list[str]]:
        found = []
        for case in [*there, *(f"{case}16" for case in there)]:
            name = THROUGH.get(case) or f"{THROUGH[case[:-2]]}, 16 pipelined"
            values = [figures.spread(Point(case, "ostraca", count), quantity) for count in counts]
            if any(values):
                found.append([name, *(number(value.median) if brief and value else tables.spread(value) for value in values)])
        return found

    nginx = figures.spread(Point("nginx", "nginx", 32), "rate")
    beside = f" nginx gave {number(nginx.median)} answers a second in the same rounds (GET, 32 connections)." if nginx else ""
    return f"""## A cluster through one node

Eight nodes: four shards, each with a leader and a replica, as in the shipped `sharding.toml`. All requests go to one node.
Of any key, three of four requests are for another shard and are passed on; writes also go to the replicas meanwhile. Eight
nodes, the generator and all forwarding share the same cores.{beside}

{_keep(charts, 'cluster', title, text)}
Answers a second:

{tables.table(head, rows("rate", False))}
Processor time of all eight nodes per request, in µs, replication included:

{tables.table(head, rows("cpu_us", True))}"""


def _alone(figures: Figures, charts: Path) -> str:
    del charts
    parts = []
    opens = [(name, Point(case, "ostraca", 64)) for name, case in (("GET", "open-get"), ("durable SET", "open-set"))]
    rows = []
    for name, point in opens:
        if figures.at(point):
            cells = [figures.spread(point, quantity) for quantity in ("rate", "p50_us", "p99_us", "p999_us", "max_us")]
            rows.append([name, *(tables.spread(cell) for cell in cells)])
    if rows:
        parts.append("## Latency at half the peak rate\n\nOpen loop: requests are due at fixed times, whether or not earlier ones "
                     "were answered, and a request's time counts from when it was due. One node, 64 connections, `benchclient "
                     "--rate`, on the same cores.\n\n" +
                     tables.table(["", "requests a second", "p50 µs", "p99 µs", "p99.9 µs", "max µs"], rows))
    parts.append(_replica(figures))
    parts.append(_large(figures))
    return "\n".join(part for part in parts if part)


def _replica(figures: Figures) -> str:
    lag, catch = Point("lag", "ostraca", 64), Point("catch-up", "ostraca", 1)
    if not figures.at(lag) and not figures.at(catch):
        return ""
    rows = []
    for name, point, quantity in (
            ("peak write rate of the pair, 128 connections, a second", Point("pair-set", "ostraca", 128), "rate"),
            ("writes a second while the lag was looked at", lag, "rate"), ("lag, p50, ms", lag, "lag_p50_ms"),
            ("lag, p99, ms", lag, "lag_p99_ms"), ("lag, most, ms", lag, "lag_max_ms"),
            ("writes that the replica had missed", catch, "missed"), ("seconds until it had them", catch, "seconds"),
            ("writes a second while catching up", catch, "rate")):
        if value := figures.spread(point, quantity):
            rows.append([name, tables.spread(value)])
    return ("## The replica\n\nA leader and its replica. The lag is the age of the oldest write that the leader does not know the "
            "replica to have on its disk, as the leader says it, looked at about a hundred times a second while writes came at "
            "half the pair's peak rate. For catching up the replica was stopped, missed writes, and was started again; counted "
            "from the start of its process until the leader knew that it had everything.\n\n" + tables.table(["", ""], rows))


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
            ("resident, MiB", "memory", 0, "resident", 1 / (1 << 20)),
            ("of it not pages of files, MiB", "memory", 0, "anonymous", 1 / (1 << 20))):
        values = [figures.spread(Point(case, size, connections), quantity) for size in sizes]
        if any(values):
            rows.append([name, *(tables.spread(type(value)(*(part * factor for part in value[:3]), value.count)) if value else "–"
                                 for value in values)])
    return ("## Many keys\n\nThis store alone, default settings, keys of 16 bytes and values of 100. Bytes are those that the "
            "process caused to be written until it rested again after the load (`write_bytes` of /proc/PID/io), and, for "
            "comparison, what the whole device wrote meanwhile, the file system's journal included.\n\n" +
            tables.table(["keys", *sizes], rows))


def _profiles(results: list[dict]) -> str:
    parts = []
    for result in results:
        for name, text in result["extras"].get("profiles", {}).items():
            parts.append(f"### {name}\n\n```text\n{text.rstrip()}\n```\n")
    if not parts:
        return ""
    return ("## Where the time goes\n\nShares of the node's processor time, by `perf` at 999 samples a second: each function "
            "without what it calls. In a virtual machine without counters of its own, samples in the kernel fall on the places "
            "where it allows interrupts again (`finish_task_switch`, `_raw_spin_unlock_irqrestore`); the kernel's sum is right "
            "all the same.\n\n" + "\n".join(parts))


def _method(results: list[dict], figures: Figures) -> str:
    return f"""## How it is measured

- `bench/compare` starts each server on a loopback address in a fresh directory on a disk, fills it with all keys, and looks
  whether it gives back what was written. Then, in each round, each load is given to each server in turn, in another order
  each round. Before a server's first measurement it gets a second of the same load that does not count.
- Requests are put together before the load begins, with as few headers as each server needs, and sent in random order. A
  status of 400 and above, a broken connection or a time-out makes a measurement invalid; here {len(figures.invalid())} of {len(figures.all)} were.
- Processor time is what the processes of a server used (user and system, from /proc), from before the load until they rest
  after it: what is done after the answer is paid, too. webdis is charged with its Redis, a cluster with all its nodes.
- Loads are closed loops, except where it says open loop: the next request of a connection leaves when the last is answered.
- Ratios are taken within a round, and the median of the rounds is shown. "Not measured" means just that.
- Every number is in the JSON of the run: {', '.join('`' + result['command'].strip() + '`' for result in results)}, {results[-1]['rounds']} rounds.
"""
