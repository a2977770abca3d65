"""A finished study, or one that still runs, to be read in a notebook: its sites, tables, traces and latents.

    import thoughtscope

    study = thoughtscope.open("results/taught")
    study.site(20).table("outcomes").collect()              # which latents tell right from wrong
    study.search(pattern="verification", limit=20)
    study.site(20).latent(906).contexts(50).write_csv("906.csv")

Everything is read when it is asked for, and each file is compared with its digest. Nothing is written. Tables are
polars frames, lazy where they may be large; `results/README.md` and `columns` say what their columns hold.
"""

import difflib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import polars as pl

from . import files, paths
from .config import is_expression, layer_of, parse_site
from .errors import InputError
from .evidence import seeds
from .frames import Schema, complete, keys

BEFORE, AFTER = 12, 8
"""Tokens of a context before its peak, and behind it, unless others are asked for."""

CONTEXTS_SCHEMA = Schema(
    "a place where a latent is active, by falling activation; no token is in two of them",
    rank=(pl.UInt32, "from 1"),
    **keys("condition", "trace_id", "segment", "position", "token"),
    activation=(pl.Float32, "the latent's activation there"),
    text=(pl.String, "the text around it"),
)

TOKENS_SCHEMA = Schema(
    "a token of a context",
    rank=(pl.UInt32, "rank of the context"),
    **keys("condition", "trace_id", "position", "token"),
    text=(pl.String, "the token's text"),
    activation=(pl.Float32, "the latent's activation on it; 0 where it isn't active"),
)

FOUND_SCHEMA = Schema(
    "a place in what the model wrote",
    **keys("condition", "trace_id"),
    start=(pl.UInt32, "position of its first token"),
    end=(pl.UInt32, "position after its last token"),
    match=(pl.String, "what was found"),
    text=(pl.String, "the text around it"),
)

COMPARED_SCHEMA = Schema(
    "a latent of the first study and its counterpart in the second, by site",
    site=(pl.String, "the first study's site"),
    other_site=(pl.String, "the second's"),
    **{name: (kind, seeds.SCHEMA.about[name]) for name, kind in seeds.SCHEMA.items()},
)


def open(folder: str | Path, only: Mapping[str, Collection[str]] | None = None) -> "Study":
    """Return the study whose results are in `folder`, as `results/taught`. Raises InputError where there is none.

    A folder keeps what earlier configs of the study left: `only` says what counts, by level of the paths (`site`,
    `condition`, `block`, `reader`, `table`); of a level that it doesn't name, all.
    """
    return Study(folder, only)


