"""One measurement: a load generator runs against a target for some seconds, and what the target's processes used is
read before and after.

A measurement is a dict, so that a run is a JSON file: `section`, `case`, `server`, `connections`, `round`, and

    rate            answers a second                    cpu_us       processor time of all its processes, per request
    p50_us, p99_us  latency as the generator saw it     written      bytes that its processes wrote, per request
    requests        answers                             device       bytes that the device wrote meanwhile, per request
    errors          by kind; any makes it invalid
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from . import machine, servers
from .rivals import VALUE_BYTES, Redis, Target
from .servers import Process

SCRIPT = Path(__file__).resolve().parent.parent / "load.lua"
TIMEOUT_SECONDS = 10  # for one answer; wrk counts what takes longer as an error
PATIENCE_SECONDS = 60  # beyond the load's own time: then something hangs

Measurement = dict
Generated = dict


class Refused(Exception):
    """A load generator did not work."""


def run(argv: list[str], seconds: float) -> str:
    """Runs a program to its end, and ends it if it takes much too long; what it printed."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + PATIENCE_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise Refused(f"{argv[0]} did not end by itself: {' '.join(argv)}") from error
    if done.returncode != 0:
        raise Refused(f"{' '.join(argv)} ended with {done.returncode}: {(done.stderr or done.stdout)[-600:]}")
    return done.stdout


def request_file(path: Path, requests: Iterable[bytes]) -> Path:
    """Writes requests as bench/load.lua reads them."""
    with path.open("wb") as file:
        for request in requests:
            file.write(b"%08d%b" % (len(request), request))
    return path


class Wrk:
    """wrk with one thread: the machine's cores are shared with the servers, and one thread fills what is left."""

    def __init__(self, program: str) -> None:
        self.program = program

    def __call__(
        self, target: Target, requests: Path, connections: int, seconds: float, depth: int = 1, keys: int | None = None
    ) -> Generated:
        """Answers, seconds, latencies and errors."""
        argv = [
            self.program,
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "--timeout",
            f"{TIMEOUT_SECONDS}s",
            "-s",
            str(SCRIPT),
            f"http://{target.address}",
            "--",
            "list" if keys is None else "keys",
            str(requests),
            str(depth),
        ]
        output = run(argv + ([] if keys is None else [str(keys)]), seconds)
        for line in output.splitlines():
            if line.startswith("RESULT "):
                return _usable(json.loads(line[7:]), depth)
        raise Refused(f"wrk said nothing of its result: {output[-600:]}")


def _usable(generated: Generated, depth: int) -> Generated:
    """wrk takes the time of whole batches when it pipelines, and mixes it up with single answers: no latencies then."""
    hidden = () if depth == 1 else ("p50_us", "p99_us", "max_us")
    return {name: value for name, value in generated.items() if name not in hidden}


class RedisBenchmark:
    """redis-benchmark in Redis' own protocol: what that Redis can do without HTTP before it."""

    def __init__(self, program: str, redis: Redis, keys: int) -> None:
        self.program, self.redis, self.keys = program, redis, keys
        self._rates: dict[int, float] = {}

    def __call__(self, connections: int, seconds: float) -> Generated:
        """It counts requests and not seconds: as many as the last rate lets expect, after a short try."""
        if connections not in self._rates:
            self._rates[connections] = self._run(connections, 500 + 50 * connections)["rate"]
        generated = self._run(connections, max(200, round(self._rates[connections] * seconds)))
        self._rates[connections] = generated["rate"]
        return generated

    def _run(self, connections: int, requests: int) -> Generated:
        host, port = self.redis.address
        argv = [
            self.program,
            "-h",
            host,
            "-p",
            str(port),
            "-c",
            str(connections),
            "-n",
            str(requests),
            "-r",
            str(self.keys),
            "--csv",
            "SET",
            "key-__rand_int__",
            "x" * VALUE_BYTES,
        ]
        began = time.monotonic()
        output = run(argv, 120)
        took = time.monotonic() - began
        rows = [row for row in csv.reader(output.splitlines()) if len(row) == 8 and row[0] != "test"]
        if len(rows) != 1:
            raise Refused(f"redis-benchmark said something else: {output[-600:]}")
        rate, _, _, p50, _, p99, longest = (float(text) for text in rows[0][1:])
        return {
            "requests": requests,
            "rate": rate,
            "seconds": took,
            "p50_us": p50 * 1000,
            "p99_us": p99 * 1000,
            "max_us": longest * 1000,
            "errors": {},
        }


def measured(processes: list[Process], directory: Path, generate: Callable[[], Generated]) -> Measurement:
    """Runs a load, and waits until the servers rest: what they still do afterwards is part of what the load costs."""
    device = machine.device_of(directory)
    os.sync()  # what was written before is not charged to this load
    stolen = machine.stolen_seconds()
    cpu, written = servers.cpu_of(processes), _written(processes)
    on_device = machine.device_written_bytes(device) if device else None
    generated = generate()
    servers.settle(processes)
    requests = max(1, generated["requests"])
    result = {
        "rate": generated.get("rate") or generated["requests"] / generated["seconds"],
        "cpu_us": (servers.cpu_of(processes) - cpu) / requests * 1e6,
        "written": (_written(processes) - written) / requests,
        "stolen": machine.stolen_seconds() - stolen,
        **{key: value for key, value in generated.items() if key not in ("rate", "errors")},
        "errors": {kind: count for kind, count in generated["errors"].items() if count},
    }
    if device and on_device is not None:
        os.sync()
        result["device"] = (machine.device_written_bytes(device) - on_device) / requests
    return result


def _written(processes: list[Process]) -> int:
    return sum(machine.written_bytes(process.pid) for process in processes)
