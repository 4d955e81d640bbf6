"""Tables of the page, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .figures import Figures, Point, Spread
from .rivals import HELD_OPEN
from .targets import GOALS

LABELS = {
    "ostraca": "Ostraca",
    "redis": "Redis (redis-benchmark)",
    "webdis": "webdis + Redis",
    "nginx": "nginx, 100-byte file",
    HELD_OPEN: "nginx, file held open",
    "etcd": "etcd, HTTP gateway",
}
# Shorter, for charts.
NAMES = {
    "ostraca": "Ostraca",
    "redis": "Redis",
    "webdis": "webdis + Redis",
    "nginx": "nginx",
    HELD_OPEN: "nginx, held open",
    "etcd": "etcd",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """With as many digits as mean something."""
    if abs(value) >= 1000:
        digits = max(0, len(str(int(abs(value)))) - 3)
        return f"{round(value, -digits):,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(value: Spread | None) -> str:
    """Median, and least to greatest."""
    if value is None:
        return "–"
    if value.rounds == 1:
        return number(value.median)
    return f"{number(value.median)} <sub>{number(value.least)}–{number(value.most)}</sub>"


def of_case(figures: Figures, case: str, quantity: str, servers: Sequence[str], brief: bool = False) -> str:
    """A quantity of a case: a row for each server, a column for each number of connections."""
    connections = sorted({point.connections for point in figures.points(case)})
    there = [server for server in servers if any(point.server == server for point in figures.points(case))]

    def cell(server: str, number_of: int) -> str:
        value = figures.spread(Point(case, server, number_of), quantity)
        return number(value.median) if brief and value else spread(value)

    rows = [[LABELS.get(server, server), *(cell(server, count) for count in connections)] for server in there]
    return table(["connections", *(str(count) for count in connections)], rows)


def ratios(figures: Figures, case: str, servers: Sequence[str]) -> str:
    """How many times as fast the store is as each other server, within rounds."""
    connections = sorted({point.connections for point in figures.points(case)})
    rows = []
    for server in servers:
        if any(point.server == server for point in figures.points(case)):
            cells = [figures.ratio(Point(case, "ostraca", count), Point(case, server, count)) for count in connections]
            rows.append([f"against {LABELS.get(server, server)}", *(spread(cell) for cell in cells)])
    return table(["connections", *(str(count) for count in connections)], rows)


def goals(figures: Figures) -> tuple[str, int, int]:
    """The table of what was to be reached; how many figures were measured, and how many of those are met."""
    rows, asked, met = [], 0, 0
    for goal in GOALS:
        value = goal.reading(figures)
        verdict = goal.verdict(value.median if value else None)
        if value and goal.reach is not None:
            asked += 1
            met += verdict.startswith("**")
        shown = "–" if value is None else goal.shown(value.median)
        if value and value.rounds > 1:
            shown += f" <sub>{goal.shown(value.least).split()[0]}–{goal.shown(value.most).split()[0]}</sub>"
        rows.append([goal.case, goal.what, goal.wanted(goal.reach), shown, goal.wanted(goal.beyond), verdict])
    lines = ["| case | figure | to reach | measured | beyond | verdict |", "|---|---|---:|---:|---:|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n", asked, met
