"""A box on its whole way: annotation, parquet, what the model sees, what it writes, reward, picture on the page."""

import base64
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rewards.dual_iou import DualIoU
from vgr_rl import prepare
from vgr_rl.data.images import decode_image
from vgr_rl.data.schema import read_samples, resolve_image
from vgr_rl.grounding import ResizeRule, parse_trace
from vgr_rl.viewer.pictures import picture

FAMILIES = {
    "model_px": ResizeRule(factor=28, min_pixels=4 * 28 * 28, max_pixels=64 * 28 * 28),
    "norm1000": ResizeRule(factor=32, min_pixels=4 * 32 * 32, max_pixels=64 * 32 * 32),
}
TURNED = {  # how an upright picture is stored for each EXIF orientation
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def centre(box, scale=(1.0, 1.0)):
    return int((box[0] + box[2]) / 2 * scale[0]), int((box[1] + box[3]) / 2 * scale[1])


@settings(max_examples=6)
@given(st.integers(60, 400), st.integers(60, 400), st.sampled_from(sorted(TURNED)), st.data())
@pytest.mark.parametrize("frame", sorted(FAMILIES))
def test_a_box_marks_the_same_thing_everywhere(tmp_path_factory, frame, width, height, orientation, data):
    """The thing is a white rectangle: what is inside the box is looked at, not only its numbers."""
    x, y = data.draw(st.integers(0, width - 30)), data.draw(st.integers(0, height - 30))
    box = (x, y, data.draw(st.integers(x + 30, width)), data.draw(st.integers(y + 30, height)))
    upright = Image.new("RGB", (width, height))
    upright.paste((255, 255, 255), box)
    stored = upright if TURNED[orientation] is None else upright.transpose(TURNED[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    root = tmp_path_factory.mktemp("frames")
    stored.save(root / "a.png", exif=exif)
    annotated = {
        "image": "a.png",
        "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "a thing"}],
        "target_instances": [{"name": "thing", "bbox": [x, y, box[2] - x, box[3] - y]}],
    }
    (root / "rows.json").write_text(json.dumps([annotated]))
    prepare.main(["vstar", "--input", str(root / "rows.json"), "--out", str(root / "rl.parquet"), "--workers", "1"])
    (row,) = read_samples(root / "rl.parquet")
    assert row.sample.target_boxes == [box]

    geometry = FAMILIES[frame].geometry(row.sample.image_size)
    seen = decode_image(resolve_image(row.images[0], root)).resize(geometry.model_size)
    written = geometry.written(box, frame)
    in_model = geometry.from_orig(box, "model_px")
    assert seen.getpixel(centre(in_model))[0] > 200

    response = f"It <box>[{','.join(map(str, written))}]</box>.</think><answer>a thing</answer>"
    trace = parse_trace(response, geometry, frame, prefill="<think>")
    found = geometry.from_orig(trace.boxes[0].box_orig_px, "model_px")
    step = [max(1.0, side / 1000) for side in geometry.model_size] * 2
    assert all(abs(f - wanted) <= s for f, wanted, s in zip(found, in_model, step, strict=True))
    assert DualIoU()(trace, row.sample).value > 0.7

    shown = picture({"parquet": str(root / "rl.parquet"), "row": 0})
    drawn = Image.open(io.BytesIO(base64.b64decode(shown.uri.partition(",")[2]))).convert("RGB")
    assert drawn.getpixel(centre(box, (drawn.width / width, drawn.height / height)))[0] > 200
