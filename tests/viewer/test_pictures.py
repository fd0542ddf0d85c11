import base64
import io
from pathlib import Path

from PIL import Image

from vgr_rl.data.schema import Row, image_bytes, image_path, write_samples
from vgr_rl.data.tiny_world import to_sample
from vgr_rl.tiny.world import Scene, generate, render_png
from vgr_rl.viewer.pictures import Album, picture


def test_a_row_of_a_parquet_is_drawn_from_its_bytes_or_its_file(tmp_path: Path) -> None:
    scenes = list(generate("train", 600, seed=0))
    (tmp_path / "last.png").write_bytes(render_png(scenes[-1]))
    rows = [Row(to_sample(scene), [], [image_bytes(render_png(scene))]) for scene in scenes]
    rows[-1] = Row(to_sample(scenes[-1]), [], [image_path("last.png")])
    write_samples(rows, tmp_path / "train.parquet")
    for number in (0, 550, 599):
        from_parquet = picture({"parquet": str(tmp_path / "train.parquet"), "row": number})
        direct = picture({"png_base64": base64.b64encode(render_png(scenes[number])).decode()})
        assert from_parquet.uri == direct.uri and from_parquet.uri.startswith("data:image/png")


def test_a_missing_row_or_file_is_said_on_the_page(tmp_path: Path) -> None:
    assert "not readable" in picture({"parquet": str(tmp_path / "gone.parquet"), "row": 0}).problem
    write_samples([], tmp_path / "empty.parquet")
    assert "no such row" in picture({"parquet": str(tmp_path / "empty.parquet"), "row": 0}).problem


def test_an_album_holds_each_picture_once(tmp_path: Path) -> None:
    scenes = list(generate("train", 3, seed=0))
    write_samples(
        [Row(to_sample(scene), [], [image_bytes(render_png(scene))]) for scene in scenes], tmp_path / "a.parquet"
    )
    album = Album()
    rows = (2, 0, 2, 1, 0)
    numbers = [album.add({"parquet": str(tmp_path / "a.parquet"), "row": row}) for row in rows]
    assert numbers == [0, 1, 0, 2, 1] and len(album) == 3
    assert album.by_place() == [1, 2, 0]  # as they stand in the file
    for number, row in zip(numbers, rows, strict=True):
        assert Image.open(io.BytesIO(album.encode(number).encoded)).tobytes() == _pixels(scenes[row])


def _pixels(scene: Scene) -> bytes:
    return Image.open(io.BytesIO(render_png(scene))).convert("RGB").tobytes()


def test_large_pictures_are_shrunk_and_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((2000, 1000), 50).save(tmp_path / "photo.jpg", exif=exif)
    shrunk = picture({"path": str(tmp_path / "photo.jpg")})
    assert shrunk.kind == "image/jpeg" and len(shrunk.uri) < 400_000
    assert Image.open(io.BytesIO(shrunk.encoded)).size == (320, 640)
    assert max(Image.open(io.BytesIO(picture({"path": str(tmp_path / "photo.jpg")}, 96).encoded)).size) == 96
