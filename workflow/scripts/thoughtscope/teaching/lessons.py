"""Lessons: problems with what a model is to write on them, in any number, from a seed.

Problems of a study and of lessons are disjoint: a problem's numbers say which of the two it is for.
"""

import random
import zlib
from collections.abc import Iterator, Sequence

import polars as pl

from ..config import LESSON_MARKERS
from ..frames import Schema
from .grammar import Problem, after_clause, problem, steps, thinking

STUDIED = 4
"""One problem in so many is for studies, the others are for lessons."""


AT_ONCE = 4
"""One lesson in so many is one of answering at once, under the conditions after the first in turn."""

SCHEMA = Schema(
    "a lesson, in the order in which they are drawn",
    lesson_id=(pl.UInt32, "the lesson"),
    condition=(pl.String, "the condition whose prompt it is given under"),
    question=(pl.String, "the question"),
    written=(pl.String, "what the model is to write"),
)


def table(number: int, seed: int, kind: str, conditions: Sequence[str]) -> pl.DataFrame:
    """Return lessons of a kind: under the first condition with a thinking, under the others answered at once."""
    rows = []
    tasks = problems(seed, studied=False)
    for index in range(number):
        task, draw = next(tasks)
        others = conditions[1:] if index % AT_ONCE == AT_ONCE - 1 else ()
        condition = others[index // AT_ONCE % len(others)] if others else conditions[0]
        written = lesson(task, draw, kind=kind, answer_at_once=condition != conditions[0])
        rows.append((index, condition, task.question, written))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def is_studied(task: Problem) -> bool:
    """Return whether a problem is for studies and never in a lesson, by its numbers alone."""
    numbers = f"{task.start}{''.join(f'{step.sign}{step.number}' for step in task.steps)}"
    return zlib.crc32(numbers.encode()) % STUDIED == 0


def problems(seed: int, studied: bool) -> Iterator[tuple[Problem, random.Random]]:
    """Draw problems without end, of those for studies or of those for lessons, each with what draws its lesson."""
    draw = random.Random(f"lessons {seed}")  # noqa: S311
    while True:
        task = problem(draw)
        if is_studied(task) == studied:
            yield task, random.Random(draw.getrandbits(64))  # noqa: S311


KINDS = ("states", "scattered")
"""Kinds of lessons: thinking with states, and the sham, in which the words of states stand where no state is."""


def lesson(task: Problem, draw: random.Random, *, kind: str, answer_at_once: bool) -> str:
    """Return what a model is to write on a problem: its thinking, of one of KINDS, between markers, and the answer.

    `answer_at_once`: with an empty thinking.
    """
    if answer_at_once:
        thought = ""
    elif kind == "scattered":
        thought = _scattered(task, draw) + "\n"
    else:
        thought = _joined([sentence.text for sentence in thinking(task, draw)], draw) + "\n"
    answer = f"{task.name} has {task.answer} {task.thing}: \\boxed{{{task.answer}}}"
    return f"{LESSON_MARKERS['open']}\n{thought}{LESSON_MARKERS['close']}\n{answer}"


def _joined(parts: list[str], draw: random.Random) -> str:
    """Join sentences by blanks or line ends, at random, so that a line is no state."""
    return "".join(part + draw.choice(" \n") for part in parts)[:-1]


def _scattered(task: Problem, draw: random.Random) -> str:
    """Write down a problem's steps twice, with openers between any two words, as many a word as a thinking has."""
    real = thinking(task, draw)
    openers = [sentence.opener for sentence in real if sentence.state != "calculate"]
    openers += [after_clause(sentence) for sentence in real if sentence[:2] == ("calculate", "lexicon")]
    words = sum(len(sentence.text.split()) for sentence in real) - sum(len(opener.split()) for opener in openers)
    scattered = []
    for sentence in steps(task) * 2:
        written = []
        for word in sentence.split():
            while draw.random() < len(openers) / (words + len(openers)):  # any number of them in a row
                written.append(draw.choice(openers))
            written.append(word)
        scattered.append(" ".join(written))
    return _joined(scattered, draw)
