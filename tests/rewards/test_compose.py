import logging
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import TREEVGR, Accuracy, Composer, DualIoU, Format, RewardSets, Score, Term, compose
from vgr_rl.grounding import ImageGeometry, Sample, Size, Target, Trace, parse_trace

SIZE = Size(64, 64)
GEOMETRY = ImageGeometry(SIZE, SIZE)
SAMPLE = Sample("7", "test", "Which?", "B", "choice", ("x", "y"), (Target((0, 0, 20, 20)),), SIZE)
RIGHT = parse_trace("<box>[0,0,20,10]</box></think><answer>B</answer>", GEOMETRY, "model_px")


@pytest.fixture(autouse=True)
def _nothing_is_logged_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "_warned", set())


def breaks(trace: Trace, sample: Sample) -> Score:
    raise RuntimeError("the disk is gone")


def half(trace: Trace, sample: Sample) -> Score:
    return Score(0.5, {"half": 0.5})


@dataclass
class Returns:
    what: Any

    def __call__(self, trace: Trace, sample: Sample) -> Score:
        return self.what


def test_the_paper_s_reward_is_the_sum_of_three() -> None:
    composed = TREEVGR.score(RIGHT, SAMPLE)
    assert composed.value == pytest.approx(1 + 1 + 0.5)
    assert composed.status == "ok"
    assert set(composed.parts) == {"accuracy", "format", "recall_iou", "precision_iou", "dual_iou", "boxes"}
    assert [term.weight for term in TREEVGR.terms] == [1, 1, 1]
    assert {name: score.value for name, score in composed.terms.items()} == {
        "accuracy": 1.0,
        "format": 1.0,
        "dual_iou": 0.5,
    }


@given(st.text(alphabet="<>/[]1234,boxthinkanswer B") | st.text())
def test_the_paper_s_reward_stays_in_its_bounds_for_any_response(response: str) -> None:
    composed = TREEVGR.score(parse_trace(response, GEOMETRY, "model_px"), SAMPLE)
    assert composed.status == "ok"
    assert 0 <= composed.value <= 3


def test_weights_scale_values_and_leave_parts_as_they_are() -> None:
    terms = (Term("accuracy", Accuracy(), 2.0), Term("dual_iou", DualIoU(), -0.5), Term("format", Format(), 0.0))
    composed = Composer(terms).score(RIGHT, SAMPLE)
    assert composed.value == pytest.approx(2 - 0.25)
    assert composed.parts["dual_iou"] == pytest.approx(0.5)
    assert composed.parts["format"] == 1.0


def test_a_term_that_does_not_apply_drops_out_with_its_parts() -> None:
    sample = Sample("7", "test", "Which?", "B", "choice", ("x", "y"), (), SIZE)
    composed = TREEVGR.score(RIGHT, sample)
    assert (composed.value, composed.status) == (2.0, "ok")
    assert set(composed.parts) == {"accuracy", "format"}
    assert composed.terms["dual_iou"].status == "not_applicable"


def test_where_no_term_applies_the_sum_does_not_either() -> None:
    sample = Sample("7", "test", "Which?", "", "none", (), (), SIZE)
    composed = Composer((Term("accuracy", Accuracy()), Term("dual_iou", DualIoU()))).score(RIGHT, sample)
    assert (composed.status, composed.parts) == ("not_applicable", {})


def test_a_term_that_raises_fails_the_sum_and_never_counts_as_0(caplog: pytest.LogCaptureFixture) -> None:
    composed = Composer((Term("half", half), Term("broken", breaks))).score(RIGHT, SAMPLE)
    assert composed.status == "failed"
    assert math.isnan(composed.value)
    assert composed.parts == {"half": 0.5}
    assert composed.terms["half"].status == "ok"
    assert composed.terms["broken"].status == "failed"
    assert composed.terms["broken"].reason == "RuntimeError: the disk is gone"
    assert math.isnan(composed.terms["broken"].value)
    assert "broken failed on sample 7: RuntimeError: the disk is gone" in caplog.text


