import pytest

from scripts.bench.growth import LIMIT, Line

SIZES = [64, 256, 1024, 4096, 16384]


def test_a_cost_on_a_line_is_found_and_its_constant_is_of_1000_sequences():
    line = Line.through(SIZES, [0.1 + 2 * size / 1000 for size in SIZES])
    assert (line.fixed, line.slope, line.excess) == pytest.approx((0.1, 2.0, 1.0))
    assert line.at(32768) == pytest.approx(0.1 + 65.536)


@pytest.mark.parametrize("power", [1.5, 2.0])
def test_a_cost_that_grows_faster_is_over_the_limit(power: float):
    assert Line.through(SIZES, [0.1 + (size / 1000) ** power for size in SIZES]).excess > LIMIT
