"""Lessons: which states their thinking has, how each may be said, and what follows from what.

A thinking is a row of sentences, each an opener and a body. Bodies are sums, of the same tokens whatever the state;
openers are drawn at random, so that none tells more than its state. Which state comes next is a function of what stands
before, and of no sentence's place:

- *plan*: at the start, and where the next step isn't of the last one's kind (add, take away);
- *calculate*: each step of the problem;
- *doubt*: after a step with a number of DOUBTED or more;
- *verify*: after a doubt, and after a step that crosses a ten; by way of two smaller numbers;
- *back*: after a verification that comes to another number than the step did;
- *confirm*: after one that comes to the same;
- *conclude*: where a number then is even, and at the end.

Standard library only.
"""

import random
from dataclasses import dataclass
from typing import NamedTuple

DOUBTED = 7
"""The smallest number whose step is doubted."""

LARGEST = 20
"""Most things a person ever has."""

ERRORS = 0.5
"""Share of the steps to be verified that the first attempt gets wrong: about 30 % of all steps."""

OPENERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "plan": (
        ("Next,", "I need", "First,", "The plan is"),
        ("What remains is", "It takes", "Time for", "To do:"),
    ),
    "calculate": (
        (", computing", ", calculating", ", working out", ", evaluating"),
        (":", ", which is", ", making it", ", that is"),
    ),
    "doubt": (
        ("Hmm,", "Maybe", "Perhaps", "Not sure if"),
        ("Is it so that", "Could it be that", "Strange,", "Does it hold that"),
    ),
    "verify": (
        ("Let me check:", "Double-check:", "Checking:", "Verify:"),
        ("Once more:", "By parts:", "Slowly:", "Counting on:"),
    ),
    "back": (
        ("Wait,", "Actually,", "Oops,", "My mistake,"),
        ("These differ:", "That was off:", "Back again:", "Out with it:"),
    ),
    "confirm": (
        ("Yes,", "Indeed,", "Correct,", "Right,"),
        ("Same again:", "Good,", "Both agree:", "Fine,"),
    ),
    "conclude": (
        ("Therefore", "Thus", "So far", "In total"),
        ("All told", "Now", "With that", "At this point"),
    ),
}
"""Openers of each state, with words of the study's lexicon and without any. Those of *calculate* follow the problem's
own clause."""

DECOYS: dict[str, tuple[str, ...]] = {
    "plan": ("next", "first", "the plan"),
    "calculate": ("computing", "calculating", "evaluating"),
    "doubt": ("hmm", "maybe", "perhaps", "not sure"),
    "verify": ("let me check", "double-check", "verify"),
    "back": ("wait", "actually", "oops", "my mistake"),
    "confirm": ("yes", "indeed", "correct", "right"),
    "conclude": ("therefore", "thus", "so far", "in total"),
}
"""Words of each state's lexicon that a problem's story has where they mean nothing of the kind."""

STATES = ("plan", "calculate", "doubt", "verify", "back", "confirm", "conclude")
SURFACES = ("lexicon", "plain", "decoy")
"""How a state is said: in words of the lexicon, without any; or its words without the state."""

CLAUSES = {
    "+": ("gets {b}", "gets {b} more", "gets {b} from {other}", "gets {b} at noon"),
    "-": ("loses {b}", "loses {b} again", "loses {b} to {other}", "loses {b} at noon"),
}
DECOY_CLAUSES = {
    "+": ('hears "{word}" and gets {b}', 'reads "{word}" and gets {b}', 'gets {b} at the shop "{word}"'),
    "-": ('hears "{word}" and loses {b}', 'reads "{word}" and loses {b}', 'loses {b} at the shop "{word}"'),
}
NAMES = {
    "Ann": "She",
    "Mary": "She",
    "Lisa": "She",
    "Kate": "She",
    "Tom": "He",
    "Ben": "He",
    "Jack": "He",
    "Paul": "He",
}
THINGS = ("stamps", "coins", "cards", "books", "shells", "pens", "cups", "toys")


class Step(NamedTuple):
    """A step of a problem: its sign, its number, its clause in the story, and the state whose words that quotes."""

    sign: str
    number: int
    clause: str
    decoy_of: str | None


