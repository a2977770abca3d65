"""How right the evidence is, on text whose truth is known: level, power, coverage, flips, and looking again.

    .venv/bin/python benchmarks/calibration.py [full | quick] [--write docs/calibration.md] [--seed 0]

Worlds are of `worlds.py`: sentences, line breaks, digits, episodes of thinking with and without words of the lexicon,
and latents of which it is known what they do. Prints what was seen with its Monte Carlo error (the standard error over
worlds), and its bounds; exits with 1 where a bound is broken by more than two of these errors. `quick` takes 20 s.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import worlds
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow" / "scripts"))

from thoughtscope.config import SEGMENTS
from thoughtscope.evidence import (
    candidates,
    controls,
    headline,
    lexicality,
    matches,
    outcomes,
    patterns,
    presence,
    recurrence,
    verdict,
)
from thoughtscope.evidence.checks import Interval
from thoughtscope.readings import features as readings
from thoughtscope.statistics import e_values, mean_over_traces, share_over_traces

CONFIG = yaml.safe_load((Path(__file__).parents[1] / "workflow/schemas/config.schema.yaml").read_text(encoding="utf-8"))
ANALYSIS = {name: key["default"] for name, key in CONFIG["properties"]["analysis"]["properties"].items()}
LEXICON = json.dumps(worlds.LEXICON)
CONDITIONS = list(worlds.CONDITIONS)
SITE = "layers.0.mlp"
FIT = pl.DataFrame(
    {"hookpoint": [SITE], "condition": [None], "place": ["site"], "site": [SITE], "used": [True], "fvu": [0.2],
     "fvu_low": [0.18], "fvu_high": [0.22]}, schema_overrides={"condition": pl.String},
)  # fmt: skip
"""A SAE that fits: this isn't about SAEs."""


def analysis(names: str) -> dict[str, Any]:
    """Return settings of the config's `analysis` by their defaults."""
    return {name: ANALYSIS[name] for name in names.split()}


def judge(world: worlds.World, kept: Iterable[int] | None = None, **changes: float) -> dict[str, pl.DataFrame]:
    """Return a world's tables as the workflow's rules make them; kept: the latents it has, `None` for all."""
    settings = ANALYSIS | changes
    active = world.activations if kept is None else world.activations.filter(pl.col("latent").is_in(list(kept)))
    active = active.collect().lazy()
    parts = active.collect().partition_by("condition", maintain_order=True)
    features = pl.concat([readings.summarize(part) for part in parts]).lazy()
    found = matches.matches(world.traces, world.vocabulary, patterns=LEXICON, reason_words=[]).lazy()
    studied = {"condition": CONDITIONS[0], "include_sinks": False}
    tables = {
        "pattern_tests": patterns.pattern_tests(
            active, world.traces, found, world.vocabulary, patterns=LEXICON, min_share=settings["min_share"],
            **analysis("tokens_before tokens_after"), **studied,
        ),
        "presence": presence.presence(
            active, world.traces, conditions=CONDITIONS, min_excess=settings["min_excess"], include_sinks=False
        ),
        "controls": controls.controls(
            features, world.traces, conditions=CONDITIONS, include_sinks=False, **analysis("top_latents min_traces")
        ),
    }  # fmt: skip
    of_site = [tables[name].with_columns(site=pl.lit(SITE)).lazy() for name in ("pattern_tests", "presence")]
    tables["headline"] = headline.headline(*of_site, world.traces, condition=CONDITIONS[0])
    relevant = recurrence.relevant_latents(features, world.vocabulary, include_sinks=False, **analysis("top_latents"))
    judged = candidates.candidates(
        features.filter(condition=CONDITIONS[0]), tables["controls"].lazy(), relevant.lazy(),
        tables["headline"].lazy(), site=SITE, condition=CONDITIONS[0], **analysis("min_traces alpha max_sink_share"),
    ).lazy()  # fmt: skip
    tables["lexicality"] = lexicality.lexicality(
        active, world.traces, judged, found, world.vocabulary, **analysis("max_typed"), **studied
    )
    sinks = recurrence.sinks(active, world.vocabulary).lazy()
    tables["contrasts"] = controls.contrasts(
        features, world.traces, sinks, judged, conditions=CONDITIONS, include_sinks=False
    )
    tables["outcomes"] = outcomes.outcomes(
        features.filter(condition=CONDITIONS[0]), world.traces, sinks, judged, **studied
    )
    tables["verdict"] = verdict.verdict(
        judged, FIT.lazy(), *(tables[name].lazy() for name in ("presence", "pattern_tests", "lexicality", "headline")),
        site=SITE, min_excess=settings["min_excess"], min_share=settings["min_share"],
        **analysis("alpha max_fvu max_sink_share max_typed max_twins min_effect"), readers=[],
    )  # fmt: skip
    return tables


