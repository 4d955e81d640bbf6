"""The command: what was asked for, the sections one after the other, the files in the end."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import machine, page, quick, rounds, sections, tools
from .load import Wrk
from .servers import Fleet

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "bench" / "results"
DISKS_THAT_FORGET = ("tmpfs", "ramfs")
SIZES = {"1M": 1_000_000, "10M": 10_000_000}


class Unable(Exception):
    """Why nothing can be measured."""


def arguments(text: str) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="bench/compare", description=text, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--kv", type=Path, metavar="FILE", help="the store's binary; else the release is built")
    add("--benchclient", type=Path, metavar="FILE", help="the load generator's; else the release is built")
    add("--rounds", type=int, metavar="N", help="how often everything is measured (default 5; with --quick 6)")
    add("--seconds", type=int, metavar="N", help="of each measurement (default 2; with --quick 1)")
    add(
        "--only",
        action="append",
        metavar="WHAT",
        help=f"a section ({', '.join(sections.NAMES)}) or SECTION/CASE, as --list shows\n"
        "them; may be given again. The page goes to bench/results then",
    )
    add("--list", action="store_true", help="shows what would be measured, and ends")
    add("--large", metavar="1M,10M", help="stores of one million keys, of ten, or both, too")
    add("--profile", action="store_true", help="where the time goes, by perf, for the page")
    add("--quick", action="store_true", help="a few cases, and what became slower since the last time")
    add("--against", type=Path, metavar="FILE", help="with --quick: another kv, measured in the same rounds")
    add("--install", action="store_true", help="install what is missing from Debian's packages, with sudo if need be")
    add("--dir", type=Path, metavar="DIR", help="where the servers may write: on a disk (default: /var/tmp)")
    add("--net", default="127.0.12", metavar="A.B.C", help="the loopback addresses that are used (default 127.0.12)")
    add("--out", type=Path, metavar="FILE", help="the page (default docs/performance.md)")
    add(
        "--render",
        nargs="+",
        type=Path,
        metavar="RUN.json",
        help="writes the page of earlier runs, and measures nothing",
    )
    return parser


def main(text: str) -> int:
    """What bench/compare does; its exit code."""
    parser = arguments(text)
    args = parser.parse_args()
    usual = (6, 1) if args.quick else (5, 2)
    args.rounds, args.seconds = args.rounds or usual[0], args.seconds or usual[1]
    if args.rounds < 1 or args.seconds < 1:
        parser.error("--rounds and --seconds are at least 1")
    if args.against and not args.quick:
        parser.error("--against belongs to --quick")
    args.sizes = [size.strip() for size in args.large.split(",")] if args.large else []
    if unknown := [size for size in args.sizes if size not in SIZES]:
        parser.error(f"--large takes 1M, 10M or 1M,10M, not {', '.join(unknown)}")
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # SIGINT, too: a shell may have had it ignored
        signal.signal(getattr(signal, name), _interrupt)
    try:
        if args.list:
            return show(args)
        if args.render:
            return render(args)
        return compare(args)
    except (Unable, tools.Missing, *rounds.TROUBLE) as error:
        print(f"bench/compare: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench/compare: interrupted; what it started is stopped", file=sys.stderr)
        return 130


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def wanted(args: argparse.Namespace) -> Callable[[str, str], bool]:
    """Whether a case of a section was asked for."""
    if not args.only:
        return lambda _section, _case: True
    known = {case.section + "/" + case.name for case in rounds.ALL} | set(sections.NAMES)
    if unknown := [name for name in args.only if name not in known]:
        raise Unable(f"--only knows no {', '.join(unknown)}; --list shows what there is")
    return lambda section, case: section in args.only or f"{section}/{case}" in args.only


def show(args: argparse.Namespace) -> int:
    """--list."""
    for case in rounds.BRIEF if args.quick else rounds.ALL:
        if wanted(args)(case.section, case.name):
            connections = ", ".join(str(number) for number in case.connections)
            print(f"{case.section}/{case.name:10} {case.title}: {', '.join(case.servers)}; {connections} connections")
    if not args.quick:
        for name, title in sections.OTHERS.items():
            print(f"{name:14} {title}")
    return 0


def compare(args: argparse.Namespace) -> int:
    """Measures, and writes what came out."""
    if not sys.platform.startswith("linux"):
        raise Unable("this needs Linux: what a server uses is read from /proc")
    is_wanted, parent = wanted(args), directory_for(args.dir)
    found = tools.provide(args.install)
    kv, benchclient = binaries(args)
    began = time.time()
    result = {
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime(began)),
        "command": "bench/compare " + " ".join(sys.argv[1:]),
        "rounds": args.rounds,
        "seconds": args.seconds,
        "machine": machine.describe(parent),
        "versions": tools.versions(found) | store_version(kv),
        "measurements": [],
        "extras": {},
        "failed": {},
    }
    print(
        f"{result['machine']['cores']} cores, {result['machine']['processor']}, load {result['machine']['load']}, "
        f"{result['machine']['file_system']}, an fdatasync takes {result['machine']['fdatasync_us']} µs",
        flush=True,
    )
    cases = rounds.BRIEF if args.quick else rounds.ALL
    chosen = [case for case in cases if is_wanted(case.section, case.name)]
    minutes = rounds.expected_seconds(chosen, args.rounds, args.seconds) / 60
    if not args.quick:
        minutes += sections.expected_minutes(is_wanted, args.rounds, args.seconds, args.profile, args.sizes)
    print(f"{args.rounds} rounds of {args.seconds} s: about {minutes + 0.5:.0f} minutes on a quiet machine", flush=True)
    with Fleet(parent) as fleet:
        try:
            bench = sections.Bench(
                fleet=fleet,
                programs=found,
                kv=kv,
                benchclient=benchclient,
                net=args.net,
                against=args.against,
                loop=rounds.Rounds(fleet.directory, Wrk(found["wrk"]), args.rounds, args.seconds, is_wanted),
                cases=cases,
                extras=result["extras"],
                profile=args.profile,
                sizes=[(size, SIZES[size]) for size in args.sizes],
            )
            result["failed"] = bench.run_all(others=not args.quick)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C is not to leave servers behind
            fleet.stop_all()
            signal.signal(signal.SIGINT, _interrupt)
    result["measurements"] = bench.loop.measurements
    result["minutes"] = round((time.time() - began) / 60, 1)
    return finish(args, result)


def finish(args: argparse.Namespace, result: dict) -> int:
    """Writes the run down, and the page or what became slower."""
    RESULTS.mkdir(exist_ok=True)
    kind = "quick" if args.quick else "run"
    path = RESULTS / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(dump(result))
    print(f"written: {path}")
    slower = False
    if args.quick:
        slower = quick.report(result, quick.previous(RESULTS, path, result), bool(args.against))
    else:
        whole = not args.only and not result["failed"]
        out = args.out or (PAGE if whole else RESULTS / "performance.md")
        page.write([result], out)
        print(f"written: {out}")
        if whole and not args.out:
            # The numbers behind the page go with it.
            (out.with_suffix("") / "run.json").write_text(dump(result))
    for name, why in result["failed"].items():
        print(f"{name} did not work: {why}", file=sys.stderr)
    return 1 if slower or result["failed"] else 0


def dump(result: dict) -> str:
    """JSON with a measurement to a line, so that a reader and git see what is different."""

    def rounded(value: object) -> object:
        if isinstance(value, float):
            return float(f"{value:.6g}")
        if isinstance(value, dict):
            return {key: rounded(inner) for key, inner in value.items()}
        return [rounded(inner) for inner in value] if isinstance(value, list) else value

    lines = ",\n".join(json.dumps(rounded(one)) for one in result["measurements"])
    rest = json.dumps(rounded({key: value for key, value in result.items() if key != "measurements"}), indent=1)
    return rest[:-2] + ',\n "measurements": [\n' + lines + "\n]}\n"


def render(args: argparse.Namespace) -> int:
    """--render."""
    out = args.out or PAGE
    page.write([json.loads(path.read_text()) for path in args.render], out)
    print(f"written: {out}")
    return 0


def directory_for(asked: Path | None) -> Path:
    """Where servers may write: a disk, for memory syncs nothing."""
    directory = (asked or Path("/var/tmp")).resolve()
    if not directory.is_dir():
        raise Unable(f"{directory} is no directory: name one with --dir")
    kind = machine.file_system_of(directory)
    if kind in DISKS_THAT_FORGET:
        raise Unable(
            f"{directory} is memory ({kind}), where an fsync costs nothing: name a directory on a disk with --dir"
        )
    return directory


def binaries(args: argparse.Namespace) -> tuple[Path, Path | None]:
    """The store's binary and the load generator's, built if they were not named."""
    for given in (args.kv, args.benchclient, args.against):
        if given and not os.access(given, os.X_OK):
            raise Unable(f"{given} is no program")
    if not args.kv:
        command = ["cargo", "build", "--release", "--workspace", "--bins"]
        print("building: $", " ".join(command), flush=True)
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            raise Unable("the build failed")
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "release"
    kv, benchclient = args.kv or target / "kv", args.benchclient or target / "benchclient"
    return kv.resolve(), benchclient.resolve() if benchclient.exists() else None


def store_version(kv: Path) -> dict[str, str]:
    """What the store is: its version and the commit that it stands on, as far as git knows."""
    said = subprocess.run(
        [str(kv), "--version"], capture_output=True, text=True, timeout=10, check=False
    ).stdout.split()
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except OSError:
        commit = ""
    version = said[-1] if said else "unknown"
    return {"ostraca": f"{version} ({commit})" if commit else version}