def test_a_kind_of_failure_is_logged_once_as_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "rewards.compose")
    for reason in (
        "no judge: 503 of host 1",
        "no judge: 503 of host 2",
        "the answer 'A' is odd",
        "the answer 'B' is odd",
    ):
        Composer((Term("judged", Returns(Score.failed(reason))),)).score(RIGHT, SAMPLE)
    logged = [(record.levelname, record.getMessage().partition("7: ")[2]) for record in caplog.records]
    assert logged == [
        ("WARNING", "no judge: 503 of host 1"),
        ("DEBUG", "no judge: 503 of host 2"),
        ("WARNING", "the answer 'A' is odd"),
        ("DEBUG", "the answer 'B' is odd"),
    ]


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (0.5, "returned float but expected rewards.Score"),
        (None, "returned NoneType"),
        (Score(math.nan), "value=nan"),
        (Score(math.inf), "value=inf"),
        (Score(1.0, {"x": math.nan}), "part x=nan"),
        (Score("0.5"), "value='0.5' but expected a finite number"),  # type: ignore[arg-type]
        (Score(1.0, {"x": None}), "part x=None but expected a finite number"),  # type: ignore[dict-item]
        (Score(10**400), "OverflowError"),
        (Score(1.0, {"half": 1.0}), "part 'half', which an earlier term returned"),
        (Score(1.0, status="fine"), "status='fine'"),  # type: ignore[arg-type]
        (Score.failed("no judge"), "no judge"),
    ],
)
def test_what_is_no_score_is_a_failure_with_a_reason(returned: Any, reason: str) -> None:
    composed = Composer((Term("half", half), Term("odd", Returns(returned)))).score(RIGHT, SAMPLE)
    assert composed.status == "failed" and math.isnan(composed.value)
    assert composed.parts == {"half": 0.5}
    assert reason in composed.terms["odd"].reason


@pytest.mark.parametrize("kind", [numpy.float32, numpy.float64, numpy.int64, numpy.array, int, Fraction])
def test_numbers_of_any_library_become_floats(kind: Any) -> None:
    composer = Composer((Term("half", half), Term("odd", Returns(Score(kind(2), {"odd": kind(1)})), 0.5)))
    composed = composer.score(RIGHT, SAMPLE)
    assert (composed.value, composed.parts) == (1.5, {"half": 0.5, "odd": 1.0})
    numbers = (composed.value, composed.terms["odd"].value, *composed.parts.values())
    assert {type(number) for number in numbers} == {float}


def test_a_term_that_fails_without_a_weight_is_seen_and_costs_nothing() -> None:
    composed = Composer((Term("half", half), Term("watched", breaks, 0.0))).score(RIGHT, SAMPLE)
    assert (composed.value, composed.status, composed.parts) == (0.5, "ok", {"half": 0.5})
    assert composed.terms["watched"].reason == "RuntimeError: the disk is gone"
    alone = Composer((Term("watched", breaks, 0.0),)).score(RIGHT, SAMPLE)
    assert (alone.status, alone.terms["watched"].status) == ("not_applicable", "failed")


@pytest.mark.parametrize(("values", "weight"), [((1e300,), 1e300), ((1e308, 1e308), 1.0), ((-1e308, -1e308), 1.0)])
def test_a_sum_that_overflows_is_a_failure(values: tuple[float, ...], weight: float) -> None:
    terms = [Term(f"huge {n}", Returns(Score(value, {f"p{n}": 1.0})), weight) for n, value in enumerate(values)]
    composed = Composer(tuple(terms)).score(RIGHT, SAMPLE)
    assert composed.status == "failed" and math.isnan(composed.value)
    assert "makes the sum overflow" in composed.terms[terms[-1].name].reason
    assert len(composed.parts) == len(values) - 1


def test_a_keyboard_interrupt_is_not_swallowed() -> None:
    def interrupted(trace: Trace, sample: Sample) -> Score:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Composer((Term("x", interrupted),)).score(RIGHT, SAMPLE)


def test_a_composer_needs_terms_with_names_of_their_own_and_finite_weights() -> None:
    with pytest.raises(ValueError, match=r"reward\.terms is empty"):
        Composer(())
    with pytest.raises(ValueError, match="'half' comes 2 times"):
        Composer((Term("half", half), Term("half", half)))
    with pytest.raises(ValueError, match="weight of 'half' is nan"):
        Composer((Term("half", half, math.nan),))


def test_a_config_names_built_in_rewards() -> None:
    composer = Composer.from_config(
        [
            {"name": "accuracy"},
            {"name": "boxes", "use": "dual_iou", "weight": 2, "params": {"matching": "hungarian"}},
            {"name": "format", "weight": 0.5, "params": None},
        ]
    )
    assert composer.terms == (
        Term("accuracy", Accuracy(), 1.0),
        Term("boxes", DualIoU(matching="hungarian"), 2.0),
        Term("format", Format(), 0.5),
    )


