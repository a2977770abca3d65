"""A tokenizer's vocabulary as a table, with labels a person can read."""

import unicodedata
from functools import cache
from typing import TYPE_CHECKING

import polars as pl

from .frames import Schema, keys

if TYPE_CHECKING:  # labels are wanted where loading transformers would take longer than the work
    from transformers import PreTrainedTokenizerBase

SCHEMA = Schema(
    "an id the model can write",
    **keys("token_id"),
    piece=(pl.String, "the token as it is in the vocabulary"),
    text=(pl.String, "its text; empty for an id without a token"),
    token=(pl.String, "its label: with marks for white space, bytes for a part of a character"),
)

_VISIBLE = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}
"""Marks for the white space that tokens are full of."""


def table(tokenizer: "PreTrainedTokenizerBase", vocab_size: int) -> pl.DataFrame:
    """Return one row per id the model can write, in SCHEMA.

    A token that is part of a character has no text of its own; its label shows its bytes, e.g. `\\xe2\\x80`.
    """
    ids = list(range(max(len(tokenizer), vocab_size)))
    pieces = tokenizer.convert_ids_to_tokens(ids)
    rows = []
    for token_id, piece in zip(ids, pieces, strict=True):
        if piece is None:  # a hole in the ids, as some models pad their embeddings
            rows.append((token_id, "", "", f"[{token_id}]"))
            continue
        text = tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
        if piece.startswith("▁") and not text.startswith(" "):  # SentencePiece drops a first token's blank
            text = " " + text
        rows.append((token_id, piece, text, label(text) if "\ufffd" not in text else _bytes_label(piece)))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def label(text: str) -> str:
    """Return text with white space as marks, and controls, format characters and surrogates as escapes."""
    return "".join(_VISIBLE.get(char) or (char if _shows(char) else escape(char)) for char in text)


def _shows(char: str) -> bool:
    return unicodedata.category(char)[0] not in "CZ" and not unicodedata.combining(char)


def escape(char: str) -> str:
    """Return a character as an escape sequence of its code point."""
    code = ord(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _bytes_label(piece: str) -> str:
    """Show the bytes of a byte-level BPE piece, or the piece itself where it isn't one."""
    if all(char in _byte_of_char() for char in piece):
        return "".join(
            chr(byte) if 0x20 < byte < 0x7F else _VISIBLE.get(chr(byte)) or f"\\x{byte:02x}"
            for byte in (_byte_of_char()[char] for char in piece)
        )
    return label(piece)


@cache
def _byte_of_char() -> dict[str, int]:
    """Invert GPT-2's `bytes_to_unicode` (Radford et al. 2019): printable bytes are themselves, others move up."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    moved = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(moved)}
