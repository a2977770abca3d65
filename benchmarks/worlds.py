"""Worlds of text with known truth: traces, what latents do on them, and which of them follow thinking patterns.

A test that links latents to thinking patterns sees words alone; whether a latent follows the thinking is in no table of
a real study. In a world it is known. Its text has episodes, each a stretch of one pattern's thinking; most of them, not
all, hold a word of the pattern's lexicon, and some words stand outside of any (decoys). KINDS says what latents do:

- `null: …` follow the text (places, token types, digits), themselves, or something that both conditions share;
- `untold: …` do so too, in ways that an adjustment for token types and places isn't told of;
- `true: …` follow the episodes of one pattern;
- `filler` latents make up the rest of what is active on a token.

Except where a kind's name or BOTH says otherwise they are active under `reason` alone: a control can't tell them apart.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow" / "scripts"))

from thoughtscope import vocabulary
from thoughtscope.config import SEGMENTS
from thoughtscope.readings import activations
from thoughtscope.traces import generate

CONDITIONS = ("reason", "direct")

LEXICON = {
    "reflection": ["wait", "actually", "let me check"],
    "uncertainty": ["hmm", "maybe", "not sure"],
    "planning": ["first", "next", "let me find"],
    "conclusion": ["therefore", "thus", "so the answer"],
    "calculation": [r"/\d+\s*[-+*=]\s*\d+/"],
}
"""Words and phrases of each pattern, as the config has them."""

PATTERNS = tuple(name for name in LEXICON if name != "calculation")
"""Those that have episodes."""

# Text.

COMMON = ["the", "to", "is", "I", "of", "a", "and", "that", "in", "me", "we", "it", "so", "for"]
VERBS = ["see", "check", "find", "try", "count", "add", "look", "work"]
PLAIN_VERBS = [verb for verb in VERBS if not any(verb in entry.split() for name in PATTERNS for entry in LEXICON[name])]
"""Those that follow `let me` outside the lexicon, too."""

PAIRS = [("of", "the"), ("in", "the"), ("is", "a"), ("that", "is"), ("to", "see"), ("we", "have")]
"""Common words that often follow one another."""

TOPICS = [
    ["apples", "price", "dollars", "store", "sold", "buys", "cost", "box", "boxes", "money", "bag", "pays"],
    ["train", "miles", "hours", "road", "speed", "city", "bus", "drive", "trip", "fast", "north", "station"],
    ["students", "class", "books", "teacher", "pages", "desk", "pencils", "girls", "boys", "lesson", "grade", "test"],
    ["eggs", "cows", "field", "farmer", "milk", "hens", "barn", "corn", "acres", "sheep", "fence", "rows"],
]
"""Words of the topics that lines have, besides all others."""

_OTHERS = """
    let have each number with total are this be then can on not how many need more what as one by from there will
    all was but per two if at out or answer says which half much left day time does they has now also twice equal
    only than after would since over sure other because up some same when into given just problem three every last
    part means both rest still before value right hold way thing most less where people week should already together
    four between under group back another again those being while set point until write line case form side sum
    whole second third small large full start end extra amount times size step note fact simple common list match
    keep share tell ask put go come turn move call show want seem leave begin help run bring happen carry reach
    follow stop open close read spend grow win offer remember consider appear buy serve send build stay fall cut
    kill raise pass sell require report decide pull old new good great high long little own big early young
    important public able free clear hard easy real certain low late general strong possible true special single
    likely current final main entire nice happy ready exact round level order table water room hand house name place
    year month minute hour morning night color shape piece stack pair dozen quarter fraction product ratio rate
"""
_AMONG = [word for pair in zip(_OTHERS.split(), VERBS, strict=False) for word in pair]
WORDS = list(dict.fromkeys([*COMMON, *_AMONG, *_OTHERS.split()]))
"""Words by falling frequency, without those of topics and the lexicon's own."""


