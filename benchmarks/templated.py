"""A real network on text whose thinking is known: how many of its latents come out linked to any pattern.

    .venv/bin/python benchmarks/templated.py [--results results/taught] [--traces 100] [--sites 3]

Reads templated traces (plans, doubts, checks, other ways, conclusions, with and without words of the lexicon, and these
words where they mean nothing of the kind) with a study's model and SAEs, and tests all latents as the workflow does.
The model wrote none of it; but it reads it, and the tests look at what it computes as it reads. Prints its claims.
"""

import argparse
import json
import logging
import random
import sys
from pathlib import Path

import claims
import polars as pl
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow" / "scripts"))

from thoughtscope import devices, files, models, paths
from thoughtscope.evidence import headline, matches, patterns, presence
from thoughtscope.readings import block
from thoughtscope.saes import formats
from thoughtscope.traces import generate

CONFIG = yaml.safe_load((Path(__file__).parents[1] / "workflow/schemas/config.schema.yaml").read_text(encoding="utf-8"))
ANALYSIS = {name: key["default"] for name, key in CONFIG["properties"]["analysis"]["properties"].items()}
LEXICON = json.dumps(CONFIG["properties"]["patterns"]["default"])
CONDITIONS = ["reason", "direct"]

# Each state in words of the lexicon, and without any.
STATES = [
    (["First, I need to find {x}.", "Let me start with {x}.", "Next, I need to work out {x}."],
     ["The way to do this is to get {x}, then go on.", "My plan is to find {x} before the rest.",
      "It is best to begin with {x}."]),
    (["Hmm, maybe {x} isn't what they ask for.", "Perhaps I misread the part about {x}.", "I am not sure about {x}."],
     ["That looks odd to me, as {x} seems too large.", "Is {x} really what is asked here?",
      "This doesn't feel right for {x}."]),
    (["Wait, let me check {x}.", "Actually, let me double-check {x}.", "Wait, {x} should be looked at again."],
     ["Going over {x} once more to see that it holds.", "I want to see that {x} is right by adding it up again.",
      "Looking back at {x}, I compare it with the text."]),
    (["Alternatively, one can count {x} directly.", "What if we take {x} in another way?"],
     ["There is also a second path, over {x}.", "One could as well start from {x}."]),
    (["Therefore {x} is {n}.", "So the answer for {x} is {n}.", "Thus {x} comes to {n}."],
     ["That gives {n} for {x} in the end.", "All in all {x} is {n}."]),
]  # fmt: skip
DECOYS = ["The sign said 'wait here until the bus comes'.", "Maybe Street is where Anna lives.",
          "He said 'let me in' to the guard.", "The First Bank opens at {n}.", "Perhaps is a word of seven letters.",
          "'Actually' was the name of the shop."]  # fmt: skip
PLAIN = ["{who} has {a} {o} and buys {b} more.", "There are {a} {o} in each of {b} boxes.", "{a} + {b} = {c}.",
         "{a} * {b} = {d}.", "{who} gives {b} {o} to a friend.", "Each of the {o} costs {a} dollars.",
         "On Monday {who} sold {a} {o}.", "After that there are {c} {o}.", "The shop has {c} {o} on the shelf.",
         "So we have {c} {o} here.", "{c} - {b} = {a}.", "Then {who} walks to the school with {a} {o}."]  # fmt: skip
THINGS = ["the number of apples", "the price of a ticket", "the cost of the lunch", "the total for the week",
          "the share of each child", "the rest of the money", "the pages left", "the miles on Monday",
          "the red marbles", "the second box"]  # fmt: skip


def sentence(chance: random.Random, template: str) -> str:
    """Fill a template."""
    a, b = chance.randint(2, 60), chance.randint(2, 20)
    return template.format(
        x=chance.choice(THINGS), n=chance.randint(2, 300), a=a, b=b, c=a + b, d=a * b,
        who=chance.choice(["Anna", "Ben", "Carla", "Dan", "Eva", "Finn"]),
        o=chance.choice(["apples", "books", "pens", "eggs", "cards", "coins"]),
    )  # fmt: skip


