from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import Accuracy, Reward, Score
from rewards.accuracy import Judge
from vgr_rl.grounding import AnswerKind, ImageGeometry, Sample, Size, parse_trace

SIZE = Size(64, 64)
OPTIONS = ("blue car", "red car", "green bus", "A")


def grade(
    answer: str | None,
    truth: str = "B",
    kind: AnswerKind = "choice",
    options: tuple[str, ...] = OPTIONS,
    reward: Reward | None = None,
) -> Score:
    sample = Sample("7", "test", "Which?", truth, kind, options, (), SIZE)
    response = "so</think>" if answer is None else f"so</think><answer>{answer}</answer>"
    return (reward or Accuracy())(parse_trace(response, ImageGeometry(SIZE, SIZE), "model_px"), sample)


@pytest.mark.parametrize(
    "answer",
    ["B", "b", " B\n", "(B)", "(b)", "[B]", "B.", "B)", "B:", "B. red car", "(B) red car", "b. Red car.", "B.red car"]
    + ["red car", "The red car.", "A red car", "RED  CAR"],
)
def test_ways_to_name_the_right_option(answer: str) -> None:
    score = grade(answer)
    assert (score.value, score.parts, score.status) == (1.0, {"accuracy": 1.0}, "ok")


@pytest.mark.parametrize(
    "answer",
    [None, "", "  ", "A", "(C)", "A or B", "B or A", "A, B", "B, A", "A/B", "A and B", "AB", "B A", "(A) (B)", "B. A"]
    + ["B. blue car", "A. red car", "B. red car or blue car", "B. red car A. blue car", "A. blue car B. red car"]
    + ["blue car", "red car, blue car", "car", "red", "F", "B" * 1001, "red car" + " " * 1000 + ".", "?", "B?C", "<B>"],
)
def test_ways_to_be_wrong(answer: str | None) -> None:
    score = grade(answer)
    assert (score.value, score.parts, score.status) == (0.0, {"accuracy": 0.0}, "ok")


@pytest.mark.parametrize("truth", ["B", "(B)", "b", "B. red car", "red car"])
def test_the_sample_may_spell_its_answer_in_any_of_these_ways(truth: str) -> None:
    assert grade("B", truth).value == 1.0
    assert grade("C", truth).value == 0.0


@pytest.mark.parametrize(
    ("answer", "value"),
    [("B", 1.0), ("B. the red one", 1.0), ("B. a car or a bus", 1.0), ("B. I think so", 1.0), ("red car", 0.0)]
    + [("B. or C", 0.0), ("B. or c", 0.0), ("B. C", 0.0), ("B. red C. blue", 0.0), ("B. red or c", 0.0)]
    + [("A or B or C", 0.0), ("b.c", 0.0), ("(B), (C)", 0.0), ("B. x (c)", 0.0), ("(B), c", 0.0), ("B. / c", 0.0)],
)
def test_letters_are_graded_without_options_too(answer: str, value: float) -> None:
    assert grade(answer, options=()).value == value


def test_options_may_carry_their_own_labels() -> None:
    options = ("A. blue", "B. red", "C. B")
    for answer in ("B", "red", "B. red"):
        assert grade(answer, options=options).value == 1.0
    assert grade("A. red", options=options).value == 0.0
    assert grade("blue", options=options).value == 0.0


def test_equal_options_can_only_be_told_apart_by_letter() -> None:
    assert grade("red", truth="A", options=("red", "red")).value == 0.0
    assert grade("B", options=("red", "red")).value == 1.0


def test_a_letter_outside_the_options_is_read_as_text() -> None:
    assert grade("O", truth="O", options=("X", "O")).value == 1.0
    assert grade("C", truth="B", options=("X", "O")).value == 0.0


def test_a_truth_that_names_no_option_fails_instead_of_scoring_0() -> None:
    score = grade("B", truth="E")
    assert score.status == "failed" and "'E'" in score.reason
    assert score.value != score.value


@pytest.mark.parametrize(
    ("answer", "truth"),
    [("3", "three"), ("3.0", "3"), ("three", "3.00"), ("Twenty-one", "21"), ("1,200", "twelve hundred")]
    + [("two hundred and five", "205"), ("-3", "-3.0"), ("\u22123", "-3"), ("50%", "fifty percent"), (".5", "0.50")]
    + [("The red car.", "red car"), ("a  RED car!", "red car"), ("man's hat", "mans hat"), ("t-shirt", "T shirt")]
    + [("３", "3"), ("caf\u00e9", "cafe\u0301"), ("Stra\u00dfe", "STRASSE"), ("three cars", "3 cars"), ("the", "The")],
)
def test_open_answers_match_after_normalisation(answer: str, truth: str) -> None:
    assert grade(answer, truth, "open", ()).value == 1.0


@pytest.mark.parametrize(
    ("answer", "truth"),
    [(None, "red"), ("", "red"), (" ", "red"), ("red " * 300, "red"), ("red or blue", "red"), ("-3", "3")]
    + [("13", "3"), ("3.1", "3"), ("one two", "3"), ("twenty one", "20 1"), ("50%", "50"), ("cafe", "caf\u00e9")]
    + [("1,2", "12"), ("two hundred", "2 100"), ("...", "red"), ("the", "a"), ("red", "reddish"), ("+", "-")],
)
def test_open_answers_that_differ(answer: str | None, truth: str) -> None:
    score = grade(answer, truth, "open", ())
    assert (score.value, score.status) == (0.0, "ok")


def test_an_empty_truth_fails_and_an_ungraded_sample_does_not_apply() -> None:
    assert grade("red", " ", "open", ()).status == "failed"
    score = grade("red", "", "none", ())
    assert (score.status, score.parts) == ("not_applicable", {})


