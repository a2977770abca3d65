"""Room 3, traces: what the model writes on each problem, cut into segments and graded."""

import logging
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate

import polars as pl
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from . import grading
from .. import models
from ..config import SEGMENTS
from ..errors import InputError
from ..frames import Schema, keys
from .decoding import Draws, write
from .sampling import uniforms

SCHEMA = Schema(
    "a trace",
    **keys("trace_id", "condition"),
    seed=(pl.UInt64, "seed of its sampling noise"),
    prompt_ids=(pl.List(pl.UInt32), "token ids of the prompt"),
    generated_ids=(pl.List(pl.UInt32), "token ids the model wrote; the last was never read"),
    prompt=(pl.String, "the prompt"),
    text=(pl.String, "what the model wrote"),
    finish_reason=(pl.Enum(["stop", "length"]), "whether it ended by itself or was cut"),
    segments=(
        pl.List(pl.Struct({"segment": pl.Enum(SEGMENTS), "start": pl.UInt32, "end": pl.UInt32})),
        "its parts: half-open ranges of positions in prompt and generated ids",
    ),
    predicted=(pl.String, "the answer in the text; null without one"),
    reference=(pl.String, "the reference answer"),
    correct=(pl.Boolean, "whether they are the same number, or text; null where that can't be said"),
)


def render(
    prompt: Mapping[str, str],
    question: str,
    tokenizer: PreTrainedTokenizerBase,
    trace_id: int,
    think: Mapping[str, str] | None = None,
) -> tuple[str, list[int]]:
    """Return the prompt of one problem, as text and as token ids.

    `prompt` is a template of the config: `user` (and `assistant`) go through the model's chat template, `raw` doesn't.
    A question that contains a control token's text, or a think marker, is refused: it would be read as that.
    """
    for marker in (think or {}).values():
        if marker in question:
            raise InputError(
                f"problem {trace_id} contains {marker!r}, which would be read as a think marker; remove it from the"
                " question."
            )
    added = {token_id: token for token, token_id in tokenizer.get_added_vocab().items() if token.strip()}
    for token_id in tokenizer(question, add_special_tokens=False)["input_ids"]:
        if token_id in added:
            raise InputError(
                f"problem {trace_id} contains the control token {added[token_id]!r}, which the model would obey;"
                " remove it from the question."
            )
    if "raw" in prompt:
        text = prompt["raw"].replace("{question}", question)
    else:
        if tokenizer.chat_template is None:
            raise InputError("the model has no chat template; write prompts with 'raw' instead of 'user'.")
        turn = [{"role": "user", "content": prompt["user"].replace("{question}", question)}]
        text = models.in_chat(tokenizer, turn, ask=True)
        text += prompt.get("assistant", "")
    return text, tokenizer(text, add_special_tokens=False)["input_ids"]


def segments(prompt: Sequence[str], generated: Sequence[str], think: Mapping[str, str] | None) -> list[dict]:
    """Cut a trace into `prompt`, `think` and `answer`; returns half-open ranges of positions, empty ones left out.

    `prompt` and `generated` are the texts of its tokens, `think` the model's markers (`open`, `close`), each of one
    token or more. What the model computed having read the open marker is the start of its thinking, and having read the
    close marker the start of its answer; so a marker's last token belongs to what follows.
    """
    start, end = len(prompt), len(prompt) + len(generated)
    cuts = [("prompt", 0, start)]
    mode = "answer"
    for position, following in _marks([*prompt, *generated], think):
        if position < len(prompt):
            mode = following
        elif following != mode:
            cuts.append((mode, start, position))
            mode, start = following, position
    cuts.append((mode, start, end))
    return [{"segment": name, "start": low, "end": high} for name, low, high in cuts if low < high]