class _Vocabulary:
    """Token ids: of marks, of digits, and of each word within a line, at a sentence's start and at a line's start."""

    END, STOP, COMMA, BREAK = range(4)

    def __init__(self) -> None:
        marks = ["<|end|>", ".", ",", "\n"]
        self.first_digits = np.arange(10) + len(marks)
        self.digits = self.first_digits + 10
        texts = [*marks, *(f" {digit}" for digit in range(10)), *map(str, range(10)), " +", " -", " *", " ="]
        self.operators, self.equals = np.arange(len(texts) - 4, len(texts) - 1), len(texts) - 1
        of_lexicon = [word for name in PATTERNS for entry in LEXICON[name] for word in entry.split()]
        self.words = list(dict.fromkeys([*WORDS, *(word for topic in TOPICS for word in topic), *of_lexicon]))
        self.index = {word: index for index, word in enumerate(self.words)}
        ids = {text: token for token, text in enumerate(texts)}
        forms = []
        for word in self.words:
            capital = word[0].upper() + word[1:]
            forms.append([ids.setdefault(text, len(ids)) for text in (f" {word}", f" {capital}", capital)])
        self.forms = np.array(forms)
        """(words, 3)."""
        self.texts = list(ids)
        self.word = np.full(len(ids), -1)
        """Each token's word, -1 if it is none."""
        for column in self.forms.T:
            self.word[column] = np.arange(len(forms))
        self.is_digit = np.isin(np.arange(len(ids)), [*self.first_digits, *self.digits])

    def of(self, words: list[str]) -> NDArray[np.int64]:
        return np.array([self.index[word] for word in words])

    def table(self) -> pl.DataFrame:
        pieces = [text.replace(" ", "Ġ").replace("\n", "Ċ") for text in self.texts]
        labels = [vocabulary.label(text) for text in self.texts]
        columns = {"token_id": range(len(pieces)), "piece": pieces, "text": self.texts, "token": labels}
        return pl.DataFrame(columns, schema=vocabulary.SCHEMA)


_V = _Vocabulary()
_ZIPF = np.cumsum(1 / (np.arange(len(WORDS)) + 3.7))
_EQUATIONS = ["DoDeD", "DdoDeDd", "DdoDdeDd", "DoDeDd", "DoDoDeDd"]
"""Forms of equations: a number's first digit and its second, an operator, an equals sign."""
_CODES = np.array([[ord(code) for code in form.ljust(9)] for form in _EQUATIONS])


class Word(NamedTuple):
    """A word or phrase of the lexicon in the text: which tokens, of all, and whether it is in a pattern's episode."""

    start: int
    end: int
    pattern: int
    entry: str
    inside: bool


class Episode(NamedTuple):
    """An episode: which tokens, of all, its pattern, and its word if it has one."""

    start: int
    end: int
    pattern: int
    word: Word | None


@dataclass
class Text:
    """Generated tokens of all traces, those of `reason` first; all arrays are (tokens,) unless they say otherwise."""

    token: NDArray[np.int64]
    owner: NDArray[np.int64]
    """Whose it is: traces of `reason`, then those of `direct`."""
    starts: NDArray[np.int64]
    """(owners + 1,)."""
    reason: NDArray[np.bool_]
    answer: NDArray[np.bool_]
    at: NDArray[np.int64]
    """Place in the segment, from 0."""
    left: NDArray[np.int64]
    """Tokens of the segment after it."""
    offset: NDArray[np.int64]
    """Place in the sentence, from 0."""
    size: NDArray[np.int64]
    """Tokens of the sentence, a line break after it not counted."""
    nth: NDArray[np.int64]
    """Place of the sentence in its line, from 0."""
    topic: NDArray[np.int64]
    """The line's topic."""
    episode: NDArray[np.int64]
    """The pattern whose episode it is in, or -1."""
    into: NDArray[np.int64]
    """Place in the episode, from 0, or -1."""
    episodes: list[Episode]
    words: list[Word]

    @property
    def is_word(self) -> NDArray[np.bool_]:
        return _V.word[self.token] >= 0

    def after(self, mask: NDArray[np.bool_], tokens: int = 1) -> NDArray[np.bool_]:
        """Return which tokens come so many after those of a mask, in the same trace."""
        moved = np.zeros_like(mask)
        moved[tokens:] = mask[:-tokens] & (self.owner[:-tokens] == self.owner[tokens:])
        return moved

    def around(self, pattern: int, before: int, after: int, *, from_end: bool) -> NDArray[np.bool_]:
        """Return which tokens are from so many before to so many after the words in the pattern's episodes."""
        mask = np.zeros(len(self.token), dtype=bool)
        for word in self.words:
            if word.inside and word.pattern == pattern:
                low, high = self.starts[self.owner[word.start]], self.starts[self.owner[word.start] + 1]
                end = (word.end if from_end else word.start) + after
                mask[max(word.start - before, low) : max(min(end, high), low)] = True
        return mask


