"""Grading: the answer in what a model wrote, compared with the reference as a number."""

import re
from fractions import Fraction

_NUMBER = re.compile(
    r"[-−+]?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}(?!\d))?(?:\s?/\s?\d+)?"
)
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{([^{}]*)\}")


def last_boxed(text: str) -> str | None:
    """Return the content of the last complete `\\boxed{…}`, nested braces and all, or None."""
    for start in reversed([match.end() for match in re.finditer(r"\\boxed\s*\{", text)]):
        depth = 1
        for end in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                return text[start:end].strip()
    return None


def numbers(text: str) -> list[str]:
    """Return the numbers in a text, as they stand: signs, thousands separators, decimals, exponents, fractions."""
    found = []
    for match in _NUMBER.finditer(text):
        number = match.group()
        before = text[match.start() - 1] if match.start() else " "
        if number[0] in "-−+" and (before.isalnum() or before in ")]}"):
            number = number[1:]  # '7-3' has a 3 in it, no -3
        found.append(number)
    return found


def parse_number(text: str) -> Fraction | None:
    """Return the exact value of an answer such as `1,234.50`, `$-3`, `\\frac{1}{2}`, `3/4` or `12 apples`, or None.

    Text around the number is passed over; an answer with several different numbers in it has no value.
    """
    plain = _LATEX_FRACTION.sub(r"\1/\2", text)
    plain = _LATEX_TEXT.sub(r" \1 ", plain)
    plain = plain.replace("\\!", "").replace("\\,", "").replace("{,}", ",").replace("\\$", "").replace("$", "")
    plain = plain.replace("£", "").replace("€", "")
    values = {_value(number) for number in numbers(plain)}
    return values.pop() if len(values) == 1 else None


def _value(number: str) -> Fraction | None:
    number = number.replace(",", "").replace("−", "-").replace(" ", "").lstrip("+")
    top, _, bottom = number.partition("/")
    try:
        return Fraction(top) / Fraction(bottom or 1)
    except ZeroDivisionError:
        return None


def predicted_answer(text: str, finished: bool) -> str | None:
    """Return the answer a trace gives: its last `\\boxed{}`, else, if it was finished, its last number, else None.

    In a truncated trace the last number is whatever the model was writing just then, so it is no answer.
    """
    boxed = last_boxed(text)
    if boxed:
        return boxed
    found = numbers(text) if finished else []
    return found[-1] if found else None


def is_correct(predicted: str | None, reference: str, finished: bool) -> bool | None:
    """Compare a predicted answer with the reference: as numbers where both are, else as text without blanks and case.

    None when there is no answer because the trace was truncated; False when a finished trace gives none.
    """
    if predicted is None:
        return False if finished else None
    ours, theirs = parse_number(predicted), parse_number(reference)
    if theirs is not None:
        return ours == theirs
    return re.sub(r"\s", "", predicted).casefold() == re.sub(r"\s", "", reference).casefold()