def _marks(pieces: Sequence[str], think: Mapping[str, str] | None) -> Iterator[tuple[int, str]]:
    """Find the think markers in tokens' texts: the position of each one's last token, and the segment it begins."""
    if think is None:
        return
    ends = list(accumulate(map(len, pieces)))
    for found in re.finditer("|".join(re.escape(think[key]) for key in ("open", "close")), "".join(pieces)):
        yield bisect_left(ends, found.end()), "think" if found.group() == think["open"] else "answer"


def select(problems: pl.DataFrame, trace_ids: range) -> pl.DataFrame:
    """Return the problems of a block. Raises InputError when there are too few."""
    if trace_ids[-1] >= len(problems):
        raise InputError(
            f"config: inferences asks for problem {trace_ids[-1]}, but there are {len(problems)} problems, 0 to"
            f" {len(problems) - 1}; lower inferences or give more problems."
        )
    return problems[trace_ids[0] : trace_ids[-1] + 1]


def sampling_of(
    card: GenerationConfig, tokenizer: PreTrainedTokenizerBase, temperature: float | None, top_p: float | None
) -> tuple[float, float, list[int]]:
    """Return temperature, top-p and the tokens that end a turn; what is None is the model card's."""
    if temperature is None:
        temperature = card.temperature if card.temperature is not None else 1.0
    if top_p is None:
        top_p = card.top_p if card.top_p is not None else 1.0
    stop = card.eos_token_id if card.eos_token_id is not None else tokenizer.eos_token_id
    return temperature, top_p, sorted({stop} if isinstance(stop, int) else set(stop or ()))


def generate(
    problems: pl.DataFrame,
    *,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    card: GenerationConfig,
    condition: str,
    prompt: Mapping[str, str],
    think: Mapping[str, str] | None,
    seed: int,
    temperature: float | None,
    top_p: float | None,
    max_new_tokens: int,
    batch_size: int,
    log: logging.Logger,
) -> pl.DataFrame:
    """Let the model write on each problem; returns one row a trace, in SCHEMA.

    How tokens are drawn and which end a turn, see `sampling_of`. Raises InputError for an empty generation.
    """
    temperature, top_p, stop_ids = sampling_of(card, tokenizer, temperature, top_p)
    rendered = [
        render(prompt, question, tokenizer, trace_id, think)
        for trace_id, question in problems.select("trace_id", "question").iter_rows()
    ]

    @cache
    def text_of(token: int) -> str:
        return tokenizer.decode([token], clean_up_tokenization_spaces=False)

    generated = write(
        model,
        [ids for _, ids in rendered],
        Draws(
            uniforms(seed, condition, problems["trace_id"].to_list(), max_new_tokens),
            temperature,
            top_p,
            problems["trace_id"].to_list(),
        ),
        max_new_tokens=max_new_tokens,
        stop_ids=stop_ids,
        batch_size=batch_size,
        log=log,
    )
    table = []
    for (trace_id, reference), (text, ids), generated_ids in zip(
        problems.select("trace_id", "answer").iter_rows(), rendered, generated, strict=True
    ):
        finished = generated_ids[-1] in stop_ids
        written = generated_ids[:-1] if finished else generated_ids
        if not written:
            raise InputError(
                f"trace {trace_id} of condition {condition!r} is empty: the model ended its turn at once."
                " Change the prompt or the seed."
            )
        output = tokenizer.decode(written, clean_up_tokenization_spaces=False)
        predicted, correct = grading.grade(output, finished, reference)
        table.append(
            {
                "trace_id": trace_id,
                "condition": condition,
                "seed": seed,
                "prompt_ids": ids,
                "generated_ids": generated_ids,
                "prompt": text,
                "text": output,
                "finish_reason": "stop" if finished else "length",
                "segments": segments(
                    [text_of(token) for token in ids], [text_of(token) for token in generated_ids], think
                ),
                "predicted": predicted,
                "reference": reference,
                "correct": correct,
            }
        )
    return pl.DataFrame(table, schema=SCHEMA)