def test_a_config_may_be_a_mapping_where_null_leaves_a_term_out() -> None:
    composer = Composer.from_config({"accuracy": None, "boxes": {"use": "dual_iou", "weight": 2}, "format": {}})
    assert composer.terms == (Term("boxes", DualIoU(), 2.0), Term("format", Format(), 1.0))
    with pytest.raises(ValueError, match=r"terms\.1: the name of a term must be text"):
        Composer.from_config({1: {"use": "format"}})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"terms\.format='on' but expected a mapping"):
        Composer.from_config({"format": "on"})  # type: ignore[dict-item]


def test_a_config_may_come_from_omegaconf() -> None:
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create([{"name": "dual_iou", "params": {"precision": False}}])
    assert Composer.from_config(config).terms == (Term("dual_iou", DualIoU(precision=False), 1.0),)


def test_a_config_finds_a_user_s_own_rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from rewards import Score\n"
        "def length(trace, sample, per=1):\n"
        "    return Score(len(trace.text) / per, {'length': len(trace.text)})\n"
        "def needs(trace, sample, least):\n"
        "    return Score(least)\n"
        "@dataclass\n"
        "class Constant:\n"
        "    value: float = 1.0\n"
        "    def __call__(self, trace, sample):\n"
        "        return Score(self.value)\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for place in ("mine.", "mine:", "mine.py:", str(tmp_path / "mine.py:")):
        composer = Composer.from_config(
            [
                {"name": "plain", "use": f"{place}length"},
                {"name": "constant", "use": f"{place}Constant", "params": {"value": 0.25}},
            ]
        )
        assert composer.score(RIGHT, SAMPLE).value == len(RIGHT.text) + 0.25
        composer = Composer.from_config([{"name": "bound", "use": f"{place}length", "params": {"per": 2}}])
        assert composer.score(RIGHT, SAMPLE).value == len(RIGHT.text) / 2
        for use, message in ((f"{place}width", "has no 'width'"), (f"{place}number", "is a int but expected")):
            with pytest.raises(ValueError, match=message):
                Composer.from_config([{"name": "x", "use": use}])
        with pytest.raises(ValueError, match=r"terms\.x\.params.*'size'"):
            Composer.from_config([{"name": "x", "use": f"{place}length", "params": {"size": 2}}])
        with pytest.raises(ValueError, match=r"terms\.x\.params.*'least'"):
            Composer.from_config([{"name": "x", "use": f"{place}needs"}])


