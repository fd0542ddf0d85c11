"""The config group `recipe`: where files are found, and that Hydra treats it like any other group."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from vgr_rl.config import recipes


@pytest.fixture
def recipe_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a config `app` and recipes of its own."""
    recipes.register()
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "conf/app.yaml": "defaults: [_self_, recipe: one]\nhydra: {searchpath: [recipes://sft]}\nlr: 1\nseed: 7\n",
        "recipes/one/sft.yaml": "lr: 2\n",
        "recipes/one/grpo.yaml": "lr: 3\n",
        "recipes/one/small.yaml": "lr: 4\n",
        "recipes/two.yaml": "lr: 5\n",
        "recipes/only_grpo/grpo.yaml": "lr: 6\n",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def _lr(folder: Path, *overrides: str) -> int:
    with initialize_config_dir(str(folder / "conf"), version_base="1.3"):
        config = compose("app", overrides=list(overrides))
    assert config.seed == 7
    return config.lr


@pytest.mark.parametrize(
    ("overrides", "lr"),
    [([], 2), (["recipe=one"], 2), (["recipe=one/small"], 4), (["recipe=two"], 5), (["recipe=two", "lr=9"], 9)],
)
def test_recipes_set_root_keys_and_the_command_line_wins(recipe_folder: Path, overrides: list[str], lr: int) -> None:
    assert _lr(recipe_folder, *overrides) == lr


@pytest.mark.parametrize("name", ["three", "only_grpo", "../two", "one/grpo/sft"])
def test_an_unknown_name_lists_those_there_are(recipe_folder: Path, name: str) -> None:
    with pytest.raises(HydraException) as error:
        _lr(recipe_folder, f"recipe={name}")
    assert name in str(error.value)
    listed = str(error.value).split("Available options in 'recipe':")[1].split("Config search path")[0].split()
    assert {"one", "one/small", "two"} <= set(listed)
    assert not {"only_grpo", "one/grpo", "one/sft"} & set(listed)


def test_the_repository_comes_before_the_working_directory(recipe_folder: Path) -> None:
    ours = Path(recipes.__file__).parents[2] / "recipes" / "tiny" / "sft.yaml"
    (recipe_folder / "recipes" / "tiny").mkdir()
    (recipe_folder / "recipes" / "tiny" / "sft.yaml").write_text("lr: 8\n")
    assert recipes.find_recipe("tiny", "sft") == ours


def test_every_listed_recipe_is_found_for_every_entry(recipe_folder: Path) -> None:
    for entry in recipes.ENTRIES:
        for name in recipes.list_recipes(entry):
            assert recipes.find_recipe(name, entry) is not None, name
