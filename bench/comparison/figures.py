"""Medians, spreads, and ratios within a round: what a list of measurements says.

Rounds are interleaved: each measures every server once, one after the other. On a machine that others use, too, all of
a round is slow or none of it is; so servers are compared within a round, and the ratios' median is what counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import NamedTuple

from .load import Measurement


class Spread(NamedTuple):
    """A median, with the least and the greatest."""

    median: float
    least: float
    most: float
    rounds: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """None of nothing."""
        some = sorted(values)
        return cls(statistics.median(some), some[0], some[-1], len(some)) if some else None

    def times(self, factor: float) -> Spread:
        """The same in another unit."""
        return Spread(self.median * factor, self.least * factor, self.most * factor, self.rounds)


class Point(NamedTuple):
    """What was measured: a case, on a server, with so many connections."""

    case: str
    server: str
    connections: int


class Figures:
    """The measurements of a run, by point."""

    def __init__(self, measurements: Iterable[Measurement]) -> None:
        self.all = list(measurements)
        self._by_point: dict[Point, list[Measurement]] = {}
        for one in self.all:
            point = Point(one["case"], one["server"], one["connections"])
            self._by_point.setdefault(point, []).append(one)

    def points(self, case: str) -> list[Point]:
        """All points of a case, in the order of their measuring."""
        return [point for point in self._by_point if point.case == case]

    def at(self, point: Point) -> list[Measurement]:
        """Its measurements, without the invalid ones."""
        return [one for one in self._by_point.get(point, []) if not one["errors"]]

    def invalid(self) -> list[Measurement]:
        """Those with errors: they count for nothing."""
        return [one for one in self.all if one["errors"]]

    def spread(self, point: Point, quantity: str) -> Spread | None:
        """Over the rounds."""
        return Spread.of(one[quantity] for one in self.at(point) if one.get(quantity) is not None)

    def median(self, point: Point, quantity: str) -> float | None:
        """Over the rounds."""
        spread = self.spread(point, quantity)
        return spread.median if spread else None

    def ratio(self, above: Point, below: Point, quantity: str = "rate") -> Spread | None:
        """Of two points in the same rounds."""
        others = {one["round"]: one[quantity] for one in self.at(below)}
        return Spread.of(
            one[quantity] / others[one["round"]] for one in self.at(above) if others.get(one["round"], 0) > 0
        )

    def peak(self, case: str, server: str) -> Point | None:
        """Where the median rate is the highest."""
        points = [point for point in self.points(case) if point.server == server and self.at(point)]
        return max(points, key=lambda point: self.median(point, "rate") or 0, default=None)