def thinking(chance: random.Random, *, thinks: bool) -> str:
    """Return sentences, of which states are some if it `thinks`, at any place."""
    said: list[str] = []
    least = chance.randint(14, 26)
    while len(said) < least:
        if thinks and chance.random() < 0.3:
            forms = chance.choice(STATES)
            said += [
                sentence(chance, chance.choice(forms[chance.random() >= 0.6])) for _ in range(chance.randint(1, 3))
            ]
        else:
            said.append(sentence(chance, chance.choice(DECOYS if chance.random() < 0.08 else PLAIN)))
    return "".join(text + ("\n" if chance.random() < 0.25 else " ") for text in said).strip()


def traces(tokenizer, count: int) -> pl.DataFrame:
    """Return templated traces in both conditions."""
    rows = []
    for condition in CONDITIONS:
        for number in range(count):
            chance = random.Random(f"{condition} {number}")
            question = " ".join(sentence(chance, PLAIN[index]) for index in (0, 5))
            prompt = tokenizer.apply_chat_template(
                [{"role": "user", "content": f"{question} How many are there?"}], add_generation_prompt=True
            )
            prompt = prompt if isinstance(prompt, list) else prompt["input_ids"]
            think = tokenizer(thinking(chance, thinks=condition == "reason"))["input_ids"]
            answer = tokenizer(f"\nThe answer is \\boxed{{{chance.randint(1, 99)}}}.")["input_ids"]
            edges = [0, len(prompt), len(prompt) + len(think), len(prompt) + len(think) + len(answer) + 1]
            segments = [
                {"segment": name, "start": start, "end": end}
                for name, start, end in zip(("prompt", "think", "answer"), edges, edges[1:], strict=False)
            ]
            rows.append(
                dict.fromkeys(generate.SCHEMA)
                | {"trace_id": number, "condition": condition, "prompt_ids": prompt, "segments": segments,
                   "generated_ids": [*think, *answer, tokenizer.eos_token_id]}
            )  # fmt: skip
    return pl.DataFrame(rows, schema=generate.SCHEMA)


def main() -> None:
    """Read, test, print."""
    from transformers import AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results/taught"))
    parser.add_argument("--traces", type=int, default=100)
    parser.add_argument("--sites", type=int, default=3)
    options = parser.parse_args()
    where = {"experiment": options.results.name, "reader": "trained"}
    manifest = files.read_json(paths.MANIFEST.format(**where))
    model = models.load_model(manifest, "float32")
    table = traces(AutoTokenizer.from_pretrained(options.results / "model"), options.traces)
    vocabulary = pl.scan_parquet(paths.VOCABULARY.format(**where))
    found = matches.matches(table.lazy(), vocabulary, patterns=LEXICON, reason_words=[]).lazy()
    folders = sorted((options.results / "saes" / "trained").iterdir())[: options.sites]
    linked, selective, tests, present = [], [], [], []
    for folder in folders:
        site = folder.name
        sae = formats.load(folder, devices.device())
        active = block.read(
            table, model=model, sae=sae, site=site, compared={}, log=logging.getLogger()
        ).activations.lazy()  # fmt: skip
        given = {name: ANALYSIS[name] for name in ("tokens_before", "tokens_after", "min_share", "include_sinks")}
        tests.append(
            patterns.pattern_tests(
                active, table.lazy(), found, vocabulary, patterns=LEXICON, condition=CONDITIONS[0], **given
            ).with_columns(site=pl.lit(site))
        )  # fmt: skip
        present.append(
            presence.presence(
                active, table.lazy(), conditions=CONDITIONS, min_excess=ANALYSIS["min_excess"], include_sinks=False
            ).with_columns(site=pl.lit(site))
        )
    whole = headline.headline(pl.concat(tests).lazy(), pl.concat(present).lazy(), table.lazy(), condition=CONDITIONS[0])
    for site, of_site in zip((folder.name for folder in folders), tests, strict=True):
        rows = whole.filter(pl.col("site") == site)
        links = rows.filter(pl.col("p_link") < ANALYSIS["alpha"])
        linked.append(100 * len(links) / max(1, len(rows)))
        best = links.join(of_site, on=["latent", "pattern"]).filter(pl.col("window") == pl.col("window_right"))
        selective.append(float(best["rank"].median() or 1.0))
        print(
            f"{site}: {len(rows)} latents tested, {len(links)} linked to a pattern, {(rows['q'] < 0.05).sum()} q < 0.05"
        )
    claims.claim("latents linked to any pattern, on templated text", linked, at_most=10, unit=" %")
    claims.claim("place of these by selectivity among all, 1 the most selective", selective, at_least=0.9)


if __name__ == "__main__":
    main()
