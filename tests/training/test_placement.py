"""Which node the parts of a run go to, and what is said without room; tests/e2e/test_cluster.py has Ray itself."""

import copy
import math
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from verl.single_controller.ray import ResourcePoolManager

from tests.training.test_preflight import compose_config
from vgr_rl.training import placement
from vgr_rl.training.cluster import Cluster
from vgr_rl.training.placement import Node, check_placement, groups_of, place, problems


def node(name: str, gpus: float, *names: str, cpus: float = 128, free: float | None = None) -> Node:
    """A node of which others leave `free` GPUs."""
    total = {"CPU": cpus, "GPU": gpus, "memory": 1e9, f"node:{name}": 1.0, **dict.fromkeys(names, 1.0)}
    return Node(f"id-{name}", name, total, {**total, "GPU": gpus if free is None else free})


def run(*overrides: str, **changes: Any) -> DictConfig:
    config = copy.deepcopy(compose_config(*overrides))
    for key, value in {"segmenter__model": None, **changes}.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    return config


def judged(**changes: Any) -> DictConfig:
    return run("hardware=8+8gpu", "judge=pool", **changes)


def where(config: DictConfig, *nodes: Node) -> str:
    found = place(groups_of(config, nodes), nodes)
    assert found.fits, found.problems("there is no room")
    return found.described()


def lacks(config: DictConfig, *nodes: Node) -> str:
    return "\n".join(problems(groups_of(config, nodes), nodes))


def test_each_part_goes_to_the_nodes_that_are_named_for_it() -> None:
    names = {"placement__policy": "train", "placement__judge": "judge_node", "placement__segmenter": "sam"}
    config = judged(**names, trainer__nnodes=2, segmenter__model="sam2", segmenter__gpus=0.5, segmenter__servers=3)
    nodes = [node("a", 8, "sam"), node("b", 8, "judge_node"), node("c", 8, "train"), node("d", 8, "train")]
    assert where(config, *nodes) == "policy on c, d; judge on b; segmenter on a"
    assert where(config, *reversed(nodes)).replace("d, c", "c, d") == "policy on c, d; judge on b; segmenter on a"


def test_without_names_every_part_has_nodes_of_its_own_if_there_are_enough() -> None:
    config = judged(trainer__n_gpus_per_node=4, segmenter__model="sam2", segmenter__gpus=1)
    large, small = node("large", 8), node("small", 4)
    assert where(config, large, small, node("third", 2)) == "policy on small; judge on large; segmenter on third"
    assert where(config, large, node("other", 8)) == "policy on other; judge on large; segmenter on other"
    config.reward.reward_model.n_gpus_per_node = 3
    assert where(config, large) == "policy on large; judge on large; segmenter on large"


def test_a_part_without_a_name_leaves_the_nodes_of_the_others_alone() -> None:
    named = judged(placement__judge="judge_node", reward__reward_model__n_gpus_per_node=4, trainer__n_gpus_per_node=4)
    assert where(named, node("a", 8, "judge_node"), node("b", 8)) == "policy on b; judge on a"
    assert where(named, node("a", 8, "judge_node")) == "policy on a; judge on a", "there is no other"


def test_servers_share_gpus_and_no_gpu_is_cut_in_two() -> None:
    for servers, gpus, needed in ((3, 0.5, 2), (3, 0.6, 3), (4, 0.25, 1), (2, 1, 2), (5, 1 / 3, 2)):
        config = run("hardware=8gpu", segmenter__model="sam2", segmenter__servers=servers, segmenter__gpus=gpus)
        assert lacks(config, node("a", 8 + needed)) == ""
        assert "segmenter needs" in lacks(config, node("a", 8 + needed - 1))
        groups = [group for group in groups_of(config, [node("a", 16)]) if group.part == "segmenter"]
        assert sum(group.needs["CPU"] for group in groups) == servers
    assert lacks(run("hardware=8gpu", segmenter__model="sam2", segmenter__gpus=0), node("a", 8)) == ""


def test_a_name_that_no_node_offers_is_named_with_the_key_and_the_nodes() -> None:
    said = lacks(judged(placement__judge="judge_node"), node("a", 8), node("b", 8))
    assert said.startswith(
        "placement.judge=judge_node but no node of the cluster offers it; nodes: a, b; start one with"
    )
    assert """--resources '{"judge_node": 1}'""" in said


