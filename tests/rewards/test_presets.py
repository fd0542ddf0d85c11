from pathlib import Path

import pytest

from rewards import TREEVGR
from rewards.presets import PRESETS, load_rewards

REPOSITORY = Path(__file__).parents[2]


def test_the_preset_is_the_paper_s_reward() -> None:
    sets = load_rewards("treevgr")
    assert sets.default == TREEVGR and not sets.by_source


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_built(name: str) -> None:
    assert [term.name for term in load_rewards(name).default.terms] == list(PRESETS[name])


def test_the_reward_file_of_a_recipe_is_one() -> None:
    assert load_rewards(REPOSITORY / "vgr_rl/config/reward/treevgr.yaml").default == TREEVGR


def test_a_file_has_terms_and_what_sources_change(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("terms: {accuracy: {weight: 2}, format: {}}\nby_source: {crowd: {format: null}}\n")
    sets = load_rewards(str(path))
    assert [(term.name, term.weight) for term in sets.default.terms] == [("accuracy", 2.0), ("format", 1.0)]
    assert [term.name for term in sets.by_source["crowd"].terms] == ["accuracy"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("terms: [", "not valid YAML"),
        ("accuracy: {}", "has no `terms`"),
        ("- accuracy", "has no `terms`"),
        ("terms: {accuracy: {}}\nweights: {}", "has the key 'weights'"),
        ("terms: {acuracy: {}}", r"mine\.yaml: reward\.terms\.acuracy\.use='acuracy' but expected one of accuracy"),
        ("terms: {accuracy: {}}\nby_source: {x: {format: null}}", r"reward\.by_source\.x\.format is null"),
        ("terms: {accuracy: {}}\nby_source: [1]", r"mine\.yaml: reward\.by_source=\[1\] but expected a mapping"),
        ("terms: {dual_iou: {params: {threshold: high}}}", r"mine\.yaml: reward\.terms\.dual_iou\.params="),
        ("defaults: [treevgr, _self_]\nterms: {accuracy: {}}", "only Hydra resolves"),
        ("terms: {accuracy: {weight: '${oc.env:W}'}}", "only Hydra resolves"),
        ("terms: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_rewards(path)


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"'treevrg' but that is no preset; expected treevgr, vrt or a file"):
        load_rewards("treevrg")
    with pytest.raises(ValueError, match=r"there is no file nowhere\.yaml"):
        load_rewards("nowhere.yaml")
