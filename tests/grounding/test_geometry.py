"""The resize rule against the functions and the processors of transformers."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vgr_rl.grounding import ResizeRule, Size, smart_resize

transformers = pytest.importorskip("transformers")
qwen2_vl = pytest.importorskip("transformers.models.qwen2_vl.image_processing_qwen2_vl")

FAMILIES = {
    "qwen2_5_vl": {"patch_size": 14, "merge_size": 2, "min_pixels": 56 * 56, "max_pixels": 1280 * 28 * 28},
    "qwen3_vl": {"patch_size": 16, "merge_size": 2, "size": {"shortest_edge": 256 * 256, "longest_edge": 4096 * 4096}},
    "tiny": {"patch_size": 8, "merge_size": 2, "size": {"shortest_edge": 16 * 16, "longest_edge": 128 * 128}},
}
PROCESSORS = ("Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", "Qwen2VLImageProcessorPil")


@settings(max_examples=500)
@given(
    width=st.integers(1, 10_000),
    height=st.integers(1, 10_000),
    factor=st.sampled_from([16, 28, 32]),
    min_tokens=st.integers(1, 2000),
    more_tokens=st.integers(0, 16_000),
)
def test_smart_resize_equals_transformers(
    width: int, height: int, factor: int, min_tokens: int, more_tokens: int
) -> None:
    limits = {"min_pixels": min_tokens * factor**2, "max_pixels": (min_tokens + more_tokens) * factor**2}
    try:
        expected = qwen2_vl.smart_resize(height, width, factor=factor, **limits)
    except ValueError:
        with pytest.raises(ValueError, match="at most 200 times"):
            smart_resize(Size(width, height), factor, **limits)
        return
    assert smart_resize(Size(width, height), factor, **limits) == (expected[1], expected[0])


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_the_size_is_whole_tokens_within_the_limit(width: int, height: int) -> None:
    if max(width, height) > 200 * min(width, height):
        return
    size = smart_resize(Size(width, height), 28, 4 * 28**2, 1280 * 28**2)
    assert size.width >= 28 and size.height >= 28
    assert size.width % 28 == size.height % 28 == 0
    if max(width, height) <= 100 * min(width, height):
        assert size.width * size.height <= 1280 * 28**2


@pytest.mark.parametrize("processor_name", PROCESSORS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_rule_predicts_the_grid_of_the_real_processor(family: str, processor_name: str) -> None:
    if (processor_class := getattr(transformers, processor_name, None)) is None:
        pytest.skip(f"this transformers has no {processor_name}")
    processor = processor_class(**{key: _copied(value) for key, value in FAMILIES[family].items()})
    rule = ResizeRule.from_image_processor(processor)
    for size in (Size(64, 64), Size(300, 171), Size(37, 411), Size(1023, 640), Size(20, 31)):
        grid = processor(images=Image.new("RGB", size), return_tensors="pt")["image_grid_thw"][0].tolist()
        geometry = rule.geometry(size)
        patch_size = FAMILIES[family]["patch_size"]
        assert geometry.orig_size == size
        assert geometry.model_size == (grid[2] * patch_size, grid[1] * patch_size)
        assert rule.image_tokens(size) == grid[1] * grid[2] // FAMILIES[family]["merge_size"] ** 2


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value  # the processors write into the size they are given


def test_the_rule_reads_plain_attributes_too() -> None:
    processor = SimpleNamespace(patch_size=14, merge_size=2, min_pixels=3136, max_pixels=1003520)
    assert ResizeRule.from_image_processor(processor) == ResizeRule(28, 3136, 1003520)


def test_a_foreign_processor_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"CLIPImageProcessor has patch_size=None.*model\.path"):
        ResizeRule.from_image_processor(transformers.CLIPImageProcessor())


def test_a_processor_that_does_not_resize_is_refused() -> None:
    with pytest.raises(ValueError, match="do_resize"):
        ResizeRule.from_image_processor(transformers.Qwen2VLImageProcessor(do_resize=False))


def test_impossible_sizes_and_limits_are_errors() -> None:
    with pytest.raises(ValueError, match="4020x20"):
        ResizeRule(28, 3136, 10**6).geometry(Size(4020, 20))
    with pytest.raises(ValueError, match="0x20"):
        ResizeRule(28, 3136, 10**6).geometry(Size(0, 20))
    with pytest.raises(ValueError, match=r"data\.min_pixels"):
        ResizeRule(28, 1000, 999)
