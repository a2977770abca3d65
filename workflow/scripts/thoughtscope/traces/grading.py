"""Grading: the answer in what a model wrote, compared with the reference as a number."""

import re
from fractions import Fraction

_NUMBER = re.compile(
    r"[-−+]?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}(?!\d))?(?:\s?/\s?\d+)?"
)
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{([^{}]*)\}")


def last_boxed(text: str) -> str | None:
    """Return the content of the last complete `\\boxed{…}` that isn't empty, nested braces and all, or None."""
    for start in reversed([match.end() for match in re.finditer(r"\\boxed\s*\{", text)]):
        depth = 1
        for end in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                if content := text[start:end].strip():
                    return content
                break
    return None


def _plain(text: str) -> str:
    """Return text without the LaTeX and the currency signs that stand around and inside numbers."""
    text = _LATEX_FRACTION.sub(r"\1/\2", text)
    text = _LATEX_TEXT.sub(r" \1 ", text)
    for mark in ("\\!", "\\,", "\\$", "$", "£", "€"):
        text = text.replace(mark, "")
    return text.replace("{,}", ",")


def numbers(text: str) -> list[str]:
    """Return the numbers in a text: signs, thousands separators, decimals, exponents and fractions as they stand."""
    plain = _plain(text)
    found = []
    for match in _NUMBER.finditer(plain):
        number = match.group()
        before = plain[match.start() - 1] if match.start() else " "
        if number[0] in "-−+" and (before.isalnum() or before in ")]}"):
            number = number[1:]  # '7-3' has a 3 in it, no -3
        found.append(number)
    return found


def parse_number(text: str) -> Fraction | None:
    """Return the exact value of an answer such as `1,234.50`, `$-3`, `\\frac{1}{2}`, `3/4` or `12 apples`, or None.

    Text around the number is passed over; an answer with several different numbers in it has no value.
    """
    values = {_value(number) for number in numbers(text)}
    return values.pop() if len(values) == 1 else None


def _value(number: str) -> Fraction | None:
    number = number.replace(",", "").replace("−", "-").replace(" ", "").lstrip("+")
    top, _, bottom = number.partition("/")
    try:
        return Fraction(top) / Fraction(bottom or 1)
    except (ZeroDivisionError, ValueError):  # ValueError: thousands of digits, from a model that got stuck
        return None


def grade(text: str, finished: bool, reference: str) -> tuple[str | None, bool | None]:
    """Return the answer a trace gives, and whether it is the reference's.

    The answer is the last `\\boxed{}`, else the last number. It is compared as a number where the reference is one,
    else as text without blanks and case. In a truncated trace the last number is whatever the model was writing just
    then; without a box nothing was answered, and correctness is None. A finished trace without an answer is wrong.
    """
    boxed = last_boxed(text)
    found = numbers(text)
    predicted = boxed or (found[-1] if found else None)
    if not finished and boxed is None:
        return predicted, None
    if predicted is None:
        return None, False
    theirs = parse_number(reference)
    if theirs is not None:
        return predicted, parse_number(predicted) == theirs
    return predicted, re.sub(r"\s", "", predicted).casefold() == re.sub(r"\s", "", reference).casefold()
