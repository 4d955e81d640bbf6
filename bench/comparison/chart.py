"""Curves and bars as SVG, readable on a light and on a dark page, without any library.

A curve stands for a server: its medians over the numbers of connections, with the least and the greatest as a thin
line. Its name stands at its end, so that no legend has to be looked up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from .figures import Spread

WIDTH, LEFT, TOP = 760, 78, 52
PLOT_HEIGHT = 270
BAR = 26  # a bar and the room around it
NAME_HEIGHT = 15  # between the names of two curves

# Light and dark. The store's own colour is the strongest; the others can be told apart in grey, too, by their names.
COLOURS = {
    "ostraca": ("#c2410c", "#fb923c"),
    "nginx": ("#15803d", "#4ade80"),
    "nginx-open": ("#4d7c0f", "#a3e635"),
    "webdis": ("#1d4ed8", "#60a5fa"),
    "etcd": ("#7e22ce", "#c084fc"),
    "redis": ("#be123c", "#fb7185"),
}
SPARE = (("#0f766e", "#2dd4bf"), ("#a16207", "#facc15"), ("#334155", "#94a3b8"))


class Curve(NamedTuple):
    """A name, what colour it has, and a value for each place on the axis; None where there is none."""

    name: str
    colour: str
    values: Sequence[Spread | None]


class Bar(NamedTuple):
    """A name, its colour and its length; `note` stands behind it."""

    name: str
    colour: str
    value: Spread
    note: str


def _style(colours: Sequence[str]) -> str:
    pairs = {}
    for number, name in enumerate(dict.fromkeys(colours)):
        pairs[name] = COLOURS.get(name, SPARE[number % len(SPARE)])
    light = "".join(f".{_class(name)}{{--c:{pair[0]}}}" for name, pair in pairs.items())
    dark = "".join(f".{_class(name)}{{--c:{pair[1]}}}" for name, pair in pairs.items())
    return (
        "<style>"
        "svg{--ink:#1f2937;--soft:#6b7280;--grid:#d1d5db;background:#ffffff}"
        + light
        + "@media (prefers-color-scheme:dark){svg{--ink:#e5e7eb;--soft:#9ca3af;--grid:#374151;background:#0d1117}"
        + dark
        + "}"
        "text{font:13px system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;fill:var(--ink)}"
        ".title{font-size:15px;font-weight:600}.soft{fill:var(--soft);font-size:12px}"
        ".grid{stroke:var(--grid);stroke-width:1}.line{fill:none;stroke:var(--c);stroke-width:2}"
        ".ostraca .line{stroke-width:3.5}.range{stroke:var(--c);stroke-width:1.2;opacity:.75}"
        ".dot,.bar{fill:var(--c)}.name{fill:var(--c);font-weight:600}.over{stroke:var(--ink);stroke-width:1.2}"
        "</style>"
    )


def _class(name: str) -> str:
    return (
        "s-"
        + "".join(letter if letter.isalnum() else "-" for letter in name)
        + (" ostraca" if name == "ostraca" else "")
    )


def _svg(title: str, below: str, height: float, body: list[str], colours: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
        f'viewBox="0 0 {WIDTH} {height:.0f}" '
        f'role="img" aria-label="{escape(title)}">'
    )
    texts = [
        f'<text class="title" x="16" y="24">{escape(title)}</text>',
        f'<text class="soft" x="16" y="42">{escape(below)}</text>',
    ]
    return "\n".join([head, _style(colours).replace("s-ostraca ostraca", "s-ostraca"), *texts, *body, "</svg>"]) + "\n"


def _ticks(most: float) -> list[float]:
    """Four to six round numbers from zero to beyond the greatest."""
    step = 10 ** math.floor(math.log10(most / 4)) if most > 0 else 1
    step = next((step * factor for factor in (1, 2, 5, 10) if most / (step * factor) <= 5), step * 10)
    return [step * number for number in range(math.ceil(most / step) + 1)]


def _number(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:,.0f}k"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def curves(title: str, below: str, places: Sequence[str], lines: Sequence[Curve]) -> str:
    """Values over places on an axis, evenly spaced; the vertical axis begins at zero."""
    most = max((value.most for line in lines for value in line.values if value), default=1.0)
    ticks = _ticks(most)
    # Room for the longest name at a curve's end.
    right, bottom = WIDTH - 20 - 7.8 * max((len(line.name) for line in lines), default=0), TOP + 12 + PLOT_HEIGHT

    def x(place: int) -> float:
        return LEFT + 24 + (right - LEFT - 40) * place / max(1, len(places) - 1)

    def y(value: float) -> float:
        return bottom - PLOT_HEIGHT * value / ticks[-1]

    body = []
    for tick in ticks:
        body.append(f'<line class="grid" x1="{LEFT}" y1="{y(tick):.1f}" x2="{right:.0f}" y2="{y(tick):.1f}"/>')
        body.append(f'<text class="soft" x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    for place, name in enumerate(places):
        body.append(
            f'<text class="soft" x="{x(place):.1f}" y="{bottom + 20}" text-anchor="middle">{escape(name)}</text>'
        )
    body.append(
        f'<text class="soft" x="{(LEFT + right) / 2:.0f}" y="{bottom + 40}" text-anchor="middle">connections</text>'
    )
    ends = []
    for line in lines:
        there = [(x(place), value) for place, value in enumerate(line.values) if value]
        if not there:
            continue
        points = " ".join(f"{at:.1f},{y(value.median):.1f}" for at, value in there)
        body.append(f'<g class="{_class(line.colour)}"><polyline class="line" points="{points}"/>')
        for at, value in there:
            body.append(
                f'<line class="range" x1="{at:.1f}" y1="{y(value.least):.1f}" x2="{at:.1f}" y2="{y(value.most):.1f}"/>'
            )
            body.append(f'<circle class="dot" cx="{at:.1f}" cy="{y(value.median):.1f}" r="3.5"/>')
        body.append("</g>")
        ends.append((y(there[-1][1].median), there[-1][0], line))
    for at, (_, beside, line) in zip(
        _apart([end[0] for end in sorted(ends, key=lambda end: end[0])], bottom),
        sorted(ends, key=lambda end: end[0]),
        strict=True,
    ):
        body.append(
            f'<g class="{_class(line.colour)}"><text class="name" x="{beside + 12:.1f}" y="{at + 4:.1f}">'
            f"{escape(line.name)}</text></g>"
        )
    return _svg(title, below, bottom + 54, body, [line.colour for line in lines])


def _apart(heights: list[float], bottom: float) -> list[float]:
    """Moves names apart that would cover each other; the heights are in order."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + NAME_HEIGHT) if placed else height)
    over = max(0.0, placed[-1] - bottom) if placed else 0.0
    return [height - over for height in placed]


