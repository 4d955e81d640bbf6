"""Tests of what bench/compare computes, without any server: python3 -m unittest discover -s bench"""

from __future__ import annotations

import socket
import threading
import unittest
import xml.etree.ElementTree as xml

from comparison import chart, page, quick, store, targets, wire
from comparison.figures import Figures, Point, Spread


def measurement(server: str, turn: int, rate: float, errors: dict | None = None) -> dict:
    """One of a case "get" with 32 connections."""
    return {
        "case": "get", "server": server, "connections": 32, "round": turn, "rate": rate, "cpu_us": 10.0,
        "errors": errors or {},
    }  # fmt: skip


class Ratios(unittest.TestCase):
    def test_ratio_is_taken_within_rounds(self) -> None:
        # The second round was slow for both: medians of rates would say something else.
        figures = Figures([measurement("a", 1, 200), measurement("b", 1, 100), measurement("a", 2, 20), measurement("b", 2, 10)])
        self.assertEqual(figures.ratio(Point("get", "a", 32), Point("get", "b", 32)), Spread(2.0, 2.0, 2.0, 2))

    def test_measurement_with_errors_counts_for_nothing(self) -> None:
        figures = Figures([measurement("a", 1, 200, {"timeout": 3}), measurement("a", 2, 50)])
        self.assertEqual(figures.median(Point("get", "a", 32), "rate"), 50)
        self.assertEqual(len(figures.invalid()), 1)


class Verdicts(unittest.TestCase):
    def test_goal_says_by_how_much_it_is_missed(self) -> None:
        more = targets.Goal("", "", "×", 2.0, 3.0, lambda _: None)
        self.assertEqual(more.verdict(1.5), "missed by 25 %")
        self.assertEqual([more.verdict(2.0), more.verdict(3.5)], ["**met**", "**beyond**"])
        less = targets.Goal("", "", "µs", 10.0, 5.0, lambda _: None, less_is_better=True)
        self.assertEqual([less.verdict(12.0), less.verdict(10.0)], ["missed by 20 %", "**met**"])
        self.assertEqual([less.verdict(40.0), less.verdict(None)], ["missed: 4.0 times as much", "not measured"])


class Slower(unittest.TestCase):
    def test_change_counts_only_when_every_round_is_worse(self) -> None:
        old = Spread(100, 95, 105, 5)
        self.assertEqual(quick.change(Spread(80, 70, 85, 5), old), -1)
        self.assertEqual(quick.change(Spread(80, 70, 96, 5), old), 0)
        self.assertEqual(quick.change(Spread(150, 120, 160, 5), old), 1)


class Placement(unittest.TestCase):
    def test_shard_of_key_is_fnv1a_modulo_shards(self) -> None:
        # FNV-1a of "foobar", from the authors' test vectors, is 0x85944171f73967e8.
        self.assertEqual(store.shard_of("foobar", 1 << 64), 0x85944171F73967E8)


class Filling(unittest.TestCase):
    def fill_from(self, answers: list[bytes]) -> int:
        """Fills a "server" that gives these pieces, whatever it is sent."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            def serve() -> None:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1 << 16)
                    for piece in answers:
                        connection.sendall(piece)
                        threading.Event().wait(0.02)  # so that each piece is read by itself
                    connection.recv(1)

            thread = threading.Thread(target=serve)
            thread.start()
            try:
                return wire.fill(wire.Address(*listener.getsockname()), iter([b"x", b"y"]), connections=1)
            finally:
                thread.join()

    def test_answers_cut_anywhere_are_counted_once(self) -> None:
        whole = b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 201 Created\r\n\r\n"
        for cut in range(1, len(whole)):
            with self.subTest(cut=cut):
                self.assertEqual(self.fill_from([whole[:cut], whole[cut:]]), 2)

    def test_refusal_is_an_error(self) -> None:
        with self.assertRaises(wire.Broken):
            self.fill_from([b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 503 Service Unavailable\r\n\r\n"])


class Page(unittest.TestCase):
    def test_charts_are_well_formed_and_name_every_curve(self) -> None:
        lines = [chart.Curve("a < b", "ostraca", [Spread(1, 1, 2, 3), None]), chart.Curve("c", "x", [Spread(5, 4, 6, 3)])]
        texts = [node.text for node in xml.fromstring(chart.curves("t", "b", ["1", "32"], lines)).iter()]
        self.assertIn("a < b", texts)
        self.assertIn("c", texts)

    def test_paragraphs_are_wrapped_and_tables_are_not(self) -> None:
        row = "| " + "x" * 200 + " |"
        lines = page.wrapped("word " * 60 + "\n\n" + row + "\n").splitlines()
        self.assertIn(row, lines)
        self.assertLessEqual(max(len(line) for line in lines if line != row), page.PAGE_WIDTH)


if __name__ == "__main__":
    unittest.main()
