"""Where a node's time goes, by `perf`: a profile and not a guess."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .servers import Process

SAMPLES_PER_SECOND = 999
SECONDS = 5
LINES_MAX = 22
NAME_MAX = 88  # no line is wider than a page
KERNEL = ("[kernel", "[guest", "[unknown")


def taken(process: Process, directory: Path, load: Callable[[float], object]) -> str | None:
    """A profile of a process under a load: its time by thread, by library and by function. None without perf."""
    perf = shutil.which("perf")
    if perf is None:
        print("perf is missing: no profile (apt-get install linux-perf)")
        return None
    data = directory / "perf.data"
    record = [
        perf,
        "record",
        "--quiet",
        "-F",
        str(SAMPLES_PER_SECOND),
        "-p",
        str(process.pid),
        "-o",
        str(data),
        "--",
        "sleep",
        str(SECONDS),
    ]
    loading = threading.Thread(target=load, args=(SECONDS + 2,))
    loading.start()
    try:
        time.sleep(1.0)  # until the generator is under way
        done = subprocess.run(record, capture_output=True, text=True, timeout=SECONDS + 30, check=False)
    finally:
        loading.join()
    if done.returncode != 0:
        print(f"perf did not work, so there is no profile: {done.stderr.strip()[-300:]}")
        return None
    threads = [(share, name) for share, name, _ in _report(perf, data, "comm")]
    functions = _report(perf, data, "dso,symbol")
    data.unlink()
    return "\n\n".join(
        [
            _listed("by thread", threads),
            _listed("by library", _by_library(functions)),
            _listed("by function", [(share, f"{library:10} {symbol}") for share, library, symbol in functions]),
        ]
    )


def _report(perf: str, data: Path, order: str) -> list[tuple[float, str, str]]:
    """Percent, the object (or thread), and the function."""
    argv = [perf, "report", "--stdio", "--no-children", "-i", str(data), "--sort", order, "-t", "\t"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    found = []
    for line in done.stdout.splitlines():
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) >= 2 and re.fullmatch(r"\d+\.\d+%", fields[0]):
            symbol = re.sub(r"^\[[^\]]\] |::h[0-9a-f]{16}\b", "", fields[2] if len(fields) > 2 else "")
            found.append((float(fields[0][:-1]), _object(fields[1]), symbol))
    return found


def _object(name: str) -> str:
    if name.startswith(KERNEL):
        return "kernel"
    return name.removesuffix(".so.6").strip("[]")


def _by_library(functions: list[tuple[float, str, str]]) -> list[tuple[float, str]]:
    """The program's own functions by the crate that they are of; kernel and libraries as they are."""
    shares: dict[str, float] = {}
    for share, name, symbol in functions:
        place = name if name in ("kernel", "libc", "vdso") else _crate(symbol)
        shares[place] = shares.get(place, 0.0) + share
    return sorted(((share, place) for place, share in shares.items()), reverse=True)


def _crate(symbol: str) -> str:
    """`<hyper::proto::h1::Conn<I> as tokio::io::AsyncRead>::poll_read` is hyper's."""
    first = re.search(r"\b([a-z_][a-z0-9_]*)::", symbol.replace("dyn ", ""))
    crate = first.group(1) if first else "other"
    return "std" if crate in ("core", "alloc", "std") else crate


def _listed(title: str, lines: list[tuple[float, str]]) -> str:
    shown = [f"{share:6.1f} %  {name[:NAME_MAX].rstrip()}" for share, name in lines[:LINES_MAX] if share >= 0.5]
    return "\n".join([title, *shown])
