"""The servers that this store stands beside: how each is started, how it is asked, and what its answer is worth.

Every one of them is set as its users would for speed, as long as a write is on the disk before it is answered: no
access logs, no limit of requests per connection.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from . import wire
from .servers import Fleet, Process, free_port
from .wire import Address

VALUE_BYTES = 100
HELD_OPEN = "nginx-open"  # nginx that keeps its file open


def key_name(number: int) -> str:
    """The name of a key, 16 bytes: what redis-benchmark makes of `key-__rand_int__`, too."""
    return f"key-{number:012d}"


def new_value() -> bytes:
    """A value of 100 random bytes that go into a URL, into JSON and past any compression."""
    return base64.urlsafe_b64encode(os.urandom(VALUE_BYTES * 3 // 4))


@dataclass
class Target:
    """Something that takes load: where it listens, who works for it, and how it is asked."""

    name: str
    address: Address
    processes: list[Process]
    get: Callable[[str], bytes]
    put: Callable[[str, bytes], bytes] | None
    shows: Callable[[bytes, bytes], bool] = field(default=lambda body, value: body == value)
    prefill: Callable[[Iterator[tuple[str, bytes]]], int] | None = None

    def fill(self, pairs: Iterator[tuple[str, bytes]]) -> int:
        """Writes all of these keys, by the quickest way that the server has."""
        if self.prefill:
            return self.prefill(pairs)
        assert self.put, f"{self.name} takes no writes"
        put = self.put
        return wire.fill(self.address, (put(key, value) for key, value in pairs))

    def check(self, key: str) -> None:
        """Writes and reads a key as the load does, and looks at what comes back: a wrong request is no benchmark."""
        value = new_value()
        if self.put:
            status, body = wire.ask(self.address, self.put(key, value))
            if not 200 <= status < 300:
                raise wire.Broken(f"{self.name} refused a write: {status} {body[:300]!r}")
        status, body = wire.ask(self.address, self.get(key))
        if status != 200 or (self.put and not self.shows(body, value)):
            raise wire.Broken(f"{self.name} gave something else than was written: {status} {body[:300]!r}")


def start_nginx(fleet: Fleet, program: str, host: str, held_open: bool = False) -> Target:
    """nginx with one file of 100 bytes. Held open, it is the quickest that a web server can be asked for: it need not
    even look whether the file is still the same."""
    name = HELD_OPEN if held_open else "nginx"
    room = fleet.room(name)
    cache = "open_file_cache max=1000 inactive=600s; open_file_cache_valid 600s;" if held_open else ""
    address = Address(host, free_port([host]))
    (room / "www").mkdir()
    (room / "www" / "value").write_bytes(new_value())
    temporary = "".join(
        f"{name}_temp_path {room}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    (room / "nginx.conf").write_text(f"""
{user} daemon off; pid {room}/nginx.pid; error_log {room}/error.log crit;
worker_processes auto;
events {{ worker_connections 4096; }}
http {{
    {temporary}
    access_log off; sendfile on; default_type application/octet-stream;
    keepalive_requests 1000000000; keepalive_timeout 600s;
    {cache}
    server {{ listen {address}; root {room}/www; }}
}}
""")
    get = wire.request("GET", address, "/value")
    argv = [program, "-p", str(room), "-c", str(room / "nginx.conf"), "-e", str(room / "error.log")]
    process = fleet.start(name, argv, room, lambda: wire.ask(address, get)[0] == 200)
    return Target(name, address, [process], lambda _key: get, None)


@dataclass
class Redis:
    """A Redis whose every write is fsynced, and the way to fill it."""

    address: Address
    process: Process

    def fill(self, pairs: Iterator[tuple[str, bytes]]) -> int:
        """SETs in Redis' own protocol, pipelined."""
        commands = (
            b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key.encode(), len(value), value)
            for key, value in pairs
        )
        return wire.fill(self.address, commands, wire.RESP, connections=16)


def start_redis(fleet: Fleet, program: str, host: str) -> Redis:
    """Redis with `appendfsync always`: an append-only file, synced before the answers to what it holds."""
    room = fleet.room("redis")
    address = Address(host, free_port([host]))
    argv = [
        program,
        "--bind",
        host,
        "--port",
        str(address.port),
        "--dir",
        str(room),
        "--save",
        "",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--daemonize",
        "no",
    ]

    def answers() -> bool:
        return (
            wire.fill(address, iter([b"*3\r\n$3\r\nSET\r\n$5\r\nready\r\n$1\r\n1\r\n"]), wire.RESP, connections=1) == 1
        )

    return Redis(address, fleet.start("redis-server", argv, room, answers))


