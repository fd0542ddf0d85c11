"""Which node each part of a run goes to, and what is missing where one has no room.

Pure: nodes are what Ray says of them. A `Group` is what has to lie on one node; those with a name (`placement.*`) and
large ones are placed first, each part on nodes of its own where that is possible.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from omegaconf import DictConfig

from vgr_rl.training.segmenter_preflight import servers_together

CPUS_A_WORKER = 3  # of each of verl's bundles: ResourcePoolManager.max_colocate_count
PARTS = ("policy", "judge", "segmenter")
_SHARE = 1e-4  # of a named resource: a node that offers 1 of it has room for 10,000
_COUNTED = ("GPU", "CPU")

Resources = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of a Ray cluster.

    Attributes:
        id: Ray's name of it.
        name: its address.
        total: what it was started with, by Ray's name (GPU, CPU, names of its own).
        free: what nobody holds of that.
    """

    id: str
    name: str
    total: Resources
    free: Resources


@dataclass(frozen=True, slots=True)
class Group:
    """What has to lie on one node.

    Attributes:
        part: one of `PARTS`, or another process of the run, which is counted and not reserved.
        bundles: of Ray's placement group.
        knob: the keys that say how much it is.
        resource: name that its node has to offer; None: any node.
        node: id of the only node that it may lie on; None: any.
    """

    part: str
    bundles: tuple[Resources, ...]
    knob: str
    resource: str | None = None
    node: str | None = None

    @property
    def needs(self) -> dict[str, float]:
        """GPUs and CPUs of all bundles."""
        sums = {name: sum(bundle.get(name, 0) for bundle in self.bundles) for name in _COUNTED}
        return {name: amount for name, amount in sums.items() if amount}

    @property
    def reserved(self) -> bool:
        """Whether a placement group holds it."""
        return self.part in PARTS

    def may_use(self, node: Node) -> bool:
        """Return whether a node is one of those that it may lie on."""
        return self.node in (None, node.id) and (self.resource is None or node.total.get(self.resource, 0) > 0)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the groups of a run go.

    Attributes:
        nodes: of the cluster.
        places: each group with its node, None where there is no room.
    """

    nodes: tuple[Node, ...]
    places: tuple[tuple[Group, Node | None], ...]

    @property
    def fits(self) -> bool:
        """Whether every group has a node."""
        return all(node is not None for _, node in self.places)

    def described(self) -> str:
        """Return the nodes of each part that is reserved."""
        where: dict[str, list[str]] = {}
        for group, node in self.places:
            if group.reserved and node is not None:
                where.setdefault(group.part, []).append(node.name)
        return "; ".join(f"{part} on {', '.join(dict.fromkeys(where[part]))}" for part in PARTS if part in where)

    def lines(self) -> list[str]:
        """Return one line a node: what the run needs of it, what it has, and what it lacks for a group without one."""
        lacking = {}
        for group in self._homeless():
            if (node := self._nearest(group)) is not None:
                lacking[node.id] = f"; lacks {_listed(self._lack(group, node))} for the {group.part}"
        return [
            f"{node.name}: {self._needed(node) or 'not needed'}; has {_has(node)}{lacking.get(node.id, '')}"
            for node in self.nodes
        ]

    def problems(self, because: str) -> list[str]:
        """Return one problem a part that has groups without a node; `because` says why in general."""
        homeless: dict[str, list[Group]] = {}
        for group in self._homeless():
            homeless.setdefault(group.part, []).append(group)
        return [self._problem(groups, because) for groups in homeless.values()]

    def _problem(self, groups: list[Group], because: str) -> str:
        group = groups[0]
        nearest = self._nearest(group)
        if nearest is None:
            names = ", ".join(node.name for node in self.nodes) or "none"
            return (
                f"placement.{group.part}={group.resource} but no node of the cluster offers it; nodes: {names}; "
                f"start one with `ray start --resources '{{\"{group.resource}\": 1}}'`"
            )
        count = sum(other.part == group.part for other, _ in self.places)
        kind = f" that offers {group.resource} (placement.{group.part})" if group.resource else ""
        lack = self._lack(group, nearest)
        taken = self._needed(nearest, tuple(lack))
        return (
            f"{group.part} needs {count} x ({_listed(group.needs)}), each on one node{kind} ({group.knob}), "
            f"but {because} for {len(groups)} of them: {nearest.name} comes nearest, it has {_has(nearest)}"
            f"{f', of which {taken},' if taken else ''} and lacks {_listed(lack)}"
        )

    def _homeless(self) -> Iterable[Group]:
        return (group for group, node in self.places if node is None)

    def _needed(self, node: Node, names: tuple[str, ...] = _COUNTED) -> str:
        """Return what this run's groups take of a node, by part."""
        sums: dict[str, dict[str, float]] = {}
        for group, place in self.places:
            if place is not None and place.id == node.id:
                of_part = sums.setdefault(group.part, {})
                for name in group.needs.keys() & set(names):
                    of_part[name] = of_part.get(name, 0) + group.needs[name]
        return ", ".join(f"{part} needs {_listed(needs)}" for part, needs in sums.items() if needs)

    def _nearest(self, group: Group) -> Node | None:
        """Return the node that lacks the fewest GPUs, then CPUs, for a group; None where it may use none."""

        def lack(node: Node) -> tuple[float, ...]:
            return tuple(self._lack(group, node).get(name, 0) for name in _COUNTED)

        return min(filter(group.may_use, self.nodes), key=lack, default=None)

    def _lack(self, group: Group, node: Node) -> dict[str, float]:
        held = [other for other, place in self.places if place is not None and place.id == node.id]
        return _lack(group, _room(node, held))