def _texts(
    chance: np.random.Generator, traces: int, length: float, thinks: float, decoys: float, tangled: float
) -> Text:
    """Write all traces of both conditions."""
    # More episodes make a longer trace. The control has as many tokens as if it had thought, times `length`.
    hardness = np.tile(chance.lognormal(-0.03, 0.25, traces), 2)
    counts = chance.poisson(0.54 * hardness[:, None], (2 * traces, len(PATTERNS)))
    scale = np.repeat([1, length], traces)
    think = (95 + 36 * counts.sum(axis=1)) * chance.lognormal(-0.02, 0.2, 2 * traces) * scale
    answer = chance.integers(20, 41, 2 * traces) * scale
    sizes = np.column_stack([np.maximum(think, 14), np.maximum(answer, 8)]).round().astype(np.int64)
    text = _sentences(chance, sizes)
    thought = np.floor(counts * np.repeat([1, length * thinks], traces)[:, None] + chance.random(counts.shape))
    placed = []
    for owner, numbers in enumerate(thought.astype(np.int64)):
        placed += _placed(chance, np.repeat(np.arange(len(PATTERNS)), numbers), sizes[owner, 0], text.starts[owner],
                          tangled)  # fmt: skip
    for start, end, pattern in placed:
        text.episode[start:end], text.into[start:end] = pattern, np.arange(end - start)
    _plant(chance, text, placed, decoys)
    return text


def _sentences(chance: np.random.Generator, sizes: NDArray[np.int64]) -> Text:
    """Write traces of sentences, without any word of the lexicon. sizes: (owners, 2), tokens of the segments."""
    runs = sizes.ravel()
    # Sentences, more than it takes: each segment's are cut at its end.
    drawn = runs // 5 + 2
    run = np.repeat(np.arange(len(runs)), drawn)
    firsts = np.cumsum(drawn) - drawn
    index = np.arange(len(run)) - firsts[run]
    lines = np.cumsum(chance.integers(1, 4, len(run)))
    line = np.searchsorted(lines, np.arange(len(run)), side="right")
    nth = np.arange(len(run)) - np.maximum((lines - np.diff(lines, prepend=0))[line], firsts[run])
    topic = chance.integers(0, len(TOPICS), len(lines))[line]
    # Arithmetic comes and goes along a trace, and differs between traces.
    phase, waves, much = chance.random((3, len(runs)))
    along = np.sin(2 * np.pi * (phase[run] + (0.5 + waves[run]) * index * 9.5 / runs[run]))
    dense = (0.25 + 0.4 * much[run]) * (1 + along) / 2
    arithmetic = chance.random(len(run)) < dense
    form, lead = chance.integers(0, len(_EQUATIONS), len(run)), chance.integers(1, 4, len(run))
    size = np.where(arithmetic, lead + np.array([len(form) for form in _EQUATIONS])[form] + 1,
                    chance.integers(5, 15, len(run)))  # fmt: skip
    let_me = ~arithmetic & (chance.random(len(run)) < 0.06)
    breaks = np.append(line[1:] != line[:-1], True)
    taken = size + breaks
    start = np.cumsum(taken) - taken
    start -= start[firsts][run]
    kept = (index == 0) | (start < runs[run] - 4)
    last = kept & ~np.append(kept[1:] & (run[1:] == run[:-1]), False)
    taken = np.where(last, runs[run] - start, taken)[kept]
    size, breaks = np.where(last, runs[run] - start - 1, size)[kept], (breaks | last)[kept]
    run, nth, topic, form, lead = run[kept], nth[kept], topic[kept], form[kept], lead[kept]
    arithmetic, let_me, dense = arithmetic[kept], let_me[kept], dense[kept]
    # Where a sentence has a comma and a number, if it has.
    roomy = ~arithmetic & (size > 6)
    comma = np.where(roomy & (chance.random(len(run)) < 0.45), chance.integers(3, np.maximum(size - 2, 4)), -1)
    number = np.where(~arithmetic & (chance.random(len(run)) < 0.1 + dense), chance.integers(3, size + 3), -1)

    sentence = np.repeat(np.arange(len(run)), taken)
    offset = np.arange(len(sentence)) - (np.cumsum(taken) - taken)[sentence]
    of_run, length = run[sentence], size[sentence]
    word = np.searchsorted(_ZIPF, chance.random(len(sentence)) * _ZIPF[-1])
    special = np.array([_V.of(words) for words in TOPICS])[topic[sentence], chance.integers(0, 12, len(sentence))]
    word = np.where(chance.random(len(sentence)) < 0.15, special, word)
    for position, words in enumerate((["let"], ["me"], PLAIN_VERBS)):
        chosen = let_me[sentence] & (offset == position)
        word[chosen] = chance.choice(_V.of(words), chosen.sum())
    often = chance.random(len(sentence)) < 0.3
    for first, second in PAIRS:
        follows = np.append(False, word[:-1] == _V.index[first]) & often & (offset > 0) & ~let_me[sentence]
        word[follows] = _V.index[second]
    # No phrase of the lexicon by chance.
    for phrase in (entry.split() for name in PATTERNS for entry in LEXICON[name] if " " in entry):
        hits = np.ones(len(word) - len(phrase) + 1, dtype=bool)
        for position, name in enumerate(phrase):
            hits &= word[position : len(hits) + position] == _V.index[name]
        word[np.flatnonzero(hits) + len(phrase) - 1] = _V.index["and"]

    opens = (offset == 0) & np.append(True, breaks[sentence][:-1])
    token = _V.forms[word, np.where(opens, 2, np.where(offset == 0, 1, 0))]
    place = offset - lead[sentence]
    inside = arithmetic[sentence] & (place >= 0) & (offset < length - 1)
    code = np.where(inside, _CODES[form[sentence], np.clip(place, 0, 8)], ord(" "))
    digit = chance.integers(0, 10, len(token))
    for letter, ids in (("D", _V.first_digits[digit]), ("d", _V.digits[digit]), ("e", _V.equals),
                        ("o", _V.operators[digit % 3])):  # fmt: skip
        token = np.where(code == ord(letter), ids, token)
    token = np.where(offset == number[sentence], _V.first_digits[digit], token)
    token = np.where(offset == comma[sentence], _V.COMMA, token)
    token = np.where(offset == length - 1, _V.STOP, np.where(offset == length, _V.BREAK, token))
    ends = np.cumsum(runs)
    token[ends[1::2] - 1] = _V.END
    owner = of_run // 2
    at = np.arange(len(token)) - (ends - runs)[of_run]
    return Text(
        token=token, owner=owner, starts=np.append(0, ends[1::2]), reason=owner < len(sizes) // 2,
        answer=of_run % 2 == 1, at=at, left=runs[of_run] - 1 - at, offset=offset, size=length, nth=nth[sentence],
        topic=topic[sentence], episode=np.full(len(token), -1), into=np.full(len(token), -1), episodes=[], words=[],
    )  # fmt: skip


