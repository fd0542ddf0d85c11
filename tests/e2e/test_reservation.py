"""Room of a run on a Ray cluster of three nodes: taken whole, where it was chosen, or waited for with a reason."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import transfer_queue.interface
from omegaconf import DictConfig
from ray.cluster_utils import Cluster
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from tests.e2e.cluster import wait_for
from tests.training.test_placement import run
from vgr_rl.errors import ConfigError
from vgr_rl.training import reservation
from vgr_rl.training.placement import Placement, groups_of, place
from vgr_rl.training.reservation import cluster_nodes, reserve
from vgr_rl.training.stop import Stopped

pytestmark = pytest.mark.e2e
SMALL = {"object_store_memory": 80_000_000, "num_cpus": 8}
GPUS = 4
NAMES = {"policy": "train_node", "judge": "judge_node", "segmenter": "sam_node"}


@pytest.fixture(scope="module")
def nodes() -> Iterator[None]:
    """A head with two GPUs that fits everything but has no name, and a node for each name."""
    cluster = Cluster(initialize_head=True, head_node_args={**SMALL, "num_gpus": 2})
    for part, name in NAMES.items():
        cluster.add_node(**SMALL, num_gpus=int(part != "segmenter"), resources={name: 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", cluster.address)
        ray.init(log_to_driver=False)
        yield
        ray.shutdown()
    cluster.shutdown()


@pytest.fixture(autouse=True)
def nothing_is_held(nodes: None) -> None:
    wait_for(lambda: free_gpus() == GPUS, "free GPUs", 30)


def config(wait_s: float = 0, **changes: object) -> DictConfig:
    names = {f"placement__{part}": name for part, name in NAMES.items()}
    servers = {"segmenter__model": "sam2", "segmenter__servers": 2}
    return run("judge=pool", **{**names, **servers, "placement__wait_s": wait_s, **changes})


def hold(name: str) -> PlacementGroup:
    """Take the GPU of a node, as another job would."""
    held = placement_group([{"GPU": 1, name: 0.1}])
    assert held.wait(20)
    return held


def node_offers(group: PlacementGroup) -> str:
    (place_,) = set(ray.util.placement_group_table(group)["bundles_to_node_id"].values())
    (node,) = (node for node in cluster_nodes() if node.id == place_)
    return next(iter(set(NAMES.values()) & set(node.total)), "head")


def never() -> None:
    pass


def free_gpus() -> float:
    return sum(node.free.get("GPU", 0) for node in cluster_nodes())


def test_room_that_another_job_holds_is_named_and_nothing_is_kept() -> None:
    held = hold("judge_node")
    with pytest.raises(ConfigError, match="has no room on the Ray cluster within placement.wait_s=0 seconds") as raised:
        reserve(config(), lambda _: None, never)
    assert "but other jobs hold the room for 1 of them" in str(raised.value)
    assert "it has 1 GPU (1 held by others), 8 CPU, judge_node and lacks 1 GPU" in str(raised.value)
    assert free_gpus() == GPUS - 1
    remove_placement_group(held)


def test_a_run_that_waits_says_so_and_can_be_stopped() -> None:
    said: list[str] = []

    def stop() -> None:
        if said:
            raise Stopped("stopped by SIGTERM before it started")

    with pytest.raises(Stopped):
        reserve(config(60, trainer__nnodes=2), said.append, stop)
    assert "waiting for room, at most 60 s more (placement.wait_s):\n  - policy needs 2 x (1 GPU, 3 CPU)" in said[0]
    assert "the cluster is too small for 1 of them" in said[0]


def test_a_cluster_has_one_run_at_a_time() -> None:
    fixed = 'name="TransferQueueController", namespace="transfer_queue"'
    assert fixed in Path(transfer_queue.interface.__file__).read_text(), "runs no longer share it: delete the check"

    @ray.remote(num_cpus=0)
    class Controller:
        pass

    first = Controller.options(name="TransferQueueController", namespace="transfer_queue").remote()
    with pytest.raises(ConfigError, match="another run is on this Ray cluster"):
        reserve(config(), lambda _: None, never)
    ray.kill(first)
    wait_for(lambda: not reservation.other_run(), "end of the first", 30)


def test_all_is_taken_or_nothing_and_lies_where_it_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = cluster_nodes()
    chosen = place(groups_of(config(), nodes), nodes)
    held = hold("judge_node")  # between the choice and the taking
    monkeypatch.setattr(reservation, "_TAKE_S", 1.0)
    assert chosen.fits and not reservation._take(chosen)
    wait_for(lambda: free_gpus() == GPUS - 1, "what was taken back", 30)

    said: list[str] = []

    def tell(message: str) -> None:
        said.append(message)
        if "waiting" in message:
            threading.Timer(1.0, remove_placement_group, [held]).start()

    reserve(config(60), tell, never)
    assert len(said) == 2 and "other jobs hold the room" in said[0] and said[1].startswith("placed: policy on ")
    found = {part: node_offers(reservation.group(part, 0)) for part in NAMES}
    assert found == NAMES and node_offers(reservation.group("segmenter", 1)) == "sam_node"
    assert [len(reservation.group(part, 0).bundle_specs) for part in ("policy", "judge")] == [1, 1]
    for part in ("policy", "judge", "segmenter"):
        remove_placement_group(reservation.group(part, 0))
    remove_placement_group(reservation.group("segmenter", 1))


def test_a_group_lies_on_the_node_that_was_chosen_for_it() -> None:
    policy, *_ = groups_of(config(placement__policy=None), cluster_nodes())
    with_gpus = [node for node in cluster_nodes() if node.free.get("GPU", 0)]
    assert len(with_gpus) == 3
    for node in with_gpus:
        assert reservation._take(Placement((node,), ((policy, node),)))
        group = reservation.group("policy", 0)
        assert set(ray.util.placement_group_table(group)["bundles_to_node_id"].values()) == {node.id}
        remove_placement_group(group)
        wait_for(lambda: free_gpus() == GPUS, "free GPUs", 30)