def bars(title: str, below: str, some: Sequence[Bar]) -> str:
    """Lengths from zero, one under the other, with the least and the greatest as a thin line."""
    most = max((bar.value.most for bar in some), default=1.0)
    left = 40 + 7.4 * max((len(bar.name) for bar in some), default=0)
    room = WIDTH - left - 150
    body = []
    for row, bar in enumerate(some):
        top = TOP + 10 + row * BAR
        middle = top + (BAR - 8) / 2
        length, least, greatest = (max(1.0, room * value / most) for value in bar.value[:3])
        body.append(f'<g class="{_class(bar.colour)}">')
        body.append(f'<text x="{left - 10:.0f}" y="{middle + 5:.1f}" text-anchor="end">{escape(bar.name)}</text>')
        body.append(f'<rect class="bar" x="{left:.0f}" y="{top}" width="{length:.1f}" height="{BAR - 8}" rx="2"/>')
        body.append(
            f'<line class="over" x1="{left + least:.1f}" y1="{middle:.1f}" '
            f'x2="{left + greatest:.1f}" y2="{middle:.1f}"/>'
        )
        body.append(
            f'<text x="{left + max(length, greatest) + 8:.1f}" y="{middle + 5:.1f}">{escape(bar.note)}</text></g>'
        )
    return _svg(title, below, TOP + 20 + BAR * len(some), body, [bar.colour for bar in some])
