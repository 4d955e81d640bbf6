"""Nodes of Ostraca: one alone, a leader with a replica, the shipped cluster; and what they say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import wire
from .rivals import Target
from .servers import Failed, Fleet, Process, free_port
from .wire import Address

SHARDS = ("Hyderabad", "Bangalore", "Mumbai", "Delhi")

FNV_OFFSET, FNV_PRIME, WORD = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1


def shard_of(key: str, shards: int) -> int:
    """The index of the shard that owns a key: FNV-1a, 64 bits, modulo the number of shards."""
    value = FNV_OFFSET
    for byte in key.encode():
        value = ((value ^ byte) * FNV_PRIME) & WORD
    return value % shards


def _put(address: Address, key: str, value: bytes) -> bytes:
    return wire.request("PUT", address, f"/v1/kv/{key}", value)


@dataclass
class Node:
    """A node: its shard's index, its place among the shard's copies (0 leads), its process."""

    shard: int
    copy: int
    address: Address
    argv: list[str]
    room: Path
    process: Process | None = None

    def status(self) -> dict:
        """What it says of its copy."""
        return wire.get_json(self.address, "/admin/v1/status")["copies"][0]

    def is_ready(self) -> bool:
        """Whether it can do its part: a leader takes writes, a replica has a copy."""
        return wire.ask(self.address, wire.request("GET", self.address, "/readyz"))[0] == 200


class Cluster:
    """Nodes of one sharding.toml, all of them on this machine."""

    def __init__(
        self, fleet: Fleet, program: str, name: str, hosts: Callable[[int, int], str], shards: int, replicas: int
    ) -> None:
        self.fleet, self.name, self.shards = fleet, name, shards
        places = [(shard, copy) for shard in range(shards) for copy in range(1 + replicas)]
        port = free_port([hosts(*place) for place in places])
        room = fleet.room(name)
        config = room / "sharding.toml"
        self.nodes = []
        for shard, copy in places:
            address = Address(hosts(shard, copy), port)
            argv = [
                program,
                "serve",
                "--config-file",
                str(config),
                "--http-addr",
                str(address),
                "--db-location",
                str(room / f"{SHARDS[shard]}-{copy}.redb"),
            ]
            self.nodes.append(Node(shard, copy, address, argv, room))
        config.write_text("".join(self._table(shard) for shard in range(shards)))
        for node in self.nodes:
            self._launch(node)
        for node in self.nodes:
            self.wait_ready(node)
        self._check_placement()

    def _table(self, shard: int) -> str:
        first, *others = (f'"{node.address}"' for node in self.nodes if node.shard == shard)
        replicas = ", ".join(others)
        return f'[[shards]]\nname = "{SHARDS[shard]}"\nidx = {shard}\naddress = {first}\nreplicas = [{replicas}]\n\n'

    def _launch(self, node: Node) -> None:
        name = f"{self.name}-{SHARDS[node.shard]}-{node.copy}"
        node.process = self.fleet.start(name, node.argv, node.room, lambda: True)

    def wait_ready(self, node: Node) -> None:
        """Until it can do its part."""
        assert node.process
        node.process.wait_ready(node.is_ready)

    def _check_placement(self) -> None:
        """That keys are where we think: the cases of other nodes' keys depend on it."""
        for key in ("key-000000000000", "key-000000054321"):
            told = wire.get_json(self.nodes[0].address, f"/v1/explain?key={key}")["index"]
            if told != shard_of(key, self.shards):
                raise Failed(f"{key} is in shard {told}, and was expected in {shard_of(key, self.shards)}")

    @property
    def processes(self) -> list[Process]:
        """Of all nodes that run."""
        return [node.process for node in self.nodes if node.process]

    def leader(self, shard: int) -> Node:
        """The node that leads a shard."""
        return next(node for node in self.nodes if (node.shard, node.copy) == (shard, 0))

    def target(self) -> Target:
        """The cluster as it is asked through its first node; whatever any node uses is counted."""
        address = self.nodes[0].address
        return Target(
            self.name,
            address,
            self.processes,
            get=lambda key: wire.request("GET", address, f"/v1/kv/{key}"),
            put=lambda key, value: _put(address, key, value),
            prefill=self._fill,
        )

    def _fill(self, pairs: Iterator[tuple[str, bytes]]) -> int:
        """Writes keys at the leaders of their shards: nothing has to be forwarded."""
        if self.shards == 1:
            return wire.fill(self.nodes[0].address, (_put(self.nodes[0].address, *pair) for pair in pairs))
        parts: list[list[bytes]] = [[] for _ in range(self.shards)]
        for key, value in pairs:
            shard = shard_of(key, self.shards)
            parts[shard].append(_put(self.leader(shard).address, key, value))
        return sum(wire.fill(self.leader(shard).address, iter(part)) for shard, part in enumerate(parts))

    def stop_node(self, node: Node) -> None:
        """Stops one node; its files stay."""
        assert node.process
        self.fleet.stop([node.process])
        node.process = None

    def start_node(self, node: Node) -> None:
        """Starts it again, and does not wait."""
        self._launch(node)

    def lags(self) -> list[dict]:
        """What the leaders say of their replicas: `lag_entries`, `lag_ms`, `state`."""
        leaders = (node for node in self.nodes if node.copy == 0)
        return [replica for leader in leaders for replica in leader.status()["replicas"]]


def start_alone(fleet: Fleet, program: str, net: str, name: str = "ostraca", host: int = 1) -> Cluster:
    """One node, one shard, no replica, default settings."""
    return Cluster(fleet, program, name, lambda _shard, _copy: f"{net}.{host}", shards=1, replicas=0)


def start_pair(fleet: Fleet, program: str, net: str, name: str = "pair") -> Cluster:
    """A leader and its replica."""
    return Cluster(fleet, program, name, lambda _shard, copy: f"{net}.{61 + copy}", shards=1, replicas=1)


def start_four(fleet: Fleet, program: str, net: str, name: str = "ostraca", hosts: int = 20) -> Cluster:
    """Four shards with a replica each: eight nodes, as in the shipped sharding.toml."""
    place = lambda shard, copy: f"{net}.{hosts + 10 * copy + shard}"
    return Cluster(fleet, program, name, place, shards=4, replicas=1)
