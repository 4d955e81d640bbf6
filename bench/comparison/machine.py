"""What computer this is, and what processes have used of it. Linux only: all of it is read from /proc and /sys."""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
SECTOR_BYTES = 512  # the unit of /proc/diskstats, whatever the device's own sectors are


class Gone(Exception):
    """The process has ended."""


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError as error:
        raise Gone(f"process {pid}: {error}") from error


def family(pid: int) -> list[int]:
    """The process and its descendants that are alive."""
    found = [pid]
    for parent in found:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                found.extend(int(child) for child in _read(parent, f"task/{task}/children").split())
        except (OSError, Gone):
            continue
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time of the process, of its descendants that are alive, and of those that it has waited for."""
    total = 0
    for member in family(pid):
        # After the name, which may hold anything: state is field 3, utime to cstime are 14 to 17.
        fields = _read(member, "stat").rpartition(")")[2].split()
        total += sum(int(ticks) for ticks in fields[11:15])
    return total / TICKS_PER_SECOND


def written_bytes(pid: int) -> int:
    """Bytes that the process and its living descendants caused to be sent to a disk."""
    total = 0
    for member in family(pid):
        for line in _read(member, "io").splitlines():
            if line.startswith("write_bytes:"):
                total += int(line.split()[1])
    return total


def resident_bytes(pid: int) -> dict[str, int]:
    """Resident memory: `all`, and of it `anonymous` (the rest are pages of files); `peak` is the most it ever was."""
    names = {"VmRSS": "all", "RssAnon": "anonymous", "VmHWM": "peak"}
    lines = (line.split() for line in _read(pid, "status").splitlines())
    return {names[line[0][:-1]]: int(line[1]) * 1024 for line in lines if line and line[0][:-1] in names}


def device_of(directory: Path) -> str | None:
    """The name of the block device below a directory, as /proc/diskstats has it; none where there is no single one."""
    number = os.stat(directory).st_dev
    for line in Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if (int(fields[0]), int(fields[1])) == (os.major(number), os.minor(number)):
            return fields[2]
    return None


def device_written_bytes(device: str) -> int:
    """Bytes that were written to the device since the machine started, by everybody."""
    for line in Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if fields[2] == device:
            return int(fields[9]) * SECTOR_BYTES
    raise Gone(f"no device {device} any more")


def file_system_of(directory: Path) -> str:
    """The type of the file system that a directory is on, such as ext4."""
    where, best = str(directory.resolve()), ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        mount, kind = line.split()[1:3]
        inside = where == mount or where.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best[0]):
            best = (mount, kind)
    return best[1]


def fdatasync_us(directory: Path, times: int = 200) -> float:
    """Median of appending 4 KiB to a file and fdatasync, in microseconds: what a durable write costs at least."""
    took = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(times):
            began = time.perf_counter()
            os.write(file.fileno(), b"x" * 4096)
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1e6)
    return statistics.median(took)


def stolen_seconds() -> float:
    """Processor time that a virtual machine's host gave to others, since the machine started."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    return int(fields[8]) / TICKS_PER_SECOND


def describe(directory: Path) -> dict[str, object]:
    """What a reader has to know of this machine."""
    models = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    names = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": models[0] if models else platform.machine(),
        "virtual": any("hypervisor" in line for line in Path("/proc/cpuinfo").read_text().splitlines()),
        "memory_bytes": memory_kib * 1024,
        "kernel": platform.release(),
        "system": names.get("PRETTY_NAME", "unknown").strip('"'),
        "file_system": file_system_of(directory),
        "device": device_of(directory),
        "fdatasync_us": round(fdatasync_us(directory)),
        "load": round(os.getloadavg()[0], 2),
    }