def _placed(
    chance: np.random.Generator, patterns: NDArray[np.int64], room: int, first: int, tangled: float
) -> list[tuple[int, int, int]]:
    """Place episodes of these patterns on the `room` tokens from `first` on: start, end and pattern of each."""
    patterns = chance.permutation(patterns)
    lengths = chance.integers(10, 41, len(patterns))
    # In a short segment the last is cut, or left out.
    lengths = np.minimum(lengths, int(0.9 * room) - np.cumsum(lengths) + lengths)
    patterns, lengths = patterns[lengths >= 10], lengths[lengths >= 10]
    if not len(patterns):
        return []
    edge = np.zeros(len(patterns), dtype=np.int64)
    if tangled:
        fixed = chance.random(len(patterns)) < tangled
        edge[fixed & (patterns == PATTERNS.index("planning"))] = -1
        edge[fixed & (patterns == PATTERNS.index("conclusion"))] = 1
        order = np.argsort(edge, kind="stable")
        patterns, lengths, edge = patterns[order], lengths[order], edge[order]
    free = room - lengths.sum()
    gaps = np.sort(chance.integers(0, free + 1, len(patterns)))
    jitter = np.minimum(chance.integers(0, 4, len(patterns)), free)
    gaps = np.maximum.accumulate(np.where(edge < 0, jitter, np.where(edge > 0, free - jitter, gaps)))
    starts = first + gaps + np.cumsum(lengths) - lengths
    return [(int(start), int(start + size), int(pattern))
            for start, size, pattern in zip(starts, lengths, patterns, strict=True)]  # fmt: skip