class Study:
    """The results of a study, read from its folder."""

    def __init__(self, folder: str | Path, only: Mapping[str, Collection[str]] | None = None) -> None:
        self.folder, self._only = Path(folder), only or {}
        if not self._file(paths.MANIFEST).is_file():
            known = sorted(path.parent.name for path in self.folder.parent.glob("*/model.json"))
            there = f" Studies beside it: {', '.join(known)}." if known else " Run the workflow first."
            hint = _did_you_mean(self.folder.name, known)
            raise InputError(f"there is no study in {self.folder}: it has no model.json.{there}{hint}")

    def __repr__(self) -> str:
        return f"<study {self.folder}: {self.model['name']}, {', '.join(self.sites) or 'no site yet'}>"

    def _file(self, pattern: str, **levels: str) -> Path:
        """Return a file of the study; the folder may have been copied anywhere, under any name."""
        return self.folder / pattern.removeprefix(f"{paths.RESULTS}/").format(**levels)

    def _files(self, pattern: str, **levels: str) -> list[Path]:
        """Return the files of a pattern that are there and count, for any value of the levels that aren't given."""
        inner = pattern.removeprefix(f"{paths.RESULTS}/")
        levels = dict.fromkeys(re.findall(r"{(\w+)}", inner), "*") | levels
        found = sorted(self.folder.glob(inner.format(**levels)))
        return [path for path in found if self._counts(inner, path)]

    def _counts(self, pattern: str, path: Path) -> bool:
        try:
            levels = paths.parse(pattern, path.relative_to(self.folder).as_posix())
        except ValueError:  # not of this workflow: a copy of another name, or what a system leaves in folders
            return False
        return all(value in self._only.get(level, (value,)) for level, value in levels.items())

    def results(self) -> list[Path]:
        """Return the files that say what the study found: not its weights, nor what is of single tokens."""
        single = (paths.REPORT, paths.SUMMARY, paths.PROBLEMS, paths.VOCABULARY)
        many = (paths.TRACES, paths.TWIN_TRACES, paths.STUDY_TABLE, paths.READER_TABLE, paths.SITE_TABLE,
                paths.TRACE_TABLE, paths.STUDY_PICTURE, paths.SITE_PICTURE,
                f"{paths.TRACE_PICTURES}/{{file}}.png")  # fmt: skip
        return [path for pattern in (*single, *many) for path in self._files(pattern)]

    @cached_property
    def model(self) -> dict[str, Any]:
        """What is known of the model: name, layers, width, files with their hashes."""
        return files.read_json(self._file(paths.MANIFEST))

    @cached_property
    def sites(self) -> list[str]:
        """The sites that were read, in the order of their layers."""
        return self.sites_of("trained")

    def sites_of(self, reader: str) -> list[str]:
        """Return the sites that a reader has read; readers are `trained`, the study's own, and its twins."""
        found = {path.parents[2].name for path in self._files(paths.ACTIVATIONS, reader=reader)}
        return sorted(found, key=lambda site: (layer_of(parse_site(site)[0]), site))

    @cached_property
    def conditions(self) -> list[str]:
        """The conditions that traces were written under."""
        return sorted({path.parent.name for path in self._files(paths.TRACES)})

    @cached_property
    def readers(self) -> list[str]:
        """Who has read the traces: `trained`, the study's own SAE and model, and its twins."""
        found = {path.parents[3].name for path in self._files(paths.ACTIVATIONS)}
        return sorted(found, key=lambda reader: (reader != "trained", reader))

    def site(self, which: str | int, reader: str = "trained") -> "Site":
        """Return a site by its name, or by its layer where there is one of that layer."""
        known = self.sites_of(reader)
        chosen = [site for site in known if which in (site, layer_of(parse_site(site)[0]))]
        if len(chosen) != 1:
            what = f"{len(chosen)} sites of layer {which}: {', '.join(chosen)}" if chosen else f"no site {which!r}"
            raise InputError(f"{self.folder} has {what}; name one of: {', '.join(known) or 'none yet'}.")
        return Site(self, chosen[0], reader)

    @property
    def tables(self) -> list[str]:
        """The names of the tables that are there, those of sites, readers and the whole study."""
        found = [
            path.stem
            for pattern in (paths.STUDY_TABLE, paths.READER_TABLE, paths.SITE_TABLE)
            for path in self._files(pattern)
        ]
        return sorted(set(found))

    def table(self, name: str, site: str | int | None = None, reader: str = "trained") -> pl.LazyFrame:
        """Return a table: of a site; or where none is named, of the whole study, or of all sites with a `site`."""
        if site is not None:
            return self.site(site, reader).table(name)
        for pattern in (paths.STUDY_TABLE, paths.READER_TABLE):
            if (path := self._file(pattern, table=name, reader=reader)).exists():
                return files.scan_parquet(path)
        of_sites = [one for one in self.sites_of(reader) if self._table_file(name, one, reader).exists()]
        if not of_sites:
            hint = _did_you_mean(name, self.tables)
            raise InputError(f"{self.folder} has no table {name!r} of {reader}.{hint} `tables` lists them.")
        frames = [self.site(one, reader).table(name) for one in of_sites]
        return pl.concat(frame.with_columns(site=pl.lit(one)) for frame, one in zip(frames, of_sites, strict=True))

    def _table_file(self, name: str, site: str, reader: str) -> Path:
        return self._file(paths.SITE_TABLE, table=name, site=site, reader=reader)

    def columns(self, name: str) -> dict[str, str]:
        """Return what each column of a table holds, as its file says."""
        patterns = (paths.STUDY_TABLE, paths.READER_TABLE, paths.SITE_TABLE)
        found = [path for pattern in patterns for path in self._files(pattern, table=name)]
        if not found:
            self.table(name)  # which says what there is
        return files.descriptions(found[0])

    def traces(self, condition: str | None = None, reader: str = "trained") -> pl.LazyFrame:
        """Return what the model wrote, a row a trace: of a condition, or all; as a reader has it (`shuffled_text`).

        All that is on disk: blocks that a smaller `inferences` no longer counts are there, too.
        """
        levels = {"reader": reader} | ({"condition": condition} if condition else {})
        listed = self._files(paths.TWIN_TRACES, **levels) or self._files(paths.TRACES, **levels)
        if not listed:
            raise InputError(f"{self.folder} has no traces of {condition!r}; it has: {', '.join(self.conditions)}.")
        return files.scan_parquet(listed)

    def problems(self) -> pl.LazyFrame:
        """Return the problems, in the order of their traces."""
        return files.scan_parquet(self._file(paths.PROBLEMS))

    def trace(self, condition: str, trace_id: int) -> "Trace":
        """Return one trace."""
        found = self.traces(condition).filter(pl.col("trace_id") == trace_id).collect()
        if found.is_empty():
            count = self.traces(condition).select(pl.len()).collect().item()
            raise InputError(f"{self.folder} has no trace {trace_id} of {condition!r}; it has {count}.")
        return Trace(self, found.row(0, named=True))

    @cached_property
    def vocabulary(self) -> pl.DataFrame:
        """The model's tokens: token_id, their text, and a label that shows white space."""
        return files.read_parquet(self._file(paths.VOCABULARY))

    @cached_property
    def _texts(self) -> list[str]:
        return self.vocabulary.sort("token_id")["text"].to_list()

    @cached_property
    def _labels(self) -> list[str]:
        return self.vocabulary.sort("token_id")["token"].to_list()

    def search(
        self,
        text: str | None = None,
        pattern: str | None = None,
        token: str | None = None,
        condition: str | None = None,
        limit: int | None = None,
    ) -> pl.DataFrame:
        """Return places in what the model wrote, in FOUND_SCHEMA: condition, trace_id, start, end, match, text.

        text: any text, as it stands there, large or small letters; or an expression, as `/wait|hmm/`. pattern: the name
        of a thinking pattern of the config. token: the text of one token, blanks before it or not. Of several, those
        places of the first that a place of each other one overlaps.
        """
        asked = {name: value for name, value in (("text", text), ("pattern", pattern), ("token", token)) if value}
        if not asked:
            raise InputError("search for something: text, pattern or token.")
        traces = self.traces(condition).collect()
        places = [getattr(self, f"_places_of_{name}")(traces, value) for name, value in asked.items()]
        first = places[0]
        for others in places[1:]:
            kept = first.join(others, on=["condition", "trace_id"], suffix="_other")
            kept = kept.filter(pl.col("start") < pl.col("end_other"), pl.col("start_other") < pl.col("end"))
            first = kept.select(first.columns).unique(maintain_order=True)
        first = first.sort("condition", "trace_id", "start", "end").head(limit or len(first))
        ids_of = _ids_of(traces)
        around = [
            self._text(ids_of[condition, trace_id][max(0, start - BEFORE) : end + AFTER])
            for condition, trace_id, start, end in first.select("condition", "trace_id", "start", "end").iter_rows()
        ]
        return complete(first.with_columns(text=pl.Series(around, dtype=pl.String)), FOUND_SCHEMA)

    def _text(self, ids: Iterable[int]) -> str:
        return "".join(self._texts[token] for token in ids)

    def _places_of_text(self, traces: pl.DataFrame, text: str) -> pl.DataFrame:
        from .evidence.matches import matches

        if not is_expression(text):
            text = f"/(?i:{re.escape(text)})/"
        lexicon = json.dumps({"text": [text]})
        return _places(matches(traces.lazy(), self.vocabulary.lazy(), patterns=lexicon, reason_words=[]))

    def _places_of_pattern(self, traces: pl.DataFrame, pattern: str) -> pl.DataFrame:
        found = self.table("matches").filter(pl.col("kind").cast(pl.String) == "pattern").collect()
        if pattern not in (known := found["name"].unique().sort().to_list()):
            raise InputError(f"{self.folder} has no pattern {pattern!r} in its text; it has: {', '.join(known)}.")
        return _places(found.filter(name=pattern).join(traces, on=["condition", "trace_id"], how="semi"))

    def _places_of_token(self, traces: pl.DataFrame, token: str) -> pl.DataFrame:
        wanted = [index for index, text in enumerate(self._texts) if token in (text, text.strip())]
        if not wanted:
            raise InputError(f"{token!r} is no token of {self.model['name']}; search for it as text.")
        prompt, written = pl.col("prompt_ids").list.len(), pl.col("generated_ids").alias("token_id")
        every = traces.select("condition", "trace_id", written, first=prompt)
        every = every.with_columns(start=pl.int_ranges(0, pl.col("token_id").list.len()))
        every = every.explode("token_id", "start").filter(pl.col("token_id").is_in(wanted))
        start = pl.col("first") + pl.col("start")
        return every.select("condition", "trace_id", start=start.cast(pl.UInt32), end=(start + 1).cast(pl.UInt32),
                            match=pl.lit(token))  # fmt: skip


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return a sentence with the nearest known name, if one is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _ids_of(traces: pl.DataFrame) -> dict[tuple[str, int], list[int]]:
    """Return the token ids of each trace, by condition and trace_id."""
    columns = traces.select("condition", "trace_id", "prompt_ids", "generated_ids")
    return {(condition, trace_id): prompt + written for condition, trace_id, prompt, written in columns.iter_rows()}