def test_a_user_s_file_that_breaks_says_so_each_time(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import nothing_of_this_name\n")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
            Composer.from_config([{"name": "x", "use": f"{tmp_path / 'bad.py'}:reward"}])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "acuracy"}, r"terms\.acuracy\.use='acuracy'.*accuracy, box_valid, dual_iou"),
        ({"name": "accuracy", "wieght": 2}, r"terms\.accuracy has the key 'wieght'.*weight"),
        ({"name": "accuracy", "weight": "2"}, r"terms\.accuracy\.weight='2'"),
        ({"use": "accuracy"}, r"terms\[0\]\.name=None"),
        ({"name": "accuracy", "params": {"max_chars": 1}}, r"max_chars.*accuracy takes max_answer_chars"),
        ({"name": "accuracy", "params": "strict"}, r"terms\.accuracy\.params='strict' but expected a mapping"),
        ({"name": "x", "use": "no.such.module:reward"}, "there is no module 'no'"),
        ({"name": "x", "use": "no.such.module"}, "there is no module 'no'"),
        ({"name": "x", "use": "rewards.accuracy.Acuracy"}, "rewards.accuracy has no 'Acuracy'"),
        (
            {"name": "x", "use": "mine.py"},
            r"terms\.x\.use='mine\.py'.*expected an object in that file, mine\.py:object",
        ),
        ({"name": "x", "use": "..x"}, r"terms\.x\.use='\.\.x' but expected one of accuracy"),
        ({"name": "x", "use": "no/file:reward"}, r"terms\.x\.use='no/file:reward' but expected one of accuracy"),
        ({"name": "x", "use": 3}, r"terms\.x\.use=3 but expected a name or a path"),
        ({"name": ""}, r"terms\[0\]\.name=''"),
        ({"name": "x", "use": "no/such/file.py:reward"}, "there is no file"),
        ({"name": "dual_iou", "params": {"matching": "greedy"}}, r"terms\.dual_iou\.params=.*best or hungarian"),
        ({"name": "dual_iou", "params": {"threshold": "high"}}, r"terms\.dual_iou\.params=\{'threshold': 'high'\}: "),
        ({"name": "dual_iou", "params": {"schedule": 0.5}}, r"terms\.dual_iou\.params=\{'schedule': 0\.5\}: "),
        ({"name": "mean_ap", "params": {"max_boxes": None}}, r"terms\.mean_ap\.params=\{'max_boxes': None\}: "),
        ({"name": "dual_iou", "params": {"recall": "false"}}, r"dual_iou\.params\.recall='false' but expected true or"),
        ({"name": "dual_iou", "params": {"recall": 1}}, r"dual_iou\.params\.recall=1 but expected true or false"),
        ("accuracy", r"terms\[0\]='accuracy' but expected a mapping"),
    ],
)
def test_a_wrong_config_names_the_entry_and_what_was_expected(entry: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Composer.from_config([entry])


@dataclass(frozen=True)
class Ramp:
    level: float = 0.0

    def __call__(self, trace: Trace, sample: Sample) -> Score:
        return Score(self.level)

    def at(self, progress: float) -> "Ramp":
        return Ramp(progress)


@pytest.mark.parametrize("terms", [3, None, "accuracy"])
def test_terms_that_are_neither_a_mapping_nor_a_list_are_refused(terms: Any) -> None:
    with pytest.raises(ValueError, match=r"reward\.terms=.* but expected a mapping"):
        Composer.from_config(terms)


def test_a_term_with_a_schedule_follows_the_training_and_the_others_stay() -> None:
    composer = Composer((Term("ramp", Ramp(), 2.0), Term("half", half)))
    assert [composer.at(progress).score(RIGHT, SAMPLE).value for progress in (0.0, 0.25, 1.0)] == [0.5, 1.0, 2.5]
    assert composer.score(RIGHT, SAMPLE).value == 0.5
    assert TREEVGR.at(0.5) is TREEVGR or TREEVGR.at(0.5) == TREEVGR


def from_source(data_source: str) -> Sample:
    return Sample("7", data_source, "Which?", "B", "choice", ("x", "y"), (Target((0, 0, 20, 20)),), SIZE)


def test_each_data_source_is_graded_by_its_own_terms() -> None:
    terms = {"accuracy": {"weight": 2}, "dual_iou": {"params": {"matching": "hungarian", "recall": False}}}
    sets = RewardSets.from_config(
        terms,
        {
            "text": {"dual_iou": None},
            "crowd": {"dual_iou": {"weight": 3, "params": {"recall": True}}, "format": {}},
            "other": {"dual_iou": {"use": "format"}},
        },
    )
    assert sets.default == Composer.from_config(terms)
    assert sets.by_source["text"].terms == (Term("accuracy", Accuracy(), 2.0),)
    assert sets.by_source["crowd"].terms == (
        Term("accuracy", Accuracy(), 2.0),
        Term("dual_iou", DualIoU(matching="hungarian", recall=True), 3.0),
        Term("format", Format(), 1.0),
    )
    assert sets.by_source["other"].terms[1] == Term("dual_iou", Format(), 1.0)
    assert set(sets.score(RIGHT, from_source("text")).terms) == {"accuracy"}
    assert set(sets.score(RIGHT, from_source("unknown")).terms) == {"accuracy", "dual_iou"}


def test_reward_sets_follow_the_training() -> None:
    sets = RewardSets(Composer((Term("ramp", Ramp()),)), {"text": Composer((Term("ramp", Ramp(), 2.0),))}).at(0.5)
    assert sets.score(RIGHT, from_source("text")).value == 1.0
    assert sets.score(RIGHT, from_source("other")).value == 0.5


@pytest.mark.parametrize(
    ("by_source", "message"),
    [
        ({"text": {"dual_uoi": None}}, r"by_source\.text\.dual_uoi is null but reward\.terms has only accuracy"),
        ({"text": {"accuracy": {"wait": 1}}}, r"by_source\.text\.accuracy has the key 'wait'"),
        ({"text": {"accuracy": 2}}, r"by_source\.text\.accuracy=2 but expected a mapping"),
        ({"text": None}, r"by_source\.text=None but expected a mapping"),
        ({"text": {"accuracy": {"params": {"x": 1}}}}, r"by_source\.text\.accuracy\.params=.*'x'"),
        ({"text": {"accuracy": {"params": [1]}}}, r"by_source\.text\.accuracy\.params=\[1\] but expected a mapping"),
        ({"text": {"accuracy": None}}, r"by_source\.text leaves no term"),
        ([1], r"reward\.by_source=\[1\] but expected a mapping"),
        ("text", r"reward\.by_source='text' but expected a mapping"),
    ],
)
def test_a_wrong_change_for_a_source_is_named(by_source: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RewardSets.from_config({"accuracy": {}}, by_source)
