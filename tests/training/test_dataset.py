from pathlib import Path

import pytest
from omegaconf import OmegaConf
from PIL import Image

from vgr_rl.data.images import decode_image
from vgr_rl.data.schema import Row, image_bytes, image_path, write_samples
from vgr_rl.data.tiny_world import to_sample
from vgr_rl.errors import ConfigError
from vgr_rl.tiny.world import generate, render_png
from vgr_rl.training.dataset import EvidenceDataset


@pytest.fixture
def dataset(tmp_path: Path) -> EvidenceDataset:
    scenes = list(generate("train", 5, seed=0))
    user = {"role": "user", "content": "<image>\nWhere is it?"}
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "picture.png").write_bytes(render_png(scenes[4]))
    first = [Row(to_sample(scene), [user], [image_bytes(render_png(scene))]) for scene in scenes[:3]]
    second = [Row(to_sample(scene), [user], [image_path("picture.png")]) for scene in scenes[3:]]
    write_samples(first, tmp_path / "a.parquet")
    write_samples(second, tmp_path / "b" / "b.parquet")
    files = [str(tmp_path / "a.parquet"), str(tmp_path / "b" / "b.parquet")]
    config = OmegaConf.create({"image_key": "images", "prompt_key": "prompt", "cache_dir": str(tmp_path / "cache")})
    return EvidenceDataset(files, tokenizer=None, config=config)


def test_images_stay_encoded_and_paths_are_those_of_their_own_file(dataset: EvidenceDataset, tmp_path: Path) -> None:
    by_bytes, by_path = dataset[0]["raw_prompt"][0]["content"], dataset[4]["raw_prompt"][0]["content"]
    assert [part["type"] for part in by_bytes] == ["image", "text"]
    assert list(by_bytes[0]["image"]) == ["bytes"]
    assert by_path[0]["image"] == {"path": str(tmp_path / "b" / "picture.png")}
    assert decode_image(by_path[0]["image"]).size == decode_image(by_bytes[0]["image"]).size == (64, 64)


def test_every_sample_knows_the_file_and_row_it_came_from(dataset: EvidenceDataset) -> None:
    places = [(Path(file).name, row) for file, row in map(dataset.source, range(len(dataset)))]
    assert places == [("a.parquet", 0), ("a.parquet", 1), ("a.parquet", 2), ("b.parquet", 0), ("b.parquet", 1)]


def test_a_sample_is_found_by_its_source_and_id_and_shows_its_image(dataset: EvidenceDataset) -> None:
    for index in range(len(dataset)):
        assert dataset.index_of(*dataset.key(index)) == index
    assert dataset.image(0).size == dataset.image(4).size == (64, 64)
    assert dataset.image(0).tobytes() != dataset.image(1).tobytes()
    with pytest.raises(KeyError):
        dataset.index_of("elsewhere", dataset.key(0)[1])


def test_a_sample_of_two_files_cannot_be_found(dataset: EvidenceDataset) -> None:
    twice = EvidenceDataset([dataset.data_files[0]] * 2, tokenizer=None, config=dataset.config)
    with pytest.raises(
        ConfigError, match=r"a.parquet, row 0: id=\S+ is also the id of \S+a.parquet, row 0, of the data"
    ):
        twice.index_of(*twice.key(0))


def test_a_photograph_is_turned_upright_and_not_resized(tmp_path: Path) -> None:
    image = Image.new("RGB", (30, 20), "white")
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was held on its side
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert decode_image({"path": str(tmp_path / "turned.jpg")}).size == (20, 30)
