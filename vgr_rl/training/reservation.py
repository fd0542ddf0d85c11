"""Takes the room of a run on a Ray cluster, all of it or nothing, and says what it waits for."""

import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig

from vgr_rl.errors import ConfigError, bullet_list
from vgr_rl.training.placement import Node, Placement, groups_of, place, problems

_PERIOD_S, _SAY_EVERY_S, _TAKE_S, _CONNECT_S = 2.0, 30.0, 10.0, 10.0


def cluster_nodes() -> list[Node]:
    """Return the nodes of the Ray cluster that this process is connected to."""
    import ray

    free = ray._private.state.available_resources_per_node()
    return [
        Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"], free.get(node["NodeID"], {}))
        for node in ray.nodes()
        if node["Alive"]
    ]


def check_address() -> None:
    """Return when the cluster of RAY_ADDRESS listens; Ray itself would try for minutes.

    Raises:
        ConfigError: it does not.
    """
    address = os.environ["RAY_ADDRESS"]
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        return  # such as auto, which Ray looks up on this machine
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except OSError as error:
        raise ConfigError(f"RAY_ADDRESS={address}: no Ray cluster listens there: {error}") from error


def ask_cluster() -> tuple[list[Node], list[str]]:
    """Return the nodes of the cluster of RAY_ADDRESS, and `other_run`; nothing is started on it.

    Raises:
        ConfigError: it does not answer.
    """
    import ray

    check_address()
    try:
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
        return cluster_nodes(), other_run()
    except ConnectionError as error:
        raise ConfigError(f"RAY_ADDRESS={os.environ['RAY_ADDRESS']}: no Ray cluster answers: {error}") from error
    finally:
        ray.shutdown()


def reserve(config: DictConfig, say: Callable[[str], None], stopped: Callable[[], None]) -> None:
    """Hold placement groups for policy, judge and segmenter until this job ends; `group` returns them.

    Args:
        config: of a run.
        say: gets what is waited for, at once and every 30 seconds, and where each part lies on a shared cluster.
        stopped: called again and again; raises when the run is asked to end.

    Raises:
        ConfigError: there is no room after `placement.wait_s`; at once on a local cluster, which nobody else uses.
    """
    shared = bool(os.environ.get("RAY_ADDRESS"))
    wait_s = config.placement.wait_s if shared else 0
    deadline_s, said_s = time.monotonic() + wait_s, -_SAY_EVERY_S
    while True:
        stopped()
        nodes = cluster_nodes()
        groups = groups_of(config, nodes)
        placement = place(groups, nodes)
        rival = other_run()
        if placement.fits and not rival and _take(placement):
            if shared:
                say(f"placed: {placement.described()}")
            return
        lacks = problems(groups, nodes) + rival or ["another job was quicker"]
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            where = (
                f"on the Ray cluster within placement.wait_s={wait_s:g} seconds"
                if shared
                else "on this machine (hardware.ray_local.num_cpus and num_gpus say what Ray counts)"
            )
            raise ConfigError(f"hardware={config.hardware.name} has no room {where}:\n{bullet_list(lacks)}")
        if time.monotonic() - said_s >= _SAY_EVERY_S:
            said_s = time.monotonic()
            say(f"waiting for room, at most {left_s:.0f} s more (placement.wait_s):\n{bullet_list(lacks)}")
        time.sleep(min(_PERIOD_S, left_s))


def other_run() -> list[str]:
    """Return a problem when a run is on the cluster: TransferQueue would give both the same storage, without a word."""
    import ray

    try:
        ray.get_actor("TransferQueueController", namespace="transfer_queue")
    except ValueError:
        return []
    return [
        "another run is on this Ray cluster, and TransferQueue would mix their rollouts: a cluster has one at a time"
    ]


def group(part: str, index: int) -> Any:
    """Return a placement group that this job has reserved."""
    import ray

    return ray.util.get_placement_group(_name(part, index))


def _take(placement: Placement) -> bool:
    """Reserve on the nodes that were chosen, one after the other; return False, holding nothing, if one has no room."""
    from ray.util.placement_group import placement_group, remove_placement_group

    taken: list[Any] = []
    counts: dict[str, int] = {}
    for wanted, node in placement.places:
        if not wanted.reserved:
            continue
        assert node is not None, "asked of a placement that fits"
        index = counts[wanted.part] = counts.get(wanted.part, -1) + 1
        bundles = [dict(bundle) for bundle in wanted.bundles]
        taken.append(
            placement_group(
                bundles, strategy="STRICT_PACK", name=_name(wanted.part, index), _soft_target_node_id=node.id
            )
        )
        if not taken[-1].wait(_TAKE_S):
            for reserved in taken:
                remove_placement_group(reserved)
            return False
    return True


def _name(part: str, index: int) -> str:
    return f"vgr_{part}_{index}"
