"""Read answers the way a careful grader would: which option is meant, and when two free texts say the same.

Both readers never raise on any string and take time linear in the text, but for a run of thousands of combining marks,
whose normal form (NFKC) takes quadratic time; `Accuracy` reads answers of at most `max_answer_chars`.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

_LETTER = re.compile(r"\(([A-Za-z])\)|\[([A-Za-z])\]|([A-Za-z])[.:)]?")
_LABEL = re.compile(r"(?:\(([A-Za-z])\)|\[([A-Za-z])\])[.:]?\s*(?=\S)|([A-Z])[.:)]\s*(?=\S)|([a-z])[.:)]\s+(?=\S)")
_SECOND_LETTER = re.compile(
    r"(?<![^\W_])(?:[A-H]|(?<=[(\[])[a-h](?=[)\]])|(?<=\bor\s)[b-h]|(?<=\band\s)[b-h])(?![^\W_]|')"
)
_LIST_START = re.compile(r"(?:or|and)\b|[,;/&|+]", re.IGNORECASE)

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_WORD = re.compile(r"[^\W_]+")
_ARTICLES = frozenset({"a", "an", "the"})
_TOKEN = re.compile(
    r"(?P<sign>(?<![^\W_])[-\u2212](?=\.?[0-9]))?"
    r"(?P<number>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|(?<![0-9])\.[0-9]+)"
    r"|(?P<word>[^\W_]+)|(?P<percent>%)"
)
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_UNITS = {word: value for value, word in enumerate(_ONES)}
_TENS = {
    word: 10 * value
    for value, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)
}


def choice_letter(text: str, options: Sequence[str] = ()) -> str | None:
    """Return the upper-case letter of the option that a text names, or None when it does not name exactly one.

    Understood are the letter alone (`B`, `b`, `(B)`, `[B]`, `B.`, `B:`, `B)`), a label with the option's text
    (`B. a red car`) and the option's text alone. With options given, the letter must be one of theirs and the text
    after a label must be that option's own; without, the text may be anything that names no second letter.

    Args:
        text: an answer, as a model or a data set wrote it.
        options: texts of options A, B, C and so on, with or without their own labels.

    Example:
        >>> choice_letter("(b)"), choice_letter("A or B"), choice_letter("the red car", ["blue car", "red car"])
        ('B', None, 'B')
    """
    text = text.strip()
    if (alone := _LETTER.fullmatch(text)) is not None and (not options or _index(alone) < len(options)):
        return _letter(alone)
    label = _LABEL.match(text)
    if not options:
        return None if label is None or _names_another(text[label.end() :], _letter(label)) else _letter(label)
    bare = [_without_label(option, index) for index, option in enumerate(options)]
    if (index := _only(option.casefold().split() == text.casefold().split() for option in bare)) is not None:
        return chr(ord("A") + index)
    if label is not None:
        index = _index(label)
        return _letter(label) if index < len(bare) and same_text(text[label.end() :], bare[index]) else None
    index = _only(same_text(text, option) for option in bare)
    return None if index is None else chr(ord("A") + index)


def same_text(a: str, b: str) -> bool:
    """Say whether two answers are equal after normalisation; empty answers equal nothing."""
    normalised = normalise(a)
    return bool(normalised) and normalised == normalise(b)


def normalise(text: str) -> str:
    """Return a text in the form in which open answers are compared.

    Case, accents' encoding (NFKC), articles, punctuation and white space do not matter; numbers have one spelling:
    `3`, `three`, `3.0` and `03` are equal, as are `1,200` and `twelve hundred`, and `-3` is not `3`. A text of
    punctuation alone is kept, and so is a text of articles alone. What punctuation tells apart becomes equal: `C++` and
    `C`, `1/2` and `1 2`.

    Example:
        >>> normalise("The  Twenty-One cars."), normalise("$1,200.50")
        ('21 cars', '1200.5')
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    tokens = list(_merge_number_words(list(_tokens(folded.replace("'", "").replace("\u2019", "")))))
    kept = [token for token in tokens if token not in _ARTICLES] or tokens
    return " ".join(kept) or " ".join(folded.split())


def as_number(normalised: str) -> float | None:
    """Return the number that a normalised text is, or None when it is anything else or too large for a float.

    Example:
        >>> as_number(normalise("$1,200.50")), as_number(normalise("three")), as_number(normalise("3 cars"))
        (1200.5, 3.0, None)
    """
    if _NUMBER.fullmatch(normalised) is None:
        return None
    number = float(normalised)
    return number if math.isfinite(number) else None


def lists_letters(text: str) -> bool:
    """Say whether a text is nothing but several option letters, as in "A or B or C" and "(a), (b)"."""
    words = [word for word in _WORD.findall(text.casefold()) if word not in ("or", "and")]
    return len(words) > 1 and all(len(word) == 1 and "a" <= word <= "h" for word in words)


def _letter(match: re.Match[str]) -> str:
    assert match.lastindex is not None, "one of the groups has the letter"
    return match[match.lastindex].upper()


def _index(match: re.Match[str]) -> int:
    return ord(_letter(match)) - ord("A")


def _only(hits: Iterable[bool]) -> int | None:
    """Return the index of the only hit, or None when there is none or several."""
    found = [index for index, hit in enumerate(hits) if hit]
    return found[0] if len(found) == 1 else None


def _without_label(option: str, index: int) -> str:
    option = option.strip()
    label = _LABEL.match(option)
    return option[label.end() :] if label is not None and _index(label) == index else option


def _names_another(rest: str, letter: str) -> bool:
    """Say whether the text after a label names a second option, with the options unknown."""
    if _LIST_START.match(rest) is not None:
        return True
    if (alone := _LETTER.fullmatch(rest.strip())) is not None:
        return _letter(alone) != letter
    return any(match.group().upper() != letter for match in _SECOND_LETTER.finditer(rest))


def _tokens(text: str) -> Iterator[str]:
    for match in _TOKEN.finditer(text):
        if (number := match["number"]) is not None:
            canonical = _canonical_number(number)
            yield f"-{canonical}" if match["sign"] and canonical != "0" else canonical
        else:
            yield match["word"] or "percent"


def _canonical_number(number: str) -> str:
    whole, _, fraction = number.replace(",", "").partition(".")
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole


def _merge_number_words(tokens: list[str]) -> Iterator[str]:
    """Replace number words up to `ninety-nine hundred and ninety-nine` by digits."""
    position = 0
    while position < len(tokens):
        value, position_after = _small_number(tokens, position)
        if value is None:
            yield tokens[position]
            position += 1
            continue
        if value and tokens[position_after : position_after + 1] == ["hundred"]:
            value, position_after = 100 * value, position_after + 1
            joined = tokens[position_after : position_after + 1] == ["and"]
            rest, after_rest = _small_number(tokens, position_after + joined)
            if rest is not None:
                value, position_after = value + rest, after_rest
        yield str(value)
        position = position_after


def _small_number(tokens: list[str], position: int) -> tuple[int | None, int]:
    """Read 0 to 99 in words at `position`; return it and the position after it."""
    word = tokens[position] if position < len(tokens) else ""
    if word in _UNITS:
        return _UNITS[word], position + 1
    if word not in _TENS:
        return None, position
    unit = _UNITS.get(tokens[position + 1], 0) if position + 1 < len(tokens) else 0
    return (_TENS[word] + unit, position + 2) if 1 <= unit <= 9 else (_TENS[word], position + 1)
