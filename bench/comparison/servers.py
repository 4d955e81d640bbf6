"""Starts server processes, waits until they answer, and stops them: only what it started, by process id, also when
something goes wrong or somebody presses Ctrl-C.

Each gets a session of its own, so that a Ctrl-C at the terminal reaches this program alone, which then stops them in
order. Should this program itself be killed, the kernel sends them SIGTERM.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from . import machine

READY_SECONDS = 30.0  # from start to first answer
STOP_SECONDS = 20.0  # from SIGTERM to the end; then SIGKILL
SETTLE_SECONDS = 30.0  # a server that still works so long after the load has ended is measured as it is
SETTLE_SHARE = 0.05  # of one core: less is rest; an idle etcd takes about 0.01, and a tick of the clock is 0.04

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Failed(Exception):
    """A server did not start, or ended by itself."""


class Process:
    """A server process of ours and its log."""

    def __init__(self, name: str, argv: list[str], directory: Path) -> None:
        self.name, self.argv, self.directory = name, argv, directory
        self.log = directory / f"{name.replace('/', '-')}.log"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Runs it; says nothing of its readiness."""
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self.argv,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    @property
    def pid(self) -> int:
        """Its id, while it runs."""
        if self._child is None or self._child.poll() is not None:
            raise Failed(f"{self.name} is not running; the end of its log:\n{self.last_words()}")
        return self._child.pid

    def last_words(self) -> str:
        """The end of its log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(f"    {line[:300]}" for line in lines[-15:]) or "    (nothing)"

    def wait_ready(self, probe: Callable[[], bool]) -> None:
        """Waits until `probe` is true; errors of connecting mean not yet."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            assert self.pid
            try:
                if probe():
                    return
            except (OSError, ValueError):
                pass
            if time.monotonic() > deadline:
                raise Failed(
                    f"{self.name} did not answer within {READY_SECONDS:.0f} s; its log ends:\n{self.last_words()}"
                )
            time.sleep(0.02)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to it and its children when it takes too long. It is gone afterwards."""
        child, self._child = self._child, None
        if child is None or child.poll() is not None:
            return
        members = machine.family(child.pid)
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"{self.name} did not end within {STOP_SECONDS:.0f} s of SIGTERM, and is killed")
            for pid in members:  # its children are of its session, so that this id is theirs still
                try:
                    if os.getsid(pid) == child.pid:
                        os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            child.wait()


class Fleet:
    """Everything that runs, and the directory that all of it writes to; both are gone at the end."""

    def __init__(self, parent: Path) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="ostraca-compare-", dir=parent))
        self._running: list[Process] = []

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_all()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, name: str, argv: list[str], directory: Path, probe: Callable[[], bool]) -> Process:
        """Starts a process and waits until it answers."""
        process = Process(name, argv, directory)
        self._running.append(process)
        process.start()
        process.wait_ready(probe)
        return process

    def stop(self, processes: Iterable[Process]) -> None:
        """Stops them, last first."""
        for process in reversed(list(processes)):
            process.stop()
            if process in self._running:
                self._running.remove(process)

    def stop_all(self) -> None:
        """Stops whatever runs."""
        self.stop(list(self._running))

    def room(self, name: str) -> Path:
        """A fresh directory for a server."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.directory))


def free_port(hosts: Iterable[str], beyond: int = 20000) -> int:
    """A port that is free at all of these addresses, now."""
    for port in range(beyond + 1, 32768):
        if all(_is_free(host, port) for host in hosts):
            return port
    raise Failed(f"no port from {beyond} to 32767 is free at {', '.join(hosts)}")


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def cpu_of(processes: Iterable[Process]) -> float:
    """Processor seconds that they have used together."""
    return sum(machine.cpu_seconds(process.pid) for process in processes)


def settle(processes: list[Process]) -> None:
    """Waits until they rest: what a server does after its answers belongs to the requests before, not to the next."""
    deadline, before = time.monotonic() + SETTLE_SECONDS, cpu_of(processes)
    allowed = SETTLE_SHARE * max(1, len(processes) / 2)
    while time.monotonic() < deadline:
        time.sleep(0.25)
        now = cpu_of(processes)
        if (now - before) / 0.25 <= allowed:
            return
        before = now
