"""docs/performance.md and its charts, from the JSON of a run (or of several, measured on one machine). What people have to
say of it, such as what a missed figure's time goes into, they write into docs/performance-notes.md, which is put in.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from . import parts, tables
from .figures import Figures, Point
from .rivals import DURABILITY
from .tables import LABELS, number

PAGE_WIDTH = 120
NOTES = "performance-notes.md"  # beside the page, written by people
GLANCE = {
    "nginx": "nginx with a file",
    "webdis": "webdis on Redis",
    "etcd": "etcd's HTTP gateway",
    "redis": "that Redis in its own protocol",
}


def write(results: list[dict], out: Path) -> None:
    """Writes the page, and its charts into a directory of the same name beside it."""
    charts = out.with_suffix("")
    charts.mkdir(parents=True, exist_ok=True)
    # Rounds of different runs are different rounds.
    figures = Figures(
        one | {"round": (run, one["round"])} for run, result in enumerate(results) for one in result["measurements"]
    )
    notes = out.parent / NOTES
    pieces = [
        _head(results, figures),
        _summary(figures, results),
        _machine(results[-1]),
        parts.one(figures, charts),
        parts.cluster(figures, charts),
        parts.alone(figures),
        parts.profiles(results),
        notes.read_text() if notes.exists() else "",
        _method(results, figures),
    ]
    out.write_text(wrapped("\n".join(piece for piece in pieces if piece)))


def wrapped(text: str) -> str:
    """Paragraphs and list items in lines that a reader of the source likes; tables, code and pictures as they are."""
    lines: list[str] = []
    pending: list[str] = []
    is_code = False

    def flush() -> None:
        if pending:
            indent = "  " if pending[0].startswith("- ") else ""
            lines.extend(
                textwrap.wrap(
                    " ".join(part.strip() for part in pending),
                    PAGE_WIDTH,
                    subsequent_indent=indent,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
            pending.clear()

    for line in text.splitlines():
        is_text = not is_code and line and not line.startswith(("|", "#", "!", "`" * 3))
        if not is_text or line.startswith("- "):
            flush()
        if is_text:
            pending.append(line)
        else:
            lines.append(line)
        is_code ^= line.startswith("`" * 3)
    flush()
    return "\n".join(lines) + "\n"


def _head(results: list[dict], figures: Figures) -> str:
    dates = " and ".join(result["date"] + " UTC" for result in results)
    return f"""# Performance

How fast this store is beside what people would pick instead. All servers ran on one machine, on loopback, in turn,
under the same load: 100,000 keys of 16 bytes in random order, values of 100 random bytes, keep-alive. **A write counts
when it is on the disk**: every server that takes writes here syncs before it answers.

This page is written by `bench/compare` (measured {dates}); run it to see your machine's numbers:

```console
$ bench/compare
```

Absolute numbers say as much about the machine as about the server, and the load generator had the same cores. What
counts are the ratios within a round, in which everything was measured shortly after one another, and the processor time
that a request costs. Small figures are the least and the greatest of the rounds.
{_glance(figures)}"""


def _glance(figures: Figures) -> str:
    """The first answers in a sentence each."""
    lines = []
    for what, case, connections, others in (
        ("A GET", "get", 32, ("nginx", "webdis", "etcd")),
        ("A durable SET", "set", 128, ("webdis", "redis", "etcd")),
    ):
        point = Point(case, "ostraca", connections)
        rate, cpu = figures.median(point, "rate"), figures.median(point, "cpu_us")
        ratios = [(name, figures.ratio(point, Point(case, name, connections))) for name in others]
        said = [f"{number(ratio.median)} × {GLANCE[name]}" for name, ratio in ratios if ratio]
        if rate and cpu and said:
            lines.append(
                f"- {what} with {connections} connections: {number(rate)} a second, {cpu:.1f} µs of processor time each."
                f" That is {', '.join(said[:-1])}{' and ' if said[:-1] else ''}{said[-1]}."
            )
    other, through = (figures.peak(case, "ostraca") for case in ("other", "through"))
    if other and through:
        lines.append(
            f"- Four shards with a replica each, all eight nodes on this machine, asked through one of them: up to "
            f"{number(figures.median(other, 'rate') or 0)} GETs of another node's keys a second, and "
            f"{number(figures.median(through, 'rate') or 0)} durable SETs of any key."
        )
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def _summary(figures: Figures, results: list[dict]) -> str:
    text, asked, met = tables.goals(figures)
    lines = [
        "## What was to be reached, and what is",
        "",
        f"{met} of {asked} figures that were measured are met.",
        "",
        text,
    ]
    invalid = figures.invalid()
    if invalid:
        lines.append(f"{len(invalid)} measurements had errors, and count for nothing:\n")
        lines += [
            f"- {one['case']}, {LABELS.get(one['server'], one['server'])}, {one['connections']} connections, round "
            f"{one['round'][1]}: " + ", ".join(f"{count} × {kind}" for kind, count in one["errors"].items())
            for one in invalid
        ]
        lines.append("")
    for result in results:
        lines += [f"Not measured: `{name}` failed ({why.splitlines()[0]}).\n" for name, why in result["failed"].items()]
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
    memory = f"{machine['memory_bytes'] / (1 << 30):.0f} GiB of memory"
    return f"""## The machine and the servers

{kind.capitalize()}{machine["cores"]} cores ({machine["processor"]}), {memory}, {machine["system"]},
Linux {machine["kernel"]}; files on {machine["file_system"]}{device}, where appending 4 KiB with fdatasync takes
{machine["fdatasync_us"]} µs. Load average at the start {machine["load"]}{stolen_text}.

The load came from wrk {versions.get("wrk", "")} with one thread and from `redis-benchmark`
{versions.get("redis-benchmark", "(missing)")}, on the same cores. {result["rounds"]} rounds of {result["seconds"]}
seconds each; {result.get("minutes", 0):.0f} minutes in all.

| server | durability and settings |
|---|---|
{servers}
"""


def _method(results: list[dict], figures: Figures) -> str:
    commands = ", ".join(f"`{result['command'].strip()}`" for result in results)
    return f"""## How it is measured

- `bench/compare` starts each server on a loopback address in a fresh directory on a disk, fills it with all keys, and
  looks whether it gives back what was written. Then, in each round, each load is given to each server in turn, in
  another order each round. Before a server's first measurement it gets a second of the same load that does not count.
- Requests are put together before the load begins, with as few headers as each server needs, and sent in random order.
  A status of 400 and above, a broken connection or a time-out makes a measurement invalid; here
  {len(figures.invalid())} of {len(figures.all)} were.
- Processor time is what the processes of a server used (user and system, from /proc), from before the load until they
  rest after it: what is done after the answer is paid, too. webdis is charged with its Redis, a cluster with all nodes.
- Loads are closed loops, except where it says open loop: the next request of a connection leaves when the last one is
  answered.
- Ratios are taken within a round, and the median of the rounds is shown. "Not measured" means just that.
- Every number is in the JSON of the run ({commands}); `bench/compare --render` makes this page of it again.
"""
