import base64
from pathlib import Path

from vgr_rl.data.schema import Row, image_bytes, image_path, write_samples
from vgr_rl.data.tiny_world import to_sample
from vgr_rl.grounding import Size
from vgr_rl.tiny.world import generate, render_png
from vgr_rl.viewer.pictures import picture


def test_a_row_of_a_parquet_is_drawn_from_its_bytes_or_its_file(tmp_path: Path) -> None:
    scenes = list(generate("train", 600, seed=0))
    (tmp_path / "last.png").write_bytes(render_png(scenes[-1]))
    rows = [Row(to_sample(scene), [], [image_bytes(render_png(scene))]) for scene in scenes]
    rows[-1] = Row(to_sample(scenes[-1]), [], [image_path("last.png")])
    write_samples(rows, tmp_path / "train.parquet")
    for number in (0, 550, 599):
        from_parquet = picture({"parquet": str(tmp_path / "train.parquet"), "row": number}, Size(64, 64))
        direct = picture({"png_base64": base64.b64encode(render_png(scenes[number])).decode()}, Size(64, 64))
        assert from_parquet.uri == direct.uri and from_parquet.uri.startswith("data:image/png")


def test_a_missing_row_or_file_is_said_on_the_page(tmp_path: Path) -> None:
    assert "not readable" in picture({"parquet": str(tmp_path / "gone.parquet"), "row": 0}, Size(8, 8)).problem
    write_samples([], tmp_path / "empty.parquet")
    assert "no such row" in picture({"parquet": str(tmp_path / "empty.parquet"), "row": 0}, Size(8, 8)).problem