def _places(found: pl.DataFrame) -> pl.DataFrame:
    columns = found.select("condition", "trace_id", "start", "end", match="text")
    return columns.unique(["condition", "trace_id", "start", "end"], keep="first", maintain_order=True)


class Site:
    """A site of a study, as one reader reads it."""

    def __init__(self, study: Study, name: str, reader: str) -> None:
        self.study, self.name, self.reader = study, name, reader

    def __repr__(self) -> str:
        return f"<site {self.name} of {self.study.folder}, read by {self.reader}>"

    @cached_property
    def sae(self) -> dict[str, Any]:
        """What is known of its SAE: where it is from, its size, its files with their hashes."""
        return files.read_json(self._sae_file(paths.SAE_INFO))

    def _sae_file(self, pattern: str) -> Path:
        own = self.study._file(pattern, reader=self.reader, hookpoint=parse_site(self.name)[0])
        return own if own.exists() else self.study._file(pattern, reader="trained", hookpoint=parse_site(self.name)[0])

    @property
    def tables(self) -> list[str]:
        """The names of its tables."""
        return [path.stem for path in self.study._files(paths.SITE_TABLE, site=self.name, reader=self.reader)]

    def table(self, name: str) -> pl.LazyFrame:
        """Return one of its tables."""
        path = self.study._table_file(name, self.name, self.reader)
        if not path.exists():
            hint = _did_you_mean(name, self.tables)
            raise InputError(f"{self.name} has no table {name!r}.{hint} It has: {', '.join(self.tables)}.")
        return files.scan_parquet(path)

    def activations(self, condition: str | None = None) -> pl.LazyFrame:
        """Return the active latents of every token that was read, a row a token and latent."""
        levels = {"site": self.name, "reader": self.reader} | ({"condition": condition} if condition else {})
        listed = self.study._files(paths.ACTIVATIONS, **levels)
        if not listed:
            raise InputError(f"{self.name} has no activations of {condition!r}.")
        return files.scan_parquet(listed)

    @property
    def verdict(self) -> pl.DataFrame:
        """The verdict on each candidate latent, the surest first."""
        return self.table("verdict").collect()

    def latent(self, latent: int) -> "Latent":
        """Return one of its latents, whether it is a candidate or not."""
        if not 0 <= latent < self.sae["num_latents"]:
            raise InputError(f"{self.name} has no latent {latent}; its SAE has {self.sae['num_latents']}, from 0.")
        return Latent(self, latent)


