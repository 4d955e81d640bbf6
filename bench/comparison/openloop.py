"""benchclient as an open loop: requests at a fixed rate, whether or not earlier ones were answered. wrk cannot."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from .load import PATIENCE_SECONDS, Generated, Refused
from .wire import Address

WARM_SECONDS = 1
BUSY = 0.95  # of a core: a generator that is busier may be late itself


class BenchClient:
    """The store's own load generator."""

    def __init__(self, program: Path, directory: Path) -> None:
        self.program, self.directory = program, directory

    @property
    def knows_rates(self) -> bool:
        """Whether it can do what is asked of it here."""
        done = subprocess.run([self.program, "--help"], capture_output=True, text=True, timeout=10, check=False)
        return "--rate" in done.stdout

    def preload(self, address: Address, connections: int, keys: int) -> None:
        """Writes all the keys that its reads ask for: their names are its own."""
        self._run(
            address,
            ["--workload", "set", "--preload", "--duration", "1s", "--warmup", "0s"],
            connections,
            keys,
            120,
            None,
            1,
        )

    def __call__(
        self,
        address: Address,
        workload: str,
        rate: float,
        seconds: float,
        connections: int,
        keys: int,
        meanwhile: Callable[[], None] | None = None,
        every: float = 1.0,
    ) -> Generated:
        """Load at a rate; `meanwhile` is called while it is measured, `every` so many seconds."""
        flags = [
            "--workload",
            workload,
            "--rate",
            str(max(1, round(rate))),
            "--duration",
            f"{seconds:.0f}s",
            "--warmup",
            f"{WARM_SECONDS}s",
        ]
        text = self._run(address, flags, connections, keys, WARM_SECONDS + seconds, meanwhile, every)
        return _understood(json.loads(text), workload)

    def _run(
        self,
        address: Address,
        flags: list[str],
        connections: int,
        keys: int,
        seconds: float,
        meanwhile: Callable[[], None] | None,
        every: float,
    ) -> str:
        result, shown = self.directory / "benchclient.json", self.directory / "benchclient.out"
        result.unlink(missing_ok=True)
        argv = [
            str(self.program),
            "--addr",
            str(address),
            "--connections",
            str(connections),
            "--keys",
            str(keys),
            "--json",
            str(result),
            *flags,
        ]
        began = time.monotonic()
        with (
            shown.open("wb") as output,
            subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output) as child,
        ):
            try:
                while child.poll() is None:
                    passed = time.monotonic() - began
                    if passed > seconds + PATIENCE_SECONDS:
                        raise Refused(f"benchclient did not end by itself: {' '.join(argv)}")
                    if meanwhile and passed > WARM_SECONDS:
                        meanwhile()
                    time.sleep(every if meanwhile else 0.05)
            finally:
                if child.poll() is None:
                    child.kill()
        # 1: requests failed; the result says which.
        if child.returncode not in (0, 1) or not result.exists():
            raise Refused(f"{' '.join(argv)} ended with {child.returncode}: {shown.read_text(errors='replace')[-600:]}")
        return result.read_text()


def _understood(document: dict, workload: str) -> Generated:
    """What a measurement needs of benchclient's result."""
    done = document["rounds"][0]
    found = done["ops"][workload]
    response = found["response"]
    if response is None:
        raise Refused(f"benchclient had no answer at all: {done['failures'][:3]}")
    errors = {failure["code"]: failure["count"] for failure in done["failures"]}
    if done["unsent"]:
        errors["never sent"] = done["unsent"]
    generator = done["generator"]
    if generator["busy"] > BUSY:
        print(
            f"          the generator itself used {generator['busy']:.0%} of a core: the latencies are partly its own",
            flush=True,
        )
    return {
        # With those of the warm-up: the processor time is counted from its start.
        "requests": sum(op["ok"] for second in done["seconds"] for op in second["ops"].values()),
        "rate": found["per_second"],
        "seconds": done["measured_s"],
        "generator_busy": generator["busy"],
        **{name: response[name] for name in ("p50_us", "p99_us", "p999_us", "max_us")},
        "service_p99_us": found["service"]["p99_us"] if found["service"] else None,
        "errors": errors,
    }