def test_the_length_limit_is_inclusive_and_in_the_config() -> None:
    sample = Sample("7", "test", "Which?", "B", "choice", OPTIONS, (), SIZE)
    for answer, value in (("(B)", 1.0), ("(B).", 0.0)):
        trace = parse_trace(f"</think><answer>{answer}</answer>", ImageGeometry(SIZE, SIZE), "model_px")
        assert Accuracy(max_answer_chars=3)(trace, sample).value == value


@pytest.mark.parametrize(
    ("answer", "truth", "value"),
    [("10.4", "10", 1.0), ("9.5", "10", 1.0), ("10.6", "10", 0.0), ("-10", "10", 0.0), ("-9.6", "-10", 1.0)]
    + [("ten", "10.2", 1.0), ("0", "0", 1.0), ("0.01", "0", 0.0), ("10 cars", "10.2 cars", 0.0), ("red", "10", 0.0)]
    + [("9" * 999, "9" * 998, 0.0), ("nan", "10", 0.0), ("inf", "1e999", 0.0), ("1,020", "1000", 1.0)],
)
def test_numbers_may_be_off_by_the_tolerance(answer: str, truth: str, value: float) -> None:
    assert grade(answer, truth, "open", (), Accuracy(number_tolerance=0.05)).value == value


def judge_of(*verdicts: object) -> tuple[list[tuple[str, str, str]], Judge]:
    asked: list[tuple[str, str, str]] = []

    def judge(question: str, truth: str, answer: str) -> bool:
        asked.append((question, truth, answer))
        return verdicts[len(asked) - 1]  # type: ignore[return-value]

    return asked, judge


def test_a_judge_is_asked_about_open_answers_that_do_not_match() -> None:
    asked, judge = judge_of(True, False)
    reward = Accuracy(judge=judge)
    assert grade("a feline", "cat", "open", (), reward).value == 1.0
    assert grade("a dog", "cat", "open", (), reward).value == 0.0
    assert asked == [("Which?", "cat", "a feline"), ("Which?", "cat", "a dog")]


def test_a_judge_is_not_asked_about_what_is_settled() -> None:
    asked, judge = judge_of()
    reward = Accuracy(max_answer_chars=20, number_tolerance=0.1, judge=judge)
    for answer, value in [("The cat.", 1.0), (None, 0.0), (" ", 0.0), ("cat " * 6, 0.0)]:
        assert grade(answer, "cat", "open", (), reward).value == value
    for answer in ("A or B or C", "A, B", "(a) and (b)", "A/B", "a b"):
        assert grade(answer, "cat", "open", (), reward).value == 0.0
    assert grade("101", "100", "open", (), reward).value == 1.0
    assert grade("B", "A", "choice", OPTIONS, reward).value == 0.0
    assert grade("cat", " ", "open", (), reward).status == "failed"
    assert grade("cat", "", "none", (), reward).status == "not_applicable"
    assert asked == []


def test_letters_are_judged_where_they_may_be_the_answer() -> None:
    asked, judge = judge_of(True, True)
    for answer, truth in (("B", "the letter B"), ("A and B", "A, B, as painted"), ("B, C", "C and B")):
        grade(answer, truth, "open", (), Accuracy(judge=judge))
    assert [answer for _, _, answer in asked] == ["B", "B, C"]


@pytest.mark.parametrize("answer", ["cat or dog", "dog or cat", "dog, cat", "dog/cat", "cat or dog or bird"])
def test_without_a_judge_alternatives_are_wrong(answer: str) -> None:
    assert grade(answer, "dog", "open", ()).value == 0.0


def test_an_answer_that_the_judge_cannot_judge_has_failed_and_is_no_0() -> None:
    def down(question: str, truth: str, answer: str) -> bool:
        raise TimeoutError("no reply in 30 s")

    for judge, reason in ((down, "TimeoutError: no reply in 30 s"), (judge_of(None)[1], "returned None")):
        score = grade("feline", "cat", "open", (), Accuracy(judge=judge))
        assert (score.status, score.parts) == ("failed", {}) and reason in score.reason
        assert score.value != score.value


@pytest.mark.parametrize(
    ("params", "message"),
    [({"max_answer_chars": 0}, "max_answer_chars=0"), ({"number_tolerance": -0.1}, "number_tolerance=-0.1")]
    + [({"number_tolerance": float("nan")}, "number_tolerance=nan"), ({"judge": "qwen"}, "judge='qwen'")],
)
def test_bad_parameters_are_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"accuracy\.{message}"):
        Accuracy(**params)


@given(st.text(alphabet="ABab().,: [or]and1twenty'%\n-é", max_size=30) | st.text(), st.sampled_from(["choice", "open"]))
def test_any_answer_is_graded(answer: str, kind: AnswerKind) -> None:
    assert grade(answer, "B", kind).value in (0.0, 1.0)


@given(st.integers(0, 9999))
def test_numbers_have_one_spelling(number: int) -> None:
    for spelling in (str(number), f"{number:,}", f"{number}.0", f"0{number}", in_words(number)):
        assert grade(spelling, str(number), "open", ()).value == 1.0
    assert grade(in_words(number), str(number + 1), "open", ()).value == 0.0


def in_words(number: int) -> str:
    ones = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    ones += [stem + "teen" for stem in ("thir", "four", "fif", "six", "seven", "eigh", "nine")]
    tens = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
    hundreds, rest = divmod(number, 100)
    if hundreds:
        if number % 1000 < 100 and number >= 1000:
            return str(number)  # "twenty hundred" is not how anybody writes 2,000
        return f"{in_words(hundreds)} hundred" + (f" and {in_words(rest)}" if rest else "")
    return ones[rest] if rest < 20 else tens[rest // 10] + (f"-{ones[rest % 10]}" if rest % 10 else "")