class Latent:
    """One latent of a site."""

    def __init__(self, site: Site, latent: int) -> None:
        self.site, self.latent = site, latent

    def __repr__(self) -> str:
        row = self.verdict
        return f"<latent {self.latent} at {self.site.name}: {row['verdict'] if row else 'no candidate'}>"

    def activations(self, condition: str | None = None) -> pl.LazyFrame:
        """Return the tokens it is active on, with its activation."""
        return self.site.activations(condition).filter(pl.col("latent") == self.latent)

    @cached_property
    def verdict(self) -> dict[str, Any] | None:
        """Its row in the verdict: results, numbers and notes of every check; None where it is no candidate."""
        found = self.site.table("verdict").filter(pl.col("latent") == self.latent).collect()
        return found.row(0, named=True) if len(found) else None

    def contexts(
        self,
        most: int = 50,
        *,
        condition: str | None = None,
        before: int = BEFORE,
        after: int = AFTER,
        sinks: bool = False,
    ) -> pl.DataFrame:
        """Return up to `most` places where it is most active on generated tokens, in CONTEXTS_SCHEMA.

        The largest activation first; no token is in two of them. before, after: tokens of text around the peak.
        """
        return complete(self._peaks(most, condition, before, after, sinks).drop("ids", "first"), CONTEXTS_SCHEMA)

    def tokens(
        self,
        most: int = 50,
        *,
        condition: str | None = None,
        before: int = BEFORE,
        after: int = AFTER,
        sinks: bool = False,
    ) -> pl.DataFrame:
        """Return the same places token by token, in TOKENS_SCHEMA."""
        peaks = self._peaks(most, condition, before, after, sinks)
        rows = peaks.select("rank", "condition", "trace_id", pl.col("ids").alias("token_id"), position="first")
        rows = rows.with_columns(position=pl.int_ranges("position", pl.col("position") + pl.col("token_id").list.len()))
        rows = rows.explode("position", "token_id").with_columns(pl.col("position").cast(pl.UInt32))
        study = self.site.study
        values = self.activations(condition).select("condition", "trace_id", "position", "activation").collect()
        rows = rows.join(values, on=["condition", "trace_id", "position"], how="left", maintain_order="left")
        rows = rows.with_columns(pl.col("activation").fill_null(0.0)).join(
            study.vocabulary.select("token_id", "token", "text"), on="token_id", how="left", maintain_order="left"
        )
        return complete(rows, TOKENS_SCHEMA)

    def _peaks(self, most: int, condition: str | None, before: int, after: int, sinks: bool) -> pl.DataFrame:
        """Return CONTEXTS_SCHEMA, with the position of the first token shown and the ids of all."""
        study = self.site.study
        able = self.activations(condition).filter(pl.col("segment").cast(pl.String) != "prompt")
        if not sinks:
            able = able.filter(~pl.col("sink"))
        able = able.sort("activation", "condition", "trace_id", "position", descending=[True, False, False, False])
        taken: dict[tuple[str, int], list[int]] = {}
        rows: list[dict[str, Any]] = []
        for row in able.collect().iter_rows(named=True):
            if len(rows) == most:
                break
            others = taken.setdefault((row["condition"], row["trace_id"]), [])
            if all(abs(row["position"] - other) > before + after for other in others):
                others.append(row["position"])
                rows.append(row | {"rank": len(rows) + 1, "token": study._labels[row["token_id"]]})
        wanted = pl.DataFrame(list(taken), schema={"condition": pl.String, "trace_id": pl.UInt32}, orient="row")
        traces = (
            study.traces(condition, self.site.reader)
            .join(wanted.lazy(), on=["condition", "trace_id"], how="semi")
            .collect()
        )
        ids_of = _ids_of(traces)
        for row in rows:
            row["first"] = max(0, row["position"] - before)
            row["ids"] = ids_of[row["condition"], row["trace_id"]][row["first"] : row["position"] + after + 1]
            row["text"] = study._text(row["ids"])
        schema = CONTEXTS_SCHEMA | {"ids": pl.List(pl.UInt32), "first": pl.UInt32}
        return pl.DataFrame(rows, schema_overrides=schema).select(*schema) if rows else pl.DataFrame(schema=schema)

    def top_tokens(self, most: int = 10, condition: str | None = None) -> pl.DataFrame:
        """Return the token types it is active on, by its largest activation there: token, tokens, max, mean."""
        able = self.activations(condition).filter(pl.col("segment").cast(pl.String) != "prompt", ~pl.col("sink"))
        counts = able.group_by("token_id").agg(
            tokens=pl.len(), max=pl.col("activation").max(), mean=pl.col("activation").mean()
        )
        labels = self.site.study.vocabulary.select("token_id", "token").lazy()
        joined = counts.join(labels, on="token_id", how="left").sort("max", "token_id", descending=[True, False])
        return joined.select("token", "token_id", "tokens", "max", "mean").head(most).collect()

    @property
    def description(self) -> dict[str, Any] | None:
        """Its row of `descriptions`: a rule that says what it is on, and how well; none of most latents."""
        if "descriptions" not in self.site.tables:  # of the leading ones alone there is one, and of no twin's
            return None
        return next(self.site.table("descriptions").filter(latent=self.latent).collect().iter_rows(named=True), None)

    def card(self, most: int = 10) -> "Card":
        """Return what its dashboard shows first: verdict and checks, top tokens, strongest contexts. For a notebook."""
        row = self.verdict
        parts = [f"<h3>latent {self.latent} at {escape(self.site.name)}</h3>"]
        if row is None:
            parts.append("<p>It is no candidate: it wasn’t judged.</p>")
        else:
            parts.append(f"<p><b>{escape(str(row['verdict']))}</b></p>")
            checks = [name.removesuffix("_note") for name in row if name.endswith("_note")]
            lines = [[name.replace("_", " "), row[name], row[f"{name}_note"]] for name in checks if row[name]]
            parts.append(_table(["check", "result", "note"], lines))
        said = self.description
        if said and said["rule"]:
            parts.append(f"<p>In words, as a rule proposes (F1 {said['f1']:.2f}): {escape(said['rule'])}</p>")
        parts.append(_table(["token", "tokens", "largest", "mean"],
                            self.top_tokens(most).select("token", "tokens", "max", "mean").rows()))  # fmt: skip
        for (rank,), tokens in self.tokens(most).group_by("rank", maintain_order=True):
            about = f"{rank}. {tokens['condition'][0]} {tokens['trace_id'][0]}"
            parts.append(f"<p><small>{escape(about)}</small> {_shaded(tokens['text'], tokens['activation'])}</p>")
        return Card("".join(parts))