def place(groups: Sequence[Group], nodes: Sequence[Node]) -> Placement:
    """Give each group a node with room, as many of them as the two ways of choosing can: apart, or tight."""
    first = sorted(groups, key=lambda group: (group.node is None, not group.resource, *_negative(group.needs)))
    apart, tight = (_placed(first, nodes, spread) for spread in (True, False))
    return max((apart, tight), key=lambda found: sum(node is not None for _, node in found.places))


def problems(groups: Sequence[Group], nodes: Sequence[Node]) -> list[str]:
    """Return what a run lacks: of the cluster, were it empty, or else of what other jobs leave; [] when it fits."""
    empty = place(groups, [replace(node, free=node.total) for node in nodes])
    if not empty.fits:
        return empty.problems("the cluster is too small")
    return place(groups, nodes).problems("other jobs hold the room")


def groups_of(config: DictConfig, nodes: Sequence[Node]) -> list[Group]:
    """Return what a run puts on nodes; TransferQueue deals its storage out to all of them."""
    trainer, judge, names = config.trainer, config.reward.reward_model, config.placement
    groups = _pool("policy", trainer.nnodes, trainer.n_gpus_per_node, "trainer.nnodes x n_gpus_per_node", names.policy)
    if judge.enable_resource_pool:
        knob = "reward.reward_model.nnodes x n_gpus_per_node"
        groups += _pool("judge", judge.nnodes, judge.n_gpus_per_node, knob, names.judge)
    groups += _segmenters(config)
    queue = config.transfer_queue.backend
    units = queue.SimpleStorage.num_data_storage_units if queue.storage_backend == "SimpleStorage" else 0
    knob = "transfer_queue.backend.SimpleStorage.num_data_storage_units"
    for number, node in enumerate(sorted(nodes, key=lambda node: node.id)):  # its order; no other node is taken for one
        if here := len(range(number, units, len(nodes))):
            groups.append(Group("TransferQueue storage", ({"CPU": here},), knob, node=node.id))
    return [*groups, *[Group("controller", ({"CPU": 1},), "the run's own")] * 2]  # task runner, TransferQueue's


