"""HTTP over plain sockets: one request and its answer, to look at a server; very many, pipelined, to fill a store."""

from __future__ import annotations

import http.client
import itertools
import json
import selectors
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple

ANSWER_SECONDS = 10.0  # for one answer; a store that is being filled may pause so long
FILL_DEPTH = 16  # requests under way on each connection while filling
FILL_PAUSE_SECONDS = 60.0  # without any answer: something is broken


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Broken(Exception):
    """A server answered something else than it had to."""


def ask(address: Address, request: bytes) -> tuple[int, bytes]:
    """Sends the very bytes of a request; the answer's status and body."""
    with socket.create_connection(address, ANSWER_SECONDS) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        try:
            answer.begin()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise OSError(f"no HTTP answer: {error!r}") from error


def request(method: str, address: Address, path: str, body: bytes | None = None, headers: str = "") -> bytes:
    """A request's bytes, with no more headers than it needs: all servers get the same."""
    length = "" if body is None else f"Content-Length: {len(body)}\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: {address}\r\n{headers}{length}\r\n".encode() + (body or b"")


def get_json(address: Address, path: str) -> dict:
    """The JSON at a path; a ValueError when there is none."""
    status, body = ask(address, request("GET", address, path))
    if status != 200:
        raise ValueError(f"{address}{path} answered {status}: {body[:200]!r}")
    return json.loads(body)


class Dialect(NamedTuple):
    """How answers are counted in a stream: all of them, and the good ones among them."""

    answer: bytes
    good: bytes


HTTP = Dialect(b"HTTP/1.1 ", b"HTTP/1.1 2")
RESP = Dialect(b"\r\n", b"+OK\r\n")


class _Line:
    """One connection of a filling."""

    def __init__(self, address: Address, dialect: Dialect) -> None:
        self.socket = socket.create_connection(address, ANSWER_SECONDS)
        self.socket.setblocking(False)
        self.dialect, self.waiting, self.unsent, self.tail = dialect, 0, b"", b""

    def give(self, requests: Iterator[bytes]) -> bool:
        """Takes the next requests; false when there are none."""
        batch = list(itertools.islice(requests, FILL_DEPTH))
        self.waiting, self.unsent, self.tail = len(batch), b"".join(batch), b""
        self.send()
        return bool(batch)

    def send(self) -> None:
        """Sends what the socket takes."""
        try:
            while self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            pass

    def receive(self) -> int:
        """Counts the answers that have come."""
        data = self.socket.recv(1 << 16)
        if not data:
            raise Broken("the connection was closed while a store was being filled")
        seen = self.tail + data
        answers, good = seen.count(self.dialect.answer), seen.count(self.dialect.good)
        # The tail may hold the beginning of a mark, never a whole one: one byte less than the longer mark, cut behind
        # the last whole mark.
        last = seen.rfind(self.dialect.good)
        self.tail = seen[
            max(len(seen) - len(self.dialect.good) + 1, last + len(self.dialect.good) if last >= 0 else 0) :
        ]
        # An answer whose status is cut off is counted when the rest has come.
        if answers > good and self.dialect.answer not in self.tail:
            raise Broken(f"a store that was being filled refused: {seen[-400:]!r}")
        self.waiting -= good
        return good


def fill(address: Address, requests: Iterator[bytes], dialect: Dialect = HTTP, connections: int = 256) -> int:
    """Sends all requests, pipelined over many connections; the number of answers. Any refusal is an error."""
    requests, done, last = iter(requests), 0, time.monotonic()
    with selectors.DefaultSelector() as ready:
        lines = [_Line(address, dialect) for _ in range(connections)]
        try:
            for line in lines:
                if line.give(requests):
                    ready.register(line.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, line)
            while ready.get_map():
                for key, events in ready.select(1.0):
                    done, last = done + _serve(key.data, events, requests, ready), time.monotonic()
                if time.monotonic() - last > FILL_PAUSE_SECONDS:
                    raise Broken(f"no answer for {FILL_PAUSE_SECONDS:.0f} s after {done} of a filling")
        finally:
            for line in lines:
                line.socket.close()
    return done


def _serve(line: _Line, events: int, requests: Iterator[bytes], ready: selectors.BaseSelector) -> int:
    if events & selectors.EVENT_WRITE:
        line.send()
    good = line.receive() if events & selectors.EVENT_READ else 0
    if line.waiting == 0 and not line.give(requests):
        ready.unregister(line.socket)
    else:
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if line.unsent else 0)
        ready.modify(line.socket, wanted, line)
    return good