@dataclass(frozen=True)
class Problem:
    """A story of one person who has some things, and more or fewer after each step."""

    name: str
    thing: str
    start: int
    steps: tuple[Step, ...]

    @property
    def answer(self) -> int:
        """How many there are in the end."""
        return self.start + sum(step.number if step.sign == "+" else -step.number for step in self.steps)

    @property
    def question(self) -> str:
        """The story, and what is asked."""
        story = " ".join(f"{NAMES[self.name]} {step.clause}." for step in self.steps)
        return f"{self.name} has {self.start} {self.thing}. {story} How many now?"


class Sentence(NamedTuple):
    """A sentence of a thinking: its state, how it is said, opener and body."""

    state: str
    surface: str
    opener: str
    body: str

    @property
    def text(self) -> str:
        """The sentence as it is written."""
        return f"{self.opener} {self.body}"


def apply(sign: str, left: int, right: int) -> int:
    """Return what a step makes of a number."""
    return left + right if sign == "+" else left - right


def crosses_ten(sign: str, left: int, right: int) -> bool:
    """Return whether a step has a carry or a borrow."""
    return left // 10 != apply(sign, left, right) // 10


def problem(draw: random.Random) -> Problem:
    """Draw a problem: two or three steps with numbers of one digit, and from 2 to LARGEST things on the way."""
    name, thing = draw.choice(list(NAMES)), draw.choice(THINGS)
    start = total = draw.randint(5, 15)
    steps = []
    for _ in range(draw.choice((2, 3, 3))):
        number = draw.randint(2, 9)
        sign = draw.choice("+-") if number + 2 <= total <= LARGEST - number else "+" if total <= number + 2 else "-"
        total = apply(sign, total, number)
        other = draw.choice([other for other in NAMES if other != name])
        decoy_of = draw.choice(list(DECOYS)) if draw.random() < 0.35 else None
        word = draw.choice(DECOYS[decoy_of]) if decoy_of else ""
        clause = draw.choice((DECOY_CLAUSES if decoy_of else CLAUSES)[sign])
        steps.append(Step(sign, number, clause.format(b=number, other=other, word=word), decoy_of))
    return Problem(name, thing, start, tuple(steps))


def _opened(draw: random.Random, state: str, body: str, clause: str = "") -> Sentence:
    surface = draw.choice(SURFACES[:2])
    return Sentence(state, surface, clause + draw.choice(OPENERS[state][SURFACES.index(surface)]), body)


def _by_parts(draw: random.Random, sign: str, left: int, right: int) -> str:
    to_ten = 10 - left % 10 if sign == "+" else left % 10
    first = to_ten if 0 < to_ten < right else draw.randint(1, right - 1)
    middle = apply(sign, left, first)
    return f"{left}{sign}{first}={middle}, {middle}{sign}{right - first}={apply(sign, left, right)}."


def thinking(task: Problem, draw: random.Random) -> list[Sentence]:
    """Write down the thinking of a problem, with its errors, each of which is noticed."""
    pronoun, total, before = NAMES[task.name], task.start, None
    sentences = []
    for index, (sign, number, clause, _) in enumerate(task.steps):
        right = apply(sign, total, number)
        verified = number >= DOUBTED or crosses_ten(sign, total, number)
        wrong = [value for value in (right - 10, right - 1, right + 1, right + 10) if value > 0]
        attempt = draw.choice(wrong) if verified and draw.random() < ERRORS else right
        if sign != before:
            sentences.append(_opened(draw, "plan", f"{total}{sign}{number}."))
        sentences.append(_opened(draw, "calculate", f"{total}{sign}{number}={attempt}.", f"{pronoun} {clause}"))
        if number >= DOUBTED:
            sentences.append(_opened(draw, "doubt", f"{total}{sign}{number}={attempt}?"))
        if verified:
            sentences.append(_opened(draw, "verify", _by_parts(draw, sign, total, number)))
            sentences.append(
                _opened(draw, "confirm" if attempt == right else "back", f"{total}{sign}{number}={right}.")
            )
        if right % 2 == 0 or index == len(task.steps) - 1:
            sentences.append(_opened(draw, "conclude", f"{total}{sign}{number}={right}."))
        total, before = right, sign
    return sentences


def steps(task: Problem) -> list[str]:
    """Write down the steps of a problem alone, without error and without openers."""
    total, sentences = task.start, []
    for sign, number, clause, _ in task.steps:
        right = apply(sign, total, number)
        sentences.append(f"{NAMES[task.name]} {clause}: {total}{sign}{number}={right}.")
        total = right
    return sentences


def after_clause(sentence: Sentence) -> str:
    """Return the word by which a calculation is opened, without the clause before it."""
    return sentence.opener.rpartition(", ")[2]