class Trace:
    """One trace: what was asked and what the model wrote."""

    def __init__(self, study: Study, row: Mapping[str, Any]) -> None:
        self.study, self.row = study, row
        self.condition, self.trace_id = str(row["condition"]), int(row["trace_id"])
        self.prompt, self.text, self.correct = row["prompt"], row["text"], row["correct"]

    def __repr__(self) -> str:
        written = len(self.row["generated_ids"])
        return f"<trace {self.condition} {self.trace_id}: {written} tokens written, correct: {self.correct}>"

    @property
    def segments(self) -> dict[str, str]:
        """The text of each of its parts: prompt, think, answer."""
        ids = self.row["prompt_ids"] + self.row["generated_ids"]
        found: dict[str, str] = {}
        for part in self.row["segments"]:
            text = self.study._text(ids[part["start"] : part["end"]])
            found[part["segment"]] = found.get(part["segment"], "") + text
        return found

    @property
    def tokens(self) -> pl.DataFrame:
        """Its tokens: position, segment, token_id, token, text."""
        ids = self.row["prompt_ids"] + self.row["generated_ids"]
        segment = [part["segment"] for part in self.row["segments"] for _ in range(part["start"], part["end"])]
        table = pl.DataFrame(
            {"position": range(len(ids)), "segment": segment, "token_id": ids},
            schema_overrides={"position": pl.UInt32, "token_id": pl.UInt32},
        )
        names = self.study.vocabulary.select("token_id", "token", "text")
        return table.join(names, on="token_id", how="left", maintain_order="left")

    def activations(self, site: str | int) -> pl.DataFrame:
        """Return the latents active on each of its tokens at a site."""
        of_condition = self.study.site(site).activations(self.condition)
        return of_condition.filter(pl.col("trace_id") == self.trace_id).collect()

    def shaded(self, site: str | int, latent: int) -> "Card":
        """Return its text with each token shaded by a latent's activation. For a notebook."""
        values = dict(self.activations(site).filter(latent=latent).select("position", "activation").iter_rows())
        tokens = self.tokens
        return Card(f"<p>{_shaded(tokens['text'], [values.get(at, 0.0) for at in tokens['position']])}</p>")