def _plant(
    chance: np.random.Generator, text: Text, placed: list[tuple[int, int, int]], decoys: float, share: float = 0.75
) -> None:
    """Write a word into most episodes, and some outside of them, in the place of other words."""
    free = text.is_word

    def write(start: int, pattern: int, entry: str, inside: bool) -> Word:
        words = entry.split()
        for place, word in enumerate(words):
            token = start + place
            before = text.token[token - 1] if text.at[token] else _V.BREAK
            form = 0 if text.offset[token] else 2 if before == _V.BREAK else 1
            text.token[token] = _V.forms[_V.index[word], form]
        end = start + len(words)
        free[start:end] = False
        # `Wait, …`: what opens a sentence often has a comma.
        if len(words) == 1 and text.offset[start] == 0 and free[end] and chance.random() < 0.5:
            text.token[end], free[end] = _V.COMMA, False
        return Word(start, end, pattern, entry, inside)

    def fitting(starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        fits = np.ones(len(starts), dtype=bool)
        for place in range(length):
            fits &= free[np.minimum(starts + place, len(free) - 1)]
        return starts[fits]

    def choose(starts: NDArray[np.int64]) -> int:
        opening = starts[text.offset[starts] == 0]
        return int(chance.choice(opening if len(opening) and chance.random() < 0.5 else starts))

    for start, end, pattern in placed:
        word = None
        if chance.random() < share:
            entry = chance.choice(LEXICON[PATTERNS[pattern]], p=[0.5, 0.25, 0.25])
            third = np.arange(start + 2, start + max(3, -(-(end - start) // 3)))
            starts = fitting(third, len(entry.split()))
            if not len(starts):
                entry = LEXICON[PATTERNS[pattern]][chance.integers(0, 2)]
                starts = fitting(third, 1)
            if not len(starts):  # arithmetic all over: in the place of a number, or else of the next word
                starts = third[~np.isin(text.token[third], [_V.STOP, _V.BREAK, *_V.digits])]
                starts = starts[~np.isin(text.token[starts + 1], _V.digits)]
            if not len(starts):
                starts = fitting(np.arange(start + 2, end), 1)[:1]
            if len(starts):
                word = write(choose(starts), pattern, str(entry), True)
                text.words.append(word)
        text.episodes.append(Episode(start, end, pattern, word))
    outside = text.episode < 0
    for reason in (True, False):
        uses = [word for word in text.words if word.inside and text.reason[word.start] == reason]
        starts = np.flatnonzero(outside & (text.reason == reason))
        for _ in range(round(len(uses) * decoys / (1 - decoys))):
            like = uses[chance.integers(0, len(uses))]
            length = len(like.entry.split())
            some = fitting(chance.choice(starts, 60), length)
            some = some[outside[np.minimum(some + length - 1, len(outside) - 1)]]
            if len(some):
                text.words.append(write(choose(some), like.pattern, like.entry, False))
    text.words.sort()


# Latents.

Rates = NDArray[np.float64]
Rule = Callable[[Text, int, np.random.Generator], Rates]
"""How likely a latent is to be active on each token, by the number of its copy."""


def _own(copy: int) -> int:
    """Return the pattern of a copy of a kind that has one."""
    return copy % len(PATTERNS)


def _words(text: Text, words: list[str]) -> NDArray[np.bool_]:
    return np.isin(_V.word[text.token], _V.of(words))


def _common(text: Text, _copy: int, chance: np.random.Generator) -> Rates:
    always = ["me", "to", "is", "the", "I"]
    others = [word for word in COMMON if word not in always]
    return 0.5 * _words(text, [*always, *chance.choice(others, 5, replace=False)])


def _digit_density(text: Text, _copy: int, _chance: np.random.Generator) -> Rates:
    sums = np.append(0, np.cumsum(_V.is_digit[text.token]))
    here = np.arange(len(text.token))
    low = np.maximum(here - 8, text.starts[text.owner])
    high = np.minimum(here + 9, text.starts[text.owner + 1])
    return 0.6 * (sums[high] - sums[low]) / (high - low)


def _lexicon_word(text: Text, copy: int, _chance: np.random.Generator) -> Rates:
    return 0.9 * _words(text, [LEXICON[PATTERNS[_own(copy)]][copy // len(PATTERNS) % 2]])


def _bursts(text: Text, _copy: int, chance: np.random.Generator) -> Rates:
    starts = chance.integers(0, len(text.token), round(len(text.token) * 0.1 / 25))
    spans = np.zeros(len(text.token), dtype=bool)
    for start, size in zip(starts.tolist(), chance.integers(10, 41, len(starts)).tolist(), strict=True):
        spans[start : min(start + size, text.starts[text.owner[start] + 1])] = True
    return 0.5 * spans


def _trace_level(text: Text, _copy: int, chance: np.random.Generator) -> Rates:
    return 0.05 * (chance.random(len(text.starts) - 1) < 0.5)[text.owner]


def _rare(text: Text, _copy: int, chance: np.random.Generator) -> Rates:
    return 0.9 * _words(text, chance.choice(WORDS[150:], 15, replace=False).tolist())


def _growing(text: Text, _copy: int, _chance: np.random.Generator) -> Rates:
    low, high = text.starts[text.owner], text.starts[text.owner + 1]
    return 0.15 * (np.arange(len(text.token)) - low) / (high - low)


def _bigram(text: Text, copy: int, _chance: np.random.Generator) -> Rates:
    first, second = PAIRS[copy % len(PAIRS)]
    return 0.9 * (_words(text, [second]) & text.after(_words(text, [first])))


def _after_comma(text: Text, _copy: int, _chance: np.random.Generator) -> Rates:
    return 0.8 * (text.is_word & text.after((text.token == _V.COMMA) | _V.is_digit[text.token]))


def _after_break(text: Text, _copy: int, _chance: np.random.Generator) -> Rates:
    breaks = text.token == _V.BREAK
    return 0.8 * (text.after(breaks) | text.after(breaks, 2))


def _episode(text: Text, copy: int, _chance: np.random.Generator) -> Rates:
    return 0.5 * (text.episode == _own(copy))


_RULES: dict[str, Rule] = {
    "null: start of segment": lambda text, _copy, _: 0.8 * (text.at < 12),
    "null: end of segment": lambda text, _copy, _: 0.8 * (text.left < 12),
    "null: sentence start": lambda text, _copy, _: 0.8 * (text.offset < 2),
    "null: after line break": _after_break,
    "null: common words": _common,
    "null: verbs after let me": lambda text, _copy, _: 0.8 * _words(text, VERBS),
    "null: digit density": _digit_density,
    "null: lexicon word": _lexicon_word,
    "null: at random": lambda text, _copy, _: np.full(len(text.token), 0.03),
    "null: bursts": _bursts,
    "null: trace level": _trace_level,
    "null: rare tokens, both conditions": _rare,
    "null: episode, both conditions equally": _episode,
    "untold: third sentence of a paragraph": lambda text, _copy, _: 0.5 * (text.nth == 2),
    "untold: word after a comma or number": _after_comma,
    "untold: growing along the trace": _growing,
    "untold: long sentences": lambda text, _copy, _: 0.3 * (text.size > 10),
    "untold: topic of the line": lambda text, copy, _: 0.3 * (text.topic == copy % len(TOPICS)),
    "untold: bigram": _bigram,
    "true: episode": _episode,
    "true: before": lambda text, copy, _: 0.6 * text.around(_own(copy), 8, -1, from_end=False),
    "true: late": lambda text, copy, _: 0.5 * ((text.episode == _own(copy)) & (text.into >= 5)),
    "true: words": lambda text, copy, _: 0.7 * text.around(_own(copy), 0, 4, from_end=True),
    "true: frequent": lambda text, copy, _: np.where(text.episode == _own(copy), 0.9, 0.08),
    "true: lengthens": _episode,
    "true: half in control": _episode,
}

KINDS = tuple(_RULES)
"""What latents do; `filler` is besides."""

BOTH = {
    "null: rare tokens, both conditions",
    "null: episode, both conditions equally",
    "true: half in control",
}
"""Kinds that are active under both conditions."""

WITH_PATTERN = {
    "null: lexicon word",
    "null: episode, both conditions equally",
    *(kind for kind in KINDS if kind.startswith("true: ")),
}
"""Kinds of which each latent has a pattern of its own."""


@dataclass(frozen=True)
class World:
    """Tables as the evidence reads them, and the truth."""

    traces: pl.LazyFrame
    activations: pl.LazyFrame
    vocabulary: pl.LazyFrame
    kinds: dict[str, list[int]]
    """The latents of each kind, and of `filler`."""
    pattern_of: dict[int, str]
    """The pattern of each latent that has one: the one that a link of a `true: …` latent should be to."""
    episodes: pl.DataFrame
    """trace_id, condition, pattern, start and end (positions), and its word if it has one: entry, word_start, word_end.

    `Layout.windows` makes a mask of them.
    """
    words: pl.DataFrame
    """Where the lexicon's words are: trace_id, condition, pattern, entry, start, end, and whether in an episode."""


def world(
    seed: int,
    traces: int,
    *,
    copies: int = 6,
    background: int = 60,
    control_length: float = 1.0,
    control_thinks: float = 0.0,
    decoys: float = 0.1,
    tangled: float = 0.0,
) -> World:
    """Make a world of so many traces under each condition.

    copies: latents of each kind; background: filler latents.
    control_length: how long the control's traces are, relative to those under study.
    control_thinks: how often episodes come up there, per token, relative to that.
    decoys: share of the lexicon's words that are outside of episodes.
    tangled: share of the planning that is done at the segment's start, and of the conclusions drawn at its end.
    """
    text = _texts(np.random.default_rng([seed, 0]), traces, control_length, control_thinks, decoys, tangled)
    chance = np.random.default_rng([seed, 1])
    prompt_sizes = np.tile(chance.integers(8, 13, traces), 2)
    one = np.searchsorted(_ZIPF, chance.random(prompt_sizes[:traces].sum()) * _ZIPF[-1])
    prompt = np.tile(_V.forms[one, 0], 2)
    prompt_starts = np.append(0, np.cumsum(prompt_sizes))

    generated = prompt_sizes[text.owner] + np.arange(len(text.token)) - text.starts[text.owner]
    prompt_owner = np.repeat(np.arange(2 * traces), prompt_sizes)
    prompt_position = np.arange(len(prompt)) - prompt_starts[prompt_owner]
    # All tokens that are read: those written, without the last of each trace, then those of prompts.
    columns = {
        "owner": np.append(text.owner, prompt_owner),
        "position": np.append(generated, prompt_position),
        "token": np.append(text.token, prompt),
        "segment": np.append(1 + text.answer, np.zeros(len(prompt), dtype=np.int64)),
    }
    read = np.ones(len(text.token), dtype=bool)
    read[text.starts[1:] - 1] = False

    kinds: dict[str, list[int]] = {}
    pattern_of: dict[int, str] = {}
    active: list[tuple[int, NDArray[np.int64], Rates]] = []
    for number, (kind, rule) in enumerate(_RULES.items()):
        kinds[kind] = list(range(number * copies, (number + 1) * copies))
        for copy, latent in enumerate(kinds[kind]):
            if kind in WITH_PATTERN:
                pattern_of[latent] = PATTERNS[_own(copy)]
            own = np.random.default_rng([seed, 2, number, copy])
            active.append((latent, *_fire(text, read, kind, rule, copy, own)))
    kinds["filler"] = list(range(len(_RULES) * copies, len(_RULES) * copies + background))
    frequency = np.bincount(text.token, minlength=len(_V.texts)) / len(text.token)
    everywhere = np.append(read, np.ones(len(prompt), dtype=bool))
    for rank, latent in enumerate(kinds["filler"]):
        own = np.random.default_rng([seed, 3, rank])
        rate = 0.15 / (rank + 1) ** 0.7
        rates = np.full(len(_V.texts), rate)
        if rank % 2:  # on some types of tokens, which together are as frequent
            order = own.permutation(np.flatnonzero(frequency))
            rates[:] = 0
            rates[order[: 1 + np.searchsorted(np.cumsum(frequency[order]), 2 * rate)]] = 0.5
        hits = np.flatnonzero((own.random(len(columns["token"])) < rates[columns["token"]]) & everywhere)
        active.append((latent, hits, own.lognormal(0.4, 0.5) * own.lognormal(0, 0.5, len(hits))))
    first = len(text.token) + prompt_starts[:-1]
    for latent in kinds["filler"][:3]:  # what every model does on its first token
        place = next(index for index, (name, *_) in enumerate(active) if name == latent)
        others = ~np.isin(active[place][1], first)
        hits = np.append(active[place][1][others], first)
        active[place] = (latent, hits, np.append(active[place][2][others], np.full(len(first), 60.0)))

    return World(
        traces=_trace_table(chance, text, prompt, prompt_starts).lazy(),
        activations=_activation_table(columns, active, traces).lazy(),
        vocabulary=_V.table().lazy(),
        kinds=kinds,
        pattern_of=pattern_of,
        episodes=_episode_table(text, generated),
        words=_word_table(text, generated),
    )


def _fire(
    text: Text, read: NDArray[np.bool_], kind: str, rule: Rule, copy: int, chance: np.random.Generator
) -> tuple[NDArray[np.int64], Rates]:
    """Return on which tokens a latent is active, and how much."""
    gain, factor = chance.lognormal(0.7, 0.3), chance.uniform(0.7, 1.3)
    rates = np.minimum(rule(text, copy, chance) * factor, 1)
    stray = 0.0005 if kind == "null: lexicon word" else 0.002  # a word is rarer than what others are active on
    if kind not in BOTH:
        rates, stray = rates * text.reason, np.where(text.reason, stray, 0.0005)
    hits = np.flatnonzero((chance.random(len(rates)) < rates + stray - rates * stray) & read)
    spread = 0.5
    if kind == "true: frequent":  # never among the largest
        gain, spread = 0.15 * gain, 0.25
    values = gain * chance.lognormal(0, spread, len(hits))
    if kind == "null: trace level":
        values *= chance.lognormal(0, 0.7, len(text.starts) - 1)[text.owner[hits]]
    return hits, values


def _activation_table(
    columns: dict[str, NDArray[np.int64]], active: list[tuple[int, NDArray[np.int64], Rates]], traces: int
) -> pl.DataFrame:
    hits = np.concatenate([hits for _, hits, _ in active])
    latents = np.repeat([latent for latent, *_ in active], [len(hits) for _, hits, _ in active])
    values = np.concatenate([values for *_, values in active]).astype(np.float32)
    order = np.lexsort((-values, columns["position"][hits], columns["owner"][hits]))
    hits, latents, values = hits[order], latents[order], values[order]
    owner, position = columns["owner"][hits], columns["position"][hits]
    return pl.DataFrame(
        {
            "trace_id": owner % traces,
            "condition": _conditions(owner >= traces),
            "position": position,
            "token_id": columns["token"][hits],
            "segment": pl.Series(SEGMENTS, dtype=pl.Enum(SEGMENTS)).gather(columns["segment"][hits]),
            "sink": position == 0,
            "latent": latents,
            "activation": values,
        }
    ).cast(dict(activations.SCHEMA))


def _conditions(control: Any) -> pl.Series:
    return pl.Series(CONDITIONS).gather(np.asarray(control, dtype=np.int64))


def _trace_table(
    chance: np.random.Generator, text: Text, prompt: NDArray[np.int64], prompt_starts: NDArray[np.int64]
) -> pl.DataFrame:
    owners = len(text.starts) - 1
    traces = owners // 2
    answers = np.bincount(text.owner, weights=text.answer, minlength=owners).astype(np.int64)
    right = chance.random(owners) < np.repeat([0.6, 0.4], traces)
    rows = []
    for owner, ((low, high), (first, last)) in enumerate(
        zip(pairwise(text.starts.tolist()), pairwise(prompt_starts.tolist()), strict=True)
    ):
        asked, written = prompt[first:last].tolist(), text.token[low:high].tolist()
        cuts = [0, len(asked), len(asked) + len(written) - int(answers[owner]), len(asked) + len(written)]
        rows.append(
            {
                "trace_id": owner % traces,
                "condition": CONDITIONS[owner // traces],
                "seed": 0,
                "prompt_ids": asked,
                "generated_ids": written,
                "prompt": "".join(_V.texts[token] for token in asked),
                "text": "".join(_V.texts[token] for token in written),
                "finish_reason": "stop",
                "segments": [{"segment": name, "start": start, "end": end}
                             for name, (start, end) in zip(SEGMENTS, pairwise(cuts), strict=True)],
                "predicted": "1" if right[owner] else "0",
                "reference": "1",
                "correct": bool(right[owner]),
            }
        )  # fmt: skip
    return pl.DataFrame(rows, schema=generate.SCHEMA)


def _spans(text: Text, generated: NDArray[np.int64], spans: list[Any]) -> dict[str, Any]:
    """Return the columns that episodes and words share."""
    starts = np.array([span.start for span in spans], dtype=np.int64)
    owners, traces = text.owner[starts], (len(text.starts) - 1) // 2
    return {
        "trace_id": pl.Series(owners % traces, dtype=pl.UInt32),
        "condition": _conditions(owners >= traces),
        "pattern": pl.Series([PATTERNS[span.pattern] for span in spans], dtype=pl.String),
        "entry": pl.Series([_entry(span) for span in spans], dtype=pl.String),
        "start": pl.Series(generated[starts], dtype=pl.UInt32),
        "end": pl.Series(generated[starts] + [span.end - span.start for span in spans], dtype=pl.UInt32),
    }


def _entry(span: Episode | Word) -> str | None:
    word = span.word if isinstance(span, Episode) else span
    return word.entry if word else None


def _episode_table(text: Text, generated: NDArray[np.int64]) -> pl.DataFrame:
    words = [episode.word for episode in text.episodes]
    starts = [int(generated[word.start]) if word else None for word in words]
    ends = [int(generated[word.start]) + word.end - word.start if word else None for word in words]
    return pl.DataFrame(
        _spans(text, generated, text.episodes)
        | {"word_start": pl.Series(starts, dtype=pl.UInt32), "word_end": pl.Series(ends, dtype=pl.UInt32)}
    )


def _word_table(text: Text, generated: NDArray[np.int64]) -> pl.DataFrame:
    inside = pl.Series([word.inside for word in text.words], dtype=pl.Boolean)
    return pl.DataFrame(_spans(text, generated, text.words) | {"inside": inside})