def start_webdis(fleet: Fleet, program: str, host: str, redis: Redis) -> Target:
    """webdis as Debian sets it, two threads, before that Redis. What it uses is counted for both."""
    room = fleet.room("webdis")
    address = Address(host, free_port([host], beyond=redis.address.port))
    (room / "webdis.json").write_text(
        json.dumps(
            {
                "redis_host": redis.address.host,
                "redis_port": redis.address.port,
                "redis_auth": None,
                "http_host": host,
                "http_port": address.port,
                "threads": 2,
                "daemonize": False,
                "websockets": False,
                "database": 0,
                "acl": [{"disabled": ["DEBUG"]}],
                "verbosity": 0,
                "logfile": str(room / "webdis.log"),
            }
        )
    )
    probe = wire.request("GET", address, "/GET/ready.txt")
    process = fleet.start(
        "webdis", [program, str(room / "webdis.json")], room, lambda: wire.ask(address, probe)[0] == 200
    )
    return Target(
        "webdis",
        address,
        [process, redis.process],
        get=lambda key: wire.request("GET", address, f"/GET/{key}.txt"),
        put=lambda key, value: wire.request("PUT", address, f"/SET/{key}", value),
        prefill=redis.fill,
    )


def start_etcd(fleet: Fleet, program: str, host: str) -> Target:
    """One etcd as it comes, asked over the HTTP gateway of its v3 API: JSON, keys and values in base64."""
    room = fleet.room("etcd")
    address = Address(host, free_port([host]))
    peers = Address(host, free_port([host], beyond=address.port))
    argv = [
        program,
        "--data-dir",
        str(room / "data"),
        "--listen-client-urls",
        f"http://{address}",
        "--advertise-client-urls",
        f"http://{address}",
        "--listen-peer-urls",
        f"http://{peers}",
        "--initial-advertise-peer-urls",
        f"http://{peers}",
        "--initial-cluster",
        f"default=http://{peers}",
    ]
    process = fleet.start("etcd", argv, room, lambda: wire.get_json(address, "/health")["health"] == "true")

    def fill(pairs: Iterator[tuple[str, bytes]]) -> int:
        # A transaction takes 128 operations at most; one for each key would take minutes.
        puts = [{"requestPut": _etcd_pair(key, value)} for key, value in pairs]
        batches = (_etcd(address, "txn", {"success": puts[at : at + 128]}) for at in range(0, len(puts), 128))
        wire.fill(address, batches, connections=16)
        return len(puts)

    return Target(
        "etcd",
        address,
        [process],
        get=lambda key: _etcd(address, "range", {"key": _base64(key.encode())}),
        put=lambda key, value: _etcd(address, "put", _etcd_pair(key, value)),
        shows=lambda body, value: json.loads(body)["kvs"][0]["value"] == _base64(value),
        prefill=fill,
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _etcd_pair(key: str, value: bytes) -> dict[str, str]:
    return {"key": _base64(key.encode()), "value": _base64(value)}


def _etcd(address: Address, call: str, message: dict) -> bytes:
    body = json.dumps(message, separators=(",", ":")).encode()
    return wire.request("POST", address, f"/v3/kv/{call}", body, "Content-Type: application/json\r\n")


def start_rivals(fleet: Fleet, programs: dict[str, str], net: str, needed: set[str]) -> dict[str, Target | Redis]:
    """Starts those that are needed and installed, by name: nginx, redis, webdis, etcd."""
    started: dict[str, Target | Redis] = {}
    if "nginx" in programs and "nginx" in needed:
        started["nginx"] = start_nginx(fleet, programs["nginx"], f"{net}.101")
    if "nginx" in programs and HELD_OPEN in needed:
        started[HELD_OPEN] = start_nginx(fleet, programs["nginx"], f"{net}.105", held_open=True)
    if "redis-server" in programs and needed & {"redis", "webdis"}:
        redis = start_redis(fleet, programs["redis-server"], f"{net}.102")
        started["redis"] = redis
        if "webdis" in programs and "webdis" in needed:
            started["webdis"] = start_webdis(fleet, programs["webdis"], f"{net}.103", redis)
    if "etcd" in programs and "etcd" in needed:
        started["etcd"] = start_etcd(fleet, programs["etcd"], f"{net}.104")
    return started


def fill_pairs(keys: int) -> Iterator[tuple[str, bytes]]:
    """All keys, each with a value of its own."""
    return ((key_name(number), new_value()) for number in range(keys))


DURABILITY = {
    "ostraca": "a write is answered after fsync, as data and as entry of the log that replicas pull; default settings",
    "redis": "`appendonly yes`, `appendfsync always`: a write is answered after fsync of the append-only file; "
    "no snapshots",
    "webdis": "before that Redis, so the same; two threads, as Debian sets it",
    "etcd": "as it comes: a write is answered after fsync of its write-ahead log; one member; asked over the HTTP gateway "
    "of its v3 API, whose JSON holds keys and values in base64",
    "nginx": "none needed: it gives one file of 100 bytes; no access log, a worker per core. *File held open* is the same "
    "with `open_file_cache`, so that it neither opens the file nor looks at it",
}