@dataclass
class Seen:
    """Shares seen in worlds, each (name, traces) in its turn, and the bounds on them."""

    counts: dict[tuple[str, str, int], list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    broken: list[str] = field(default_factory=list)

    def add(self, table: str, name: str, traces: int, values: Any) -> None:
        """Add what a world shows: the share of `values` that are true."""
        if len(values := np.asarray(values, dtype=float)):
            self.counts[table, name, traces].append((int(values.sum()), len(values)))

    def mean(self, table: str, name: str, traces: int) -> tuple[float, float]:
        """Return a share and its standard error: over worlds, or of as many latents where that is more."""
        counts = np.array(self.counts[table, name, traces], dtype=float)
        total, share = counts[:, 1].sum(), counts[:, 0].sum() / counts[:, 1].sum()
        off = counts[:, 0] - share * counts[:, 1]  # of a ratio of sums (Cochran 1977)
        over_worlds = np.sqrt(np.square(off).sum() * len(off) / max(1, len(off) - 1)) / total
        drawn_in = (share * total + 1) / (total + 2)  # so that none of few isn't taken for certain
        return share, max(over_worlds, np.sqrt(drawn_in * (1 - drawn_in) / total))

    def rows(self, table: str, bound: Callable[[str, int], tuple[str, float] | None]) -> list[list[str]]:
        """Return a table's rows as text, a column for each number of traces, and note which bounds are broken.

        bound: `("≤", most)` or `("≥", least)` for a name and number of traces.
        """
        names = list(dict.fromkeys(name for of, name, _ in self.counts if of == table))
        sizes = sorted({traces for of, _, traces in self.counts if of == table})
        rows = [["", *(f"n = {traces}" for traces in sizes)]]
        for name in names:
            row = [name]
            for traces in sizes:
                if (table, name, traces) not in self.counts:
                    row.append("")
                    continue
                share, error = self.mean(table, name, traces)
                text = f"{100 * share:.1f} ± {100 * error:.1f}"
                if limit := bound(name, traces):
                    sign, value = limit
                    over = share - value if sign == "≤" else value - share
                    if over > 2 * error:
                        self.broken.append(f"{table}, {name}, n = {traces}: {text} %, {sign} {100 * value:g} %")
                        text = f"**{text}**"
                    text += f" ({sign} {100 * value:g})"
                row.append(text)
            rows.append(row)
        return rows


CALLED = "called a thinking pattern"
LEVEL = "p of a link below 0.05"
ADJUSTED = "p of a link below 0.05 if any share counted, so that there is no margin (min_share 0): what leaks"
EQUAL = "p of recurring beyond control below 0.05 if any excess counted (min_excess 0), control a fifth as long"
SHORTER = "called where the control's traces are a fifth as long and think as often"
STRETCH = "called where each control trace is eight tokens of the trace under study, so that nothing is beyond it"
CONTRAST = "p of a contrast below 0.05, of latents that are alike in both conditions, one a fifth as long"
COVERED = "intervals that hold the truth"
FALSE = "studies with a false headline"
REFUTED = "true patterns that are refuted"
LOOKS = "called in any of 20 looks"
FLIPS = "verdicts that go from fail to pass, n = 30 to 1,000"
LENGTH = "p of telling right from wrong at equal length below 0.05, of latents that follow length"


def calls(seen: Seen, sizes: dict[int, int], copies: int, seed: int) -> None:
    """What is called a thinking pattern, and what p is where no share at all counts."""
    for traces, count in sizes.items():
        for number in range(count):
            world = worlds.world(seed + 1000 * traces + number, traces, copies=copies)
            tables = judge(world)
            called = set(tables["verdict"].filter(verdict="thinking pattern")["latent"])
            removed = set(tables["verdict"].filter(verdict="no")["latent"])
            nothing = patterns_only(world, 0.0)
            for kind, latents in world.kinds.items():
                if kind == BOTH:  # without thinking under the control it is a true one
                    continue
                seen.add(CALLED, kind, traces, [latent in called for latent in latents])
                if not kind.startswith("true"):
                    for name, table in ((LEVEL, tables["headline"]), (ADJUSTED, nothing)):
                        p = table.filter(pl.col("latent").is_in(latents))["p_link"].to_numpy()
                        seen.add(name, kind, traces, p < 0.05)
                else:
                    seen.add(REFUTED, kind, traces, [latent in removed for latent in latents])


BOTH = "null: episode, both conditions equally"


def patterns_only(world: worlds.World, min_share: float) -> pl.DataFrame:
    """Return the headline of a world whose link is tested against another margin."""
    found = matches.matches(world.traces, world.vocabulary, patterns=LEXICON, reason_words=[]).lazy()
    tests = patterns.pattern_tests(
        world.activations, world.traces, found, world.vocabulary, patterns=LEXICON, condition=CONDITIONS[0],
        min_share=min_share, include_sinks=False, **analysis("tokens_before tokens_after"),
    )  # fmt: skip
    none = pl.LazyFrame(schema={"site": pl.String, **presence.SCHEMA})
    return headline.headline(tests.with_columns(site=pl.lit(SITE)).lazy(), none, world.traces, condition=CONDITIONS[0])


def unequal(seen: Seen, sizes: dict[int, int], copies: int, seed: int) -> None:
    """Controls that think as often, a fifth as long: what is alike in both must not stand out."""
    for traces, count in sizes.items():
        for number in range(count):
            world = worlds.world(
                seed + 2000 * traces + number, traces, copies=copies, control_length=0.2, control_thinks=1.0
            )
            tables = judge(world, min_excess=0.0)
            # Every other filler is on tokens at random; the rest are on words, which an episode may have more of.
            alike = [*world.kinds["null: rare tokens, both conditions"], *world.kinds["filler"][::2]]
            p = tables["presence"].filter(pl.col("latent").is_in(alike))["p"].to_numpy()
            seen.add(EQUAL, "rare tokens and fillers", traces, p < 0.05)
            of = tables["contrasts"].filter(
                pl.col("latent").is_in(alike), contrast=f"{CONDITIONS[0]} - {CONDITIONS[1]}"
            )
            seen.add(CONTRAST, "rare tokens and fillers", traces, of["p"].drop_nulls().to_numpy() < 0.05)
            called = set(judge(world)["verdict"].filter(verdict="thinking pattern")["latent"])
            for kind in (BOTH, "null: rare tokens, both conditions", "null: bursts"):
                seen.add(SHORTER, kind, traces, [latent in called for latent in world.kinds[kind]])


def stretches(seen: Seen, sizes: dict[int, int], copies: int, seed: int) -> None:
    """Controls that are a few tokens of the trace under study itself: a rare latent is missing there by luck alone."""
    for traces, count in sizes.items():
        for number in range(count):
            world = worlds.world(seed + 5000 * traces + number, traces, copies=copies)
            tables = judge(with_stretches(world, 8, np.random.default_rng([seed, traces, number])))
            called = set(tables["verdict"].filter(verdict="thinking pattern")["latent"])
            for kind in ("true: episode", "true: before", "true: words", "null: bursts"):
                seen.add(STRETCH, kind, traces, [latent in called for latent in world.kinds[kind]])


def with_stretches(world: worlds.World, tokens: int, chance: np.random.Generator) -> worlds.World:
    """Return a world whose control traces are so many tokens of those under study, with what is active on them."""
    studied = world.traces.filter(condition=CONDITIONS[0]).collect()
    start = pl.col("prompt_ids").list.len()
    room = studied.select(pl.col("generated_ids").list.len())["generated_ids"].to_numpy().astype(int) - tokens - 1
    studied = studied.with_columns(shift=pl.Series((chance.random(len(room)) * np.maximum(room, 1)).astype(int)))
    parts = [
        [{"segment": "prompt", "start": 0, "end": end}, {"segment": "answer", "start": end, "end": end + tokens + 1}]
        for end in studied.select(start)["prompt_ids"]
    ]
    control = studied.with_columns(
        condition=pl.lit(CONDITIONS[1]), generated_ids=pl.col("generated_ids").list.slice(pl.col("shift"), tokens + 1),
        segments=pl.Series(parts, dtype=studied.schema["segments"]),
    )  # fmt: skip
    places = studied.select("trace_id", "shift", start=start).lazy()
    ours = world.activations.filter(pl.col("condition") == CONDITIONS[0]).collect()
    written = ours.lazy().filter(pl.col("segment") != "prompt").join(places, on="trace_id")
    moved = written.with_columns(
        condition=pl.lit(CONDITIONS[1]), position=pl.col("position").cast(pl.Int64) - pl.col("shift"),
        segment=pl.lit("answer", dtype=pl.Enum(SEGMENTS)),
    ).filter(pl.col("position") >= pl.col("start"), pl.col("position") < pl.col("start") + tokens)  # fmt: skip
    there = moved.select(ours.columns).cast(dict(ours.schema)).collect()
    return replace(
        world,
        traces=pl.concat([studied.drop("shift"), control.drop("shift")]).lazy(),
        activations=pl.concat([ours, there]).lazy(),
    )


def filter_study(seen: Seen, sizes: dict[int, int], copies: int, seed: int) -> None:
    """Linked latents that recur in both conditions, unlinked ones that recur in one: no headline is true."""
    for traces, count in sizes.items():
        for number in range(count):
            world = worlds.world(seed + 3000 * traces + number, traces, copies=copies, control_thinks=1.0)
            kept = [
                latent for kind, latents in world.kinds.items() if not kind.startswith("true") for latent in latents
            ]
            table = judge(world, kept)["headline"]
            seen.add(FALSE, "linked in both, unlinked in one", traces, [(table["q"] < 0.05).any()])


def coverage(seen: Seen, sizes: dict[int, int], copies: int, seed: int) -> None:
    """Intervals of shares in worlds, against what a world of many traces has, and of sparse lognormal values."""
    chance = np.random.default_rng(seed)
    for traces in sizes:
        for sigma, active in ((0.8, 0.6), (1.0, 0.6), (1.0, 0.3)):
            for _ in range(20):
                columns = chance.lognormal(0, sigma, (traces, 200)) * (chance.random((traces, 200)) < active)
                found, truth = mean_over_traces(columns), active * np.exp(sigma**2 / 2)
                seen.add(COVERED, f"mean, lognormal σ = {sigma:g}, in {active:.0%} of traces", traces,
                         (found.low <= truth) & (truth <= found.high))  # fmt: skip
    kinds = ["null: bursts", "null: common words", "null: at random", "true: episode", "true: late", "true: frequent"]
    large = worlds.world(seed + 7, 3000 if max(sizes.values()) > 4 else 800, copies=copies)
    truth = links_of(large, kinds)
    for traces, count in sizes.items():
        for number in range(count):
            of = links_of(worlds.world(seed + 4000 * traces + number, traces, copies=copies), kinds)
            for kind in kinds:
                # The same latents: what they do is drawn once for a seed's worlds but for gains and rates, which shares
                # hardly feel.
                places = ["latent", "pattern", "window"]
                known = of[kind].join(truth[kind].select(*places, true="share"), on=places)
                held = (known["low"] <= known["true"]) & (known["true"] <= known["high"])
                seen.add(COVERED, f"selectivity, {kind}", traces, held.drop_nulls().to_numpy())


def links_of(world: worlds.World, kinds: Sequence[str]) -> dict[str, pl.DataFrame]:
    """Return the tests of each kind's latents, of all windows beside a pattern's words."""
    found = matches.matches(world.traces, world.vocabulary, patterns=LEXICON, reason_words=[]).lazy()
    tests = patterns.pattern_tests(
        world.activations, world.traces, found, world.vocabulary, patterns=LEXICON, condition=CONDITIONS[0],
        include_sinks=False, **analysis("tokens_before tokens_after min_share"),
    )  # fmt: skip
    tests = tests.filter(pl.col("window").cast(pl.String) != "at", pl.col("share").is_not_null())
    return {kind: tests.filter(pl.col("latent").is_in(world.kinds[kind])) for kind in kinds}


def looking_again(seen: Seen, studies: int, seed: int) -> None:
    """Twenty looks, as traces come in, at means that are 0, and what any of them says."""
    chance, looks = np.random.default_rng(seed + 5), range(15, 301, 15)
    values = chance.lognormal(0, 1.0, (300, studies)) * (chance.random((300, studies)) < 0.6) - 0.6 * np.exp(0.5)
    for sign, name in ((1, "high tails"), (-1, "low tails")):
        p = np.array([mean_over_traces(sign * values[:look]).p for look in looks])
        e = np.array([e_values(row, look) for row, look in zip(p, looks, strict=True)])
        parts = np.array_split(np.arange(studies), 10)
        for part in parts:
            seen.add(LOOKS, f"e ≥ 20, {name}", 300, (e[:, part] >= 20).any(axis=0))
            seen.add(LOOKS, f"p < 0.05, {name}", 300, (p[:, part] < 0.05).any(axis=0))


def flips(seen: Seen, studies: int, seed: int) -> None:
    """Latents whose share is at, below or above the margin: how many that fail at 30 traces pass at 1,000."""
    chance, margin = np.random.default_rng(seed + 6), 0.25
    for share in (0.15, 0.22, 0.25, 0.28, 0.31, 0.35, 0.45, 0.6):
        for _ in range(10):
            whole = chance.lognormal(0, 0.8, (1000, studies // 10)) * (chance.random((1000, studies // 10)) < 0.7)
            part = whole * chance.beta(2 * share, 2 * (1 - share), whole.shape)
            sides = []
            for traces in (30, 1000):
                found = share_over_traces(part[:traces], whole[:traces], margin)
                intervals = zip(found.value, found.low, found.high, strict=True)
                sides.append(np.array([Interval(*one, traces).against(margin)[0] for one in intervals]))
            seen.add(
                FLIPS, f"true share {share:g}, margin {margin:g}", 1000, (sides[0] == "below") & (sides[1] == "above")
            )


def length(seen: Seen, sizes: dict[int, int], seed: int) -> None:
    """Latents whose largest activation grows with a trace's length, on which right answers depend."""
    chance = np.random.default_rng(seed + 8)
    for traces in sizes:
        for _ in range(20):
            lengths = np.round(chance.lognormal(5, 0.5, traces))
            right = chance.random(traces) < 1 / (1 + np.exp(3 * (np.log(lengths) - 5)))
            if min(right.sum(), (~right).sum()) < 8:
                continue
            values = np.log(lengths)[:, None] + chance.gumbel(0, 0.3, (traces, 100))
            found = outcomes._outcome(values, lengths, right)
            if "within_p" in found:
                seen.add(LENGTH, "largest of as many as it has tokens", traces, found["within_p"] < 0.05)


def bounds(table: str) -> Callable[[str, int], tuple[str, float] | None]:
    """Return what is asked of a table's shares."""

    def bound(name: str, traces: int) -> tuple[str, float] | None:
        if table == CALLED:
            if name.startswith(("null", "filler")):
                return "≤", 0.025
            if name.startswith("untold"):
                return "≤", 0.05
            if traces >= 100 and name != "true: half in control":
                return "≥", 0.8
            return ("≥", 0.5) if traces == 32 and name == "true: episode" else None
        if table == COVERED:
            return "≥", 0.93
        if table == LOOKS:
            return ("≤", 0.05) if name.startswith("e") else None
        if table == ADJUSTED:
            return None  # that is what the margin is for
        return "≤", {SHORTER: 0.025, STRETCH: 0.025, REFUTED: 0.025, FLIPS: 0.02}.get(table, 0.05)

    return bound


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "| " + " | ".join(["---"] * len(rows[0])) + " |", *lines[1:]])


def main() -> int:
    """Run all, print, write; 1 if a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", nargs="?", choices=["full", "quick"], default="full")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    started, seen, quick = time.monotonic(), Seen(), args.size == "quick"
    copies = 4 if quick else 6
    calls(seen, {32: 4} if quick else {16: 24, 32: 24, 100: 16, 300: 8}, copies, args.seed)
    unequal(seen, {32: 2} if quick else {32: 12, 100: 12, 300: 4}, copies, args.seed)
    stretches(seen, {32: 2} if quick else {32: 12, 100: 12, 300: 4}, copies, args.seed)
    filter_study(seen, {32: 3} if quick else {32: 40, 100: 40}, copies, args.seed)
    coverage(seen, {16: 3} if quick else {16: 16, 32: 16, 100: 12}, copies, args.seed)
    looking_again(seen, 1000 if quick else 10_000, args.seed)
    flips(seen, 200 if quick else 2000, args.seed)
    length(seen, {100: 0} if quick else {32: 0, 100: 0, 300: 0}, args.seed)
    parts = []
    for table in dict.fromkeys(table for table, *_ in seen.counts):
        parts.append(f"## {table[0].upper()}{table[1:]}, %\n\n{markdown(seen.rows(table, bounds(table)))}")
    page = "\n\n".join(parts)
    print(page)
    print(f"\n{time.monotonic() - started:.0f} s; {len(seen.broken)} bounds broken")
    for line in seen.broken:
        print(f"broken: {line}")
    if args.write:
        args.write.write_text(HEAD + page + "\n", encoding="utf-8")
    return 1 if seen.broken else 0


HEAD = """# Calibration

Made by `.venv/bin/python benchmarks/calibration.py full --write docs/calibration.md`; [evidence.md](evidence.md) says
what the checks are. Each number is a share in per cent with its Monte Carlo error (the standard error over worlds), and
in brackets what is asked of it; bold is what breaks that by more than two errors. A world is text with sentences, line
breaks, digits, and episodes of thinking, of which three in four have a word of the lexicon, with latents whose truth is
known: `null` ones follow what the adjustment is told of, `untold` ones what it isn't, `true` ones an episode.

"""


if __name__ == "__main__":
    sys.exit(main())
