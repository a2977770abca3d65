"""Synthetic studies: traces of words, and activations whose relation to them is known by construction."""

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from thoughtscope.readings import activations, features
from thoughtscope.traces import generate as traces

WORDS = [" the", " of", " cup", " egg", " sold", " more", " each", " total", " day", " so", " Wait", " maybe", " first",
         " 4", " +", " 7", " =", " 11", " hmm", " then"]  # fmt: skip
VOCABULARY = pl.DataFrame(
    {"token_id": range(len(WORDS)), "text": WORDS, "token": [word.replace(" ", "␣") for word in WORDS]},
    schema_overrides={"token_id": pl.UInt32},
)
PROMPT = 4
"""Tokens of every prompt."""


@dataclass
class Synthetic:
    """Traces in two conditions, and a list of activations that `fire` adds to."""

    seed: int
    problems: int = 32
    length: int = 120
    conditions: tuple[str, ...] = ("reason", "direct")
    rows: list[tuple] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = np.random.default_rng(self.seed)
        self.words, self.sinks, table = {}, {}, []
        for condition in self.conditions:
            for trace in range(self.problems):
                count = int(self.chance.integers(self.length // 2, self.length + 1))
                ids = self.chance.integers(0, len(WORDS), count)
                self.words[condition, trace] = ids
                self.sinks[condition, trace] = set()
                close = PROMPT + count // 2
                segments = [("prompt", 0, PROMPT), ("think", PROMPT, close), ("answer", close, PROMPT + count)]
                correct = bool(trace % 2) if condition == self.conditions[0] else None
                table.append(
                    {"trace_id": trace, "condition": condition, "seed": 0, "prompt_ids": [0] * PROMPT,
                     "generated_ids": ids.tolist(), "prompt": "", "text": "", "finish_reason": "stop",
                     "segments": [dict(zip(("segment", "start", "end"), part, strict=True)) for part in segments],
                     "predicted": None, "reference": "1", "correct": correct}
                )  # fmt: skip
        self.traces = pl.DataFrame(table, schema=traces.SCHEMA)

    def retell(self) -> None:
        """Take over changed words into the traces."""
        keys = zip(self.traces["condition"], self.traces["trace_id"], strict=True)
        ids = pl.Series([self.words[key].tolist() for key in keys], dtype=traces.SCHEMA["generated_ids"])
        self.traces = self.traces.with_columns(generated_ids=ids)

    def correct(self, condition: str, trace: int) -> bool:
        return condition == self.conditions[0] and bool(trace % 2)

    def fire(self, latent: int, when, strength: float = 5.0) -> None:
        """Make a latent active where `when(condition, trace, index, word, segment)` says so; not on the last token."""
        for (condition, trace), ids in self.words.items():
            for index, token in enumerate(ids[:-1]):
                segment = "think" if index < len(ids) // 2 else "answer"
                if when(condition, trace, index, WORDS[token].strip(), segment):
                    value = strength * float(self.chance.uniform(0.8, 1.2))
                    self.rows.append((condition, trace, index, latent, value))

    def background(self, latents: range, rate: float) -> None:
        """Make each of many latents active on random tokens of every trace, with its own mean strength."""
        for latent in latents:
            scale = float(self.chance.uniform(0.5, 3))
            for (condition, trace), ids in self.words.items():
                hits = np.flatnonzero(self.chance.random(len(ids) - 1) < rate)
                for index, value in zip(hits, self.chance.exponential(scale, len(hits)) + 0.01, strict=True):
                    self.rows.append((condition, trace, int(index), latent, float(value)))

    def activations(self) -> pl.DataFrame:
        frame = pl.DataFrame(
            self.rows, schema=["condition", "trace_id", "index", "latent", "activation"], orient="row"
        ).sort("condition", "trace_id", "index", "activation", descending=[False, False, False, True])
        token, segment, sink = [], [], []
        for condition, trace, index in frame.select("condition", "trace_id", "index").iter_rows():
            ids = self.words[condition, trace]
            token.append(int(ids[index]))
            segment.append("think" if index < len(ids) // 2 else "answer")
            sink.append(index in self.sinks[condition, trace])
        columns = {"token_id": pl.Series(token), "segment": pl.Series(segment), "sink": pl.Series(sink)}
        table = frame.with_columns(position=pl.col("index") + PROMPT, **columns)
        return table.select(*activations.SCHEMA).cast(activations.SCHEMA)

    def tables(self) -> dict[str, pl.LazyFrame]:
        """The inputs of the tests, as the workflow's files would be."""
        active = self.activations()
        parts = [features.summarize(part) for _, part in active.group_by("condition", maintain_order=True)]
        return {"activations": active.lazy(), "features": pl.concat(parts).lazy(), "traces": self.traces.lazy(),
                "vocabulary": VOCABULARY.lazy()}  # fmt: skip
