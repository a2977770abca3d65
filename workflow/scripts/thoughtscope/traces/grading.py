"""Grading: the answer in what a model wrote, compared with the reference."""

import re

from . import answers

_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_NUMBER = re.compile(
    r"[-−–]?(?:\d+\s\d+/\d+|(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}(?!\d))?(?:\s?/\s?\d+)?"
)
_AROUND = "*_`\"'“”,.;:!?"
"""What stands around a number in a sentence, in Markdown perhaps, and isn't part of it."""


def last_boxed(text: str) -> str | None:
    """Return the content of the last complete `\\boxed{…}` that isn't empty, nested braces and all, or None."""
    boxes = {match.end() - 1 for match in re.finditer(r"\\boxed\s*\{", text)}
    last, found, opened = -1, None, []
    for place in (match.start() for match in re.finditer("[{}]", text)) if boxes else ():
        if text[place] == "{":
            opened.append(place)
        elif opened:
            start = opened.pop()
            if start in boxes and start > last and (content := text[start + 1 : place].strip()):
                last, found = start, content
    return found


def last_number(text: str) -> tuple[str, str] | None:
    """Return the last number in a text, as it stands, and with all that touches it: `5` and `x=5`, of `so x=5.`."""
    for mark in ("\\$", "$", "£", "€"):
        text = text.replace(mark, "")
    text = _LATEX_FRACTION.sub(r"\1/\2", text).replace("{,}", ",")
    every = list(_NUMBER.finditer(text))
    if not every:
        return None
    found = every[-1]
    start, end = found.span()
    while start and not text[start - 1].isspace():
        start -= 1
    while end < len(text) and not text[end].isspace():
        end += 1
    number = found.group()
    before = text[found.start() - 1] if found.start() else " "
    if number[0] in "-−–" and (before.isalnum() or before in ")]}"):
        number = number[1:]  # '7-3' has a 3 in it, no -3
    if re.search(r"\d\s$", text[max(0, start - 2) : start]):
        start = max(0, start - 8)  # of a number with blanks in it, or of two
    around = text[start:end].rpartition("=")[2].strip(_AROUND)
    for mark, other in ("()", "[]"):
        if around.count(mark) != around.count(other):
            around = around.strip(mark + other)
    return number, around.strip(_AROUND)


def grade(text: str, finished: bool, reference: str) -> tuple[str | None, bool | None]:
    """Return the answer a trace gives, and whether it is the reference's; None where that can't be said.

    The answer is the last `\\boxed{}`, else the last number. Where both can be read (`answers.value`) they are
    compared as exact numbers; otherwise as text, without blanks, case and LaTeX's styles: the same text is right, a
    word or letter in place of another is wrong, and all else isn't graded. In a truncated trace the last number is
    whatever the model was writing just then; without a box nothing was answered. A finished trace without an answer is
    wrong.
    """
    boxed = last_boxed(text)
    number = last_number(text) if boxed is None else None
    predicted = boxed or (number[0] if number else None)
    if not finished and boxed is None:
        return predicted, None
    if predicted is None:
        return None, False
    given = boxed or (number[1] if number else predicted)
    ours, theirs = answers.value(given), answers.value(reference)
    if ours is not None and theirs is not None:
        return predicted, ours == theirs
    if answers.choice(given) == answers.choice(reference):
        return predicted, True
    both_words = all(re.fullmatch(r"[^\W\d_]+", answers.choice(side)) for side in (given, reference))
    return predicted, False if both_words else None
