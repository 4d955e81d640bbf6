"""The short run: its figures beside those of the last one, or of another binary in the same rounds.

Rates of two runs are not compared as they are, for the machine may have been slower as a whole. A run divides by what
another server did in the same rounds (nginx for reads, webdis on Redis for writes); two runs compare these ratios. What
counts as slower: every round of this one is worse than every round of the last, by more than a machine's whim.
"""

from __future__ import annotations

import json
from pathlib import Path

from .figures import Figures, Point, Spread
from .rounds import BRIEF

WHIM = 0.05  # a difference below this share is none
SAME_MACHINE = ("cores", "processor", "kernel", "file_system")


def previous(results: Path, current: Path, run: dict) -> tuple[Path, dict] | None:
    """The newest short run before this one on this machine."""
    for path in sorted(results.glob("quick-*.json"), reverse=True):
        if path == current:
            continue
        earlier = json.loads(path.read_text())
        if all(earlier["machine"].get(key) == run["machine"].get(key) for key in SAME_MACHINE):
            return path, earlier
    return None


def report(run: dict, last: tuple[Path, dict] | None, against: bool) -> bool:
    """Prints the figures and what became slower; whether anything did."""
    now = Figures(run["measurements"])
    for one in now.invalid():
        print(f"NOT VALID: {one['case']}, {one['server']}, {one['connections']} connections: {one['errors']}")
    if against:
        print("\nthis binary against the other, within rounds; more than 1 is faster, less CPU is better")
        return _compare(now, now, "before")
    if last is None:
        print("\nnothing to compare with yet: the next run on this machine will be compared with this one")
        _show(now)
        return False
    path, earlier = last
    print(f"\nagainst {path.name} of {earlier['date']} UTC, {earlier['versions'].get('ostraca', '')}")
    return _compare(now, Figures(earlier["measurements"]), None)


def _points() -> list[tuple[str, Point, Point | None]]:
    found = []
    for case in BRIEF:
        for connections in case.connections:
            yardstick = Point(case.name, case.servers[1], connections) if len(case.servers) > 1 else None
            found.append(
                (f"{case.title}, {connections} connections", Point(case.name, "ostraca", connections), yardstick)
            )
    return found


def _show(now: Figures) -> None:
    for title, point, yardstick in _points():
        ratio = yardstick and now.ratio(point, yardstick)
        cpu = now.spread(point, "cpu_us")
        if ratio and cpu and yardstick:
            print(f"{title:50} {ratio.median:6.2f} × {yardstick.server:8} {cpu.median:7.1f} µs CPU")


def _compare(now: Figures, then: Figures, other: str | None) -> bool:
    """`other`: the server in the same rounds that stands for before; without it `then` is another run."""
    slower = False
    for title, point, yardstick in _points():
        new: Spread | None
        old: Spread | None
        cpu_new: Spread | None
        cpu_old: Spread | None
        if other:
            before, one = Point(point.case, other, point.connections), Spread(1.0, 1.0, 1.0, 1)
            new, old = now.ratio(point, before), one
            cpu_new, cpu_old = now.ratio(point, before, "cpu_us"), one
        elif yardstick:
            new, old = now.ratio(point, yardstick), then.ratio(point, yardstick)
            cpu_new, cpu_old = now.spread(point, "cpu_us"), then.spread(point, "cpu_us")
        else:
            continue
        if not (new and old and cpu_new and cpu_old):
            print(f"{title:50} not in both")
            continue
        rate, cpu = change(new, old), change(cpu_new, cpu_old)
        worse = rate < 0 or cpu > 0
        slower |= worse
        note = "SLOWER" if worse else "better" if rate > 0 or cpu < 0 else ""
        if other:
            print(f"{title:50} rate {_shown(new)} ×, CPU {_shown(cpu_new)} ×  {note}")
        elif yardstick:
            print(
                f"{title:50} {old.median:6.2f} → {_shown(new)} × {yardstick.server}, "
                f"{cpu_old.median:.1f} → {_shown(cpu_new)} µs CPU  {note}"
            )
    if not slower:
        print("nothing became slower beyond the spread")
    return slower


def _shown(value: Spread) -> str:
    return f"{value.median:.2f} ({value.least:.2f}–{value.most:.2f})"


def change(new: Spread, old: Spread) -> int:
    """1 when the new is greater beyond the spread, -1 when smaller, 0 when nobody can tell."""
    return (new.least > old.most * (1 + WHIM)) - (new.most < old.least * (1 - WHIM))