def test_a_cluster_that_is_too_small_is_told_from_one_that_others_use() -> None:
    config = judged()
    assert lacks(config, node("a", 8), node("b", 4, free=0)) == (
        "judge needs 1 x (8 GPU, 24 CPU), each on one node (reward.reward_model.nnodes x n_gpus_per_node), but the "
        "cluster is too small for 1 of them: b comes nearest, it has 4 GPU, 128 CPU and lacks 4 GPU"
    )
    said = lacks(config, node("a", 8), node("b", 8, free=6))
    assert "but other jobs hold the room for 1 of them: b comes nearest, it has 8 GPU (2 held by others), 128" in said
    assert said.endswith("and lacks 2 GPU")
    alone = lacks(config, node("a", 8))  # what the run itself takes is not there for its other parts
    assert alone.endswith("it has 8 GPU, 128 CPU, of which policy needs 8 GPU, and lacks 8 GPU")


def test_groups_of_a_pool_are_not_torn_apart() -> None:
    said = lacks(run("hardware=8gpu"), node("a", 4), node("b", 4))
    assert "policy needs 1 x (8 GPU, 24 CPU)" in said and "lacks 4 GPU" in said


def test_cpus_count_too() -> None:
    config = run("hardware=8gpu", transfer_queue__backend__SimpleStorage__num_data_storage_units=2)
    assert "of which TransferQueue storage needs 2 CPU, controller needs 2 CPU, and lacks 6 CPU" in lacks(
        config, node("a", 8, cpus=22)
    )
    assert lacks(config, node("a", 8, cpus=28)) == "", "24 of the policy, 2 of the storage, 2 of the controllers"
    head = node("head", 0, cpus=0)  # a head on which nothing may run, as KubeRay starts it by advice
    said = lacks(config, head, node("a", 8, cpus=28))
    assert said.startswith("TransferQueue storage needs 2 x (1 CPU)") and "num_data_storage_units" in said
    assert "head comes nearest, it has 0 GPU, 0 CPU and lacks 1 CPU" in said


def test_a_plan_has_a_line_a_node_with_what_it_needs_has_and_lacks() -> None:
    nodes = [node("a", 8), node("b", 8, "judge_node", free=5), node("c", 2)]
    config = judged(placement__judge="judge_node")
    config.transfer_queue.backend.SimpleStorage.num_data_storage_units = 3
    first, second, third = place(groups_of(config, nodes), nodes).lines()
    assert first == "a: TransferQueue storage needs 1 CPU, policy needs 8 GPU, 24 CPU; has 8 GPU, 128 CPU"
    assert second.startswith(
        "b: TransferQueue storage needs 1 CPU; has 8 GPU (3 held by others), 128 CPU, judge_node; lacks 3 GPU"
    )
    assert second.endswith("; lacks 3 GPU for the judge") and third.endswith("has 2 GPU, 128 CPU")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"placement__policy": 3}, "placement.policy=3 but expected the name of a resource"),
        ({"placement__judge": "GPU"}, "placement.judge=GPU but expected the name"),
        ({"placement__wait_s": -1}, "placement.wait_s=-1 but expected seconds"),
        ({"placement__wait_s": "soon"}, "placement.wait_s=soon but expected seconds"),
        ({"placement__segmenter": "sam"}, "placement.segmenter=sam but segmenter.model=null"),
    ],
)
def test_bad_values_name_the_key(changes: dict[str, Any], message: str) -> None:
    assert any(problem.startswith(message) for problem in check_placement(judged(**changes)))
    assert check_placement(judged(placement__judge="judge_node", placement__wait_s=0)) == []


def test_a_name_for_a_judge_that_is_not_served_is_an_error() -> None:
    (problem,) = check_placement(run("hardware=8gpu", placement__judge="judge_node"))
    assert problem.startswith("placement.judge=judge_node but judge=rules serves no judge")


def test_a_simulated_cluster_counts_the_gpus_of_the_sam2_servers_and_of_the_judge() -> None:
    servers = {"segmenter__model": "sam2", "segmenter__gpus": 1, "placement__segmenter": "sam"}
    config = judged(**servers)
    assert Cluster(3, 8, None, None).missing(config) == []
    (missing,) = Cluster(2, 8, None, None).missing(config)
    assert "the cluster is too small" in missing and "needs" in missing
    assert Cluster(2, 8, None, None).missing(judged()) == []
    assert not any(math.inf in group.needs.values() for group in groups_of(config, []))


def test_verl_reserves_as_many_cpus_for_a_worker_as_is_counted() -> None:
    assert ResourcePoolManager({}, {}).max_colocate_count == placement.CPUS_A_WORKER
