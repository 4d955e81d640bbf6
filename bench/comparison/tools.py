"""Finds the programs that the comparison needs, or installs them from Debian's packages and says so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

# Program: the Debian package that has it.
PACKAGES = {
    "wrk": "wrk",
    "nginx": "nginx-light",
    "redis-server": "redis-server",
    "redis-benchmark": "redis-tools",
    "webdis": "webdis",
    "etcd": "etcd-server",
}
# Without it nothing can be measured; without another one its column stays empty.
NEEDED = "wrk"
# How a program is asked for its version, where it can be asked.
VERSION_FLAGS = {"nginx": "-v", "redis-server": "--version", "etcd": "--version", "wrk": "--version"}
PATHS = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"


class Missing(Exception):
    """A program is not there, with what to do."""


def find(program: str) -> str | None:
    """The program's path; servers of Debian are often in /usr/sbin, which is not in everybody's PATH."""
    return shutil.which(program, path=PATHS)


def provide(install: bool) -> dict[str, str]:
    """Paths of the programs that there are. Installs missing ones if asked to, or if we are root anyway."""
    missing = sorted({package for program, package in PACKAGES.items() if not find(program)})
    if missing and (install or os.geteuid() == 0):
        _install(missing)
    found = {program: path for program in PACKAGES if (path := find(program))}
    for program in sorted(set(PACKAGES) - set(found)):
        hint = f"apt-get install {PACKAGES[program]}, or bench/compare --install"
        if program == NEEDED:
            raise Missing(f"{program} is missing and nothing can be measured without it: {hint}")
        print(f"{program} is missing, and what needs it is left out: {hint}")
    return found


def _install(packages: list[str]) -> None:
    """Runs apt-get, shown first. What fails is said, and then missing."""
    apt = shutil.which("apt-get")
    if apt is None:
        print(f"missing: {', '.join(packages)}; there is no apt-get here, so install them yourself")
        return
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    for command in ([apt, "update"], [apt, "install", "--yes", "--no-install-recommends", *packages]):
        shown = sudo + command
        print("installing: $", " ".join(shown), flush=True)
        # Asks no questions, and keeps systemd from starting what was installed where it honours this.
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "SYSTEMD_OFFLINE": "1"}
        try:
            done = subprocess.run(
                shown, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False
            )
        except OSError as error:
            print(f"that did not work: {error}")
            return
        if done.returncode != 0:
            print(f"that did not work: exit code {done.returncode}")
    if Path("/run/systemd/system").exists():
        print(
            "Debian may have started what was installed as services, on their usual ports. They are left alone; they "
            "share the machine: systemctl stop redis-server webdis etcd nginx"
        )


def versions(found: dict[str, str]) -> dict[str, str]:
    """What each program says that it is, else what its package is."""
    said = {}
    for program, path in found.items():
        text = ""
        if flag := VERSION_FLAGS.get(program):
            done = subprocess.run([path, flag], capture_output=True, text=True, timeout=10, check=False)
            text = done.stdout + done.stderr
        number = re.search(r"\d+\.\d+\.\d+", text)
        said[program] = number.group(0) if number else _package_version(PACKAGES[program])
    return said


def _package_version(package: str) -> str:
    try:
        query = ["dpkg-query", "--show", "--showformat=${Version}", package]
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return "unknown"
    number = re.search(r"\d+(\.\d+)+", done.stdout)
    return number.group(0) if number else "unknown"
