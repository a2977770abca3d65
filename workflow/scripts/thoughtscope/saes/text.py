"""Room 4, SAEs: the text they are trained on, as token ids. No torch."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from ..errors import InputError
from ..models import in_chat

if TYPE_CHECKING:  # seconds to import
    from transformers import PreTrainedTokenizerBase


def training_texts(problems: pl.DataFrame, tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Return texts to train on: plain text as it is, or question and solution as the conversation they would be."""
    texts = []
    for question, solution, text in problems.select("question", "solution", "text").iter_rows():
        if text is not None:
            texts.append(text)
        elif solution is not None:
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": solution}]
            texts.append(
                in_chat(tokenizer, turns, ask=False) if tokenizer.chat_template else f"{question}\n{solution}\n"
            )
    return texts


def sequences_of(tokens: int, heldout_tokens: int, context: int) -> tuple[int, int]:
    """Return how many sequences of `context` tokens are trained on, and how many are held out: one of each at least."""
    return max(1, tokens // context), max(1, heldout_tokens // context)


def token_ids(
    problems: pl.DataFrame, tokenizer: "PreTrainedTokenizerBase", wanted: int, source: Mapping[str, Any]
) -> list[int]:
    """Return the first `wanted` token ids of the training texts, one after the other.

    `source` is the config's `sae.text`. Raises InputError where there are fewer, with the rows that have no text.
    """
    ids: list[int] = []
    texts = training_texts(problems, tokenizer)
    for text in texts:
        ids += tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) >= wanted:
            return ids[:wanted]
    left_out = ""
    if empty := len(problems) - len(texts):
        column = source.get("text") or source.get("solution") or "worked solution"
        left_out = f" ({empty} of its {len(problems)} rows are left out, as their {column} is empty)"
    more = "raise sae.text.size" if source.get("source") in ("reasoning_gym", "lessons") else "give it more rows"
    raise InputError(
        f"config: sae.text gives {len(ids)} tokens{left_out}, but sae.tokens and sae.heldout_tokens ask for {wanted};"
        f" {more}, or ask for fewer tokens."
    )


def held_out(
    problems: pl.DataFrame, tokenizer: "PreTrainedTokenizerBase", tokens: int, heldout_tokens: int, context: int
) -> list[list[int]]:
    """Return the sequences of the training text that training holds out, `context` token ids each."""
    trained, rest = sequences_of(tokens, heldout_tokens, context)
    ids = token_ids(problems, tokenizer, (trained + rest) * context, {})
    return [ids[row * context : (row + 1) * context] for row in range(trained, trained + rest)]