def check_placement(config: DictConfig) -> list[str]:
    """Return what does not fit in `placement.*`."""
    given = config.placement
    found = [
        f"placement.{part}={given[part]} but expected the name of a resource that nodes are started with, or null"
        for part in PARTS
        if given[part] is not None and (not isinstance(given[part], str) or given[part] in ("", "CPU", "GPU", "memory"))
    ]
    if isinstance(given.wait_s, bool) or not isinstance(given.wait_s, int | float) or given.wait_s < 0:
        found.append(f"placement.wait_s={given.wait_s} but expected seconds, at least 0")
    if given.judge is not None and not config.reward.reward_model.enable_resource_pool:
        found.append(f"placement.judge={given.judge} but judge={config.judge.name} serves no judge: choose judge=pool")
    if given.segmenter is not None and config.segmenter.model is None:
        found.append(f"placement.segmenter={given.segmenter} but segmenter.model=null: there are no SAM2 servers")
    return found


def _pool(part: str, nodes: int, gpus: int, knob: str, resource: str | None) -> list[Group]:
    return [Group(part, (_bundle(gpus=1, cpus=CPUS_A_WORKER, resource=resource),) * gpus, knob, resource)] * nodes


def _segmenters(config: DictConfig) -> list[Group]:
    given, resource = config.segmenter, config.placement.segmenter
    if given.model is None:
        return []
    together = servers_together(given.gpus)
    counts = [len(range(start, min(start + together, given.servers))) for start in range(0, given.servers, together)]
    bundles = [_bundle(gpus=1 if given.gpus else 0, cpus=count, resource=resource) for count in counts]
    knob = "segmenter.servers of segmenter.gpus"
    return [Group("segmenter", (bundle,), knob, resource) for bundle in bundles]


def _bundle(gpus: int, cpus: int, resource: str | None) -> Resources:
    amounts: dict[str, float] = {"GPU": gpus, "CPU": cpus, **({resource: _SHARE} if resource else {})}
    return {name: amount for name, amount in amounts.items() if amount}


def _placed(groups: Sequence[Group], nodes: Sequence[Node], apart: bool) -> Placement:
    held: dict[str, list[Group]] = {node.id: [] for node in nodes}
    wanted = {group.resource: group.part for group in groups if group.resource}
    places: list[tuple[Group, Node | None]] = []
    for group in groups:

        def rank(node: Node, group: Group = group) -> tuple[float, ...]:
            there = [other for other in held[node.id] if other.reserved]
            foreign = {part for name, part in wanted.items() if name in node.total} | {other.part for other in there}
            shared = group.reserved and bool(foreign - {group.part})
            left = _room(node, held[node.id])
            spread = (shared, len(there) if group.part != "segmenter" else 0) if apart else ()
            return (*spread, left["GPU"], left["CPU"] if group.reserved else -left["CPU"])

        room = [node for node in nodes if group.may_use(node) and not _lack(group, _room(node, held[node.id]))]
        chosen = min(room, key=rank, default=None)
        if chosen is not None:
            held[chosen.id].append(group)
        places.append((group, chosen))
    return Placement(tuple(nodes), tuple(places))


def _room(node: Node, held: Iterable[Group]) -> dict[str, float]:
    room = {name: node.free.get(name, 0) for name in _COUNTED}
    for group in held:
        for name, amount in group.needs.items():
            room[name] -= amount
    return room


def _lack(group: Group, room: Resources) -> dict[str, float]:
    return {name: amount - room[name] for name, amount in group.needs.items() if amount > room[name]}


def _negative(needs: Resources) -> tuple[float, ...]:
    return tuple(-needs.get(name, 0) for name in _COUNTED)


def _has(node: Node) -> str:
    parts = []
    for name in _COUNTED:
        total, free = node.total.get(name, 0), node.free.get(name, 0)
        if not math.isinf(total):
            parts.append(f"{total:g} {name}" + (f" ({total - free:g} held by others)" if free < total else ""))
    names = (
        name for name in node.total if name not in (*_COUNTED, "memory", "object_store_memory") and ":" not in name
    )
    return ", ".join([*parts, *names])


def _listed(amounts: Resources) -> str:
    return ", ".join(f"{amounts[name]:g} {name}" for name in _COUNTED if name in amounts)