class Card:
    """A piece of a page, which a notebook shows as such; `html` has it as text."""

    def __init__(self, html: str) -> None:
        self.html = f'<div style="font-family: system-ui, sans-serif; max-width: 60em">{html}</div>'

    def __repr__(self) -> str:
        return "<a piece of a page; a notebook shows it, and html has it>"

    def _repr_html_(self) -> str:
        return self.html


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as html."""
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = ["".join(f"<td>{escape(_shown(value))}</td>" for value in row) for row in rows]
    return f"<table><tr>{cells}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _shown(value: Any) -> str:
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _shaded(texts: Iterable[str], values: Iterable[float]) -> str:
    """Return tokens as html, each with a background by its share of the largest value."""
    values = list(values)
    most = max([*values, 1e-30])
    parts = [
        f'<span style="background: rgb(213 94 0 / {value / most:.0%})" title="{value:.3g}">{escape(text)}</span>'
        if value > 0
        else escape(text)
        for text, value in zip(texts, values, strict=True)
    ]
    return f'<span style="white-space: pre-wrap">{"".join(parts)}</span>'


def compare(first: Study, second: Study, sites: Sequence[tuple[str | int, str | int]] | None = None) -> pl.DataFrame:
    """Return the tested latents of one study beside those of another, in COMPARED_SCHEMA.

    Of two SAEs, two seeds, or two models of one width: latents are matched one to one by their decoder directions, so
    that the sum of |cos| is largest. sites: which of the first with which of the second; without them those that both
    have. Raises InputError where the directions are of different widths.
    """
    pairs = sites if sites is not None else [(site, site) for site in first.sites if site in second.sites]
    if not pairs:
        raise InputError(
            f"the studies have no site in common: {', '.join(first.sites)} and {', '.join(second.sites)}; name pairs,"
            " as sites=[(10, 12)]."
        )
    frames = []
    for one, other in pairs:
        both = first.site(one), second.site(other)
        widths = [site.sae["d_in"] for site in both]
        if widths[0] != widths[1]:
            raise InputError(
                f"directions at {both[0].name} are {widths[0]} wide, at {both[1].name} {widths[1]}; only SAEs of one"
                " width can be compared."
            )
        readers = ("first", "second")
        headlines = pl.concat(
            site.study.table("headline")
            .filter(pl.col("site") == site.name)
            .select("latent", "p_link", reader=pl.lit(name))
            for name, site in zip(readers, both, strict=True)
        )
        verdicts = pl.concat(
            site.table("verdict").select("latent", pl.col("verdict").cast(pl.String), reader=pl.lit(name))
            for name, site in zip(readers, both, strict=True)
        )
        weights = [site._sae_file(paths.SAE_WEIGHTS) for site in both]
        table = seeds.seeds(
            headlines.with_columns(site=pl.lit("here")),
            verdicts,
            weights[0],
            both[0].sae,
            weights[1],
            both[1].sae,
            site="here",
            readers=readers,
        )
        frames.append(table.with_columns(site=pl.lit(both[0].name), other_site=pl.lit(both[1].name)))
    return complete(pl.concat(frames), COMPARED_SCHEMA)
