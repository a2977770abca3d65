"""The report in a real browser: what it says and does, checked against the tables; hostile text, no network."""

import base64
import hashlib
import html
import json
import re
import subprocess
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import REPO, Study, cells, new_study, open_board, open_page
from playwright.sync_api import Page

from thoughtscope import files, paths
from thoughtscope.config import REPORT_PICTURES, REPORT_PICTURES_ACROSS, REPORT_TABLES
from thoughtscope.evidence import checks, headline, links, patterns, presence
from thoughtscope.evidence.checks import BY_NAME, CHECKS, VERDICTS, fits
from thoughtscope.evidence.links import WINDOWS
from thoughtscope.evidence.verdict import SCHEMA
from thoughtscope.frames import complete
from thoughtscope.report import needs, provenance, reader
from thoughtscope.report import page as report
from thoughtscope.report import words as in_words
from thoughtscope.report.findings import share_interval
from thoughtscope.report.needs import in_words as in_words_of
from thoughtscope.report.study import load

SITE = "layers.1.mlp"
BLOCK = "00000-00003"
HOSTILE = [
    "<script>window.hostile = 1</script><img src=x onerror='window.hostile = 2'>",
    "</script><!-- \"quoted\" & 'single' \\ back\\n {{ 7 * 7 }} ${7} &lt;b&gt;",
    "right \u202eto left\u202c, zero\u200bwidth, bell\u0007, é, 中文, 🙂, \u2028line",
    "</table></dialog><a href='javascript:window.hostile = 3'>link</a> %s %(x)s \ud7ff",
]
CONDITIONS = ["reason", "bypass", "again"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Study:
    """A run whose problems, prompts and patterns are hostile, with more active latents than the tiny study.

    Its controls aren't in the order of the alphabet, as those of the original study aren't.
    """
    study = new_study(tmp_path_factory.mktemp("report") / "study", tiny_model).edit(
        inferences=4, block_size=4, analysis__top_latents=8, generation__max_new_tokens=40, sae__k=8,
        prompts__reason__user="{question} <b id=hostile>Think</b> \\ \"'", prompts__again={"user": "Again: {question}"},
        conditions=CONDITIONS,
        patterns={"odd": ["/[^<]/"], "none": ["</b>"]},
        report={"neuronpedia": "gpt2-small/{layer}-mlp"},
    )  # fmt: skip
    rows = [{"question": text, "answer": "1"} for text in HOSTILE]
    (study.folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    study.run()
    return study


@pytest.fixture
def page(browser, study):
    page = open_page(browser, study.results)
    yield page
    assert page.seen == []
    page.context.close()


def table(study: Study, name: str) -> pl.DataFrame:
    return pl.read_parquet(study.results / "tables" / "trained" / SITE / f"{name}.parquet")


def activations(study: Study, condition: str) -> pl.DataFrame:
    folder = study.results / "readings" / "trained" / SITE / condition / BLOCK
    return pl.read_parquet(folder / "activations.parquet")


def shown_latents(page: Page) -> list[int]:
    return [int(text) for text in page.locator("#latents-0 tbody tr:visible th > a").all_inner_texts()]


def test_it_is_one_file_that_answers_first(page, study):
    assert page.title() == "tiny – thoughtscope report"
    verdict = table(study, "verdict")
    counts = dict(
        zip(page.locator(".tiles dt").all_inner_texts(), page.locator(".tiles dd").all_inner_texts(), strict=True)
    )
    found = verdict["verdict"].cast(pl.String).value_counts()
    named = dict(found.iter_rows())
    assert {name: int(count) for name, count in counts.items()} == {
        "candidates": len(verdict), "ruled out": named.get("no", 0), "undecided": named.get("undecided", 0),
        "pass all checks": named.get("thinking pattern", 0),
    }  # fmt: skip
    # Four traces are too few for anything, which is said first.
    finding = page.locator(".finding").inner_text()
    assert finding.startswith(
        "This study is too small to find a thinking pattern: it has 4 problems, and no test works"
    )
    assert page.locator(".finding code").inner_text() == "snakemake --cores all --config inferences=30"
    assert f"Of {len(verdict)} candidate latents" in finding
    assert "none passes" not in page.locator("main").inner_text()
    for name in ("recurs beyond control", "not merely lexical"):
        results = verdict[name.replace(" ", "_")].cast(pl.String)
        shown = (
            page.locator(".waterfall tr", has=page.get_by_role("rowheader", name=name)).locator("td").all_inner_texts()
        )
        assert [int(text) for text in shown[2:5]] == [
            (results == result).sum() for result in ("pass", "fail", "undecided")
        ]
    text = (study.results / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", re.sub(r"<script type.*?</script>", "", text, flags=re.S))
    headings = page.locator("h2").all_inner_texts()
    assert headings.index("What speaks against it") < headings.index("Layers side by side") < headings.index("Methods")


def test_every_leading_latent_has_a_row(page, study):
    assert sorted(shown_latents(page)) == sorted(table(study, "verdict")["latent"])
    for row in table(study, "verdict").iter_rows(named=True):
        text = page.locator(f'#latents-0 tr[data-latent="{row["latent"]}"]').inner_text()
        assert f"{row['traces']}/{row['of']}" in text
        assert row["verdict"] in text
    # Each control's counts are in the column that names it.
    headings = [text.strip() for text in page.locator("#latents-0 thead th").all_inner_texts()]
    assert [text for text in headings if text in ("in bypass", "in again")] == ["in bypass", "in again"]
    controls = table(study, "controls")
    assert (
        controls.filter(control="bypass")["traces_control"] != controls.filter(control="again")["traces_control"]
    ).any()
    for row in controls.iter_rows(named=True):
        cells = page.locator(f'#latents-0 tr[data-latent="{row["latent"]}"] > *')
        if cells.count():
            shown = cells.nth(headings.index(f"in {row['control']}")).inner_text()
            assert shown.split()[0] == f"{row['traces_control']}/{row['of']}"


def test_headings_sort(page, study):
    verdict = table(study, "verdict")
    heading = page.get_by_role("columnheader", name="latent", exact=True)
    heading.get_by_role("button").click()
    assert shown_latents(page) == sorted(verdict["latent"])
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.get_by_role("button").press("Enter")
    assert shown_latents(page) == sorted(verdict["latent"], reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"
    page.get_by_role("columnheader", name="in traces").get_by_role("button").click()
    traces = dict(verdict.select("latent", "traces").iter_rows())
    counts = [traces[latent] for latent in shown_latents(page)]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) > 1
    assert heading.get_attribute("aria-sort") is None
    for control in ("again", "bypass"):
        counts = dict(table(study, "controls").filter(control=control).select("latent", "traces_control").iter_rows())
        page.get_by_role("columnheader", name=f"in {control}").get_by_role("button").click()
        order = [counts[latent] for latent in shown_latents(page)]
        assert order == sorted(order, reverse=True) != sorted(order)
    shares = dict(table(study, "lexicality").select("latent", "typed").iter_rows())
    page.get_by_role("columnheader", name="top tokens").get_by_role("button").click()
    order = [shares[latent] for latent in shown_latents(page)]
    known = [share for share in order if share is not None]
    assert order == sorted(known) + [None] * (len(order) - len(known))


def test_columns_without_a_number_are_left_out_and_said_so(page, study):
    assert table(study, "reason_scores")["score"].drop_nulls().is_empty()
    assert page.get_by_role("columnheader", name="ReasonScore").count() == 0
    assert "No latent has a number for “ReasonScore” (no reasoning word" in page.locator("#layers").inner_text()


def test_filters_hide_rows(page, study):
    verdict = table(study, "verdict")
    form = page.locator("form.filters").first
    search = form.get_by_label("Search")
    tokens = dict(table(study, "lexicality").select("latent", "top_tokens").iter_rows())
    named = {
        row["latent"]: f"{row['latent']} {row['verdict']} {in_words.why(row)} {tokens.get(row['latent']) or ''}".lower()
        for row in verdict.iter_rows(named=True)
    }
    # The results of checks are behind each row's marks, which isn't what one looks for.
    for wanted in (str(verdict["latent"].max()), "undecided", "q", "pass"):
        search.fill(wanted)
        shown = shown_latents(page)
        assert sorted(shown) == sorted(latent for latent, text in named.items() if wanted in text)
        expected = f"{len(shown)} of {len(verdict)} latents" if len(shown) < len(verdict) else f"{len(verdict)} latents"
        assert form.locator("output").inner_text() == expected
    assert shown == []
    search.fill("nothing has this")
    assert shown_latents(page) == []
    search.fill("")
    kept = verdict.filter(pl.col("verdict") == "no")["latent"].to_list()
    form.get_by_label("Verdict").select_option("no")
    assert sorted(shown_latents(page)) == sorted(kept)
    form.get_by_label("Verdict").select_option("")
    assert len(shown_latents(page)) == len(verdict)
    for check in ("not merely lexical", "pattern linked"):
        for result in ("pass", "fail", "undecided"):
            form.get_by_label("Check").select_option(label=f"{check}: {result}")
            kept = verdict.filter(pl.col(check.replace(" ", "_")).cast(pl.String) == result)["latent"].to_list()
            assert sorted(shown_latents(page)) == sorted(kept)


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def test_a_dashboard_shows_the_tables(page, study):
    for row in table(study, "verdict").head(3).iter_rows(named=True):
        latent = row["latent"]
        open_board(page, latent)
        checks = cells(page, "Checks")
        assert [check[0] for check in checks][:2] == ["not a sink", "fits its site"]
        for name, result, shown, what, note, takes in checks:
            key = name.replace(" ", "_")
            assert (result.strip(), note) == (row[key], row[f"{key}_note"].replace(" -", " −"))
            assert takes == (in_words_of(row, f"{key}_needs") or "–")
            assert (
                shown == "–"
                if row[f"{key}_number"] is None
                else number(shown) == pytest.approx(row[f"{key}_number"], 6e-3)
            )
            assert what.startswith(("share", "FVU", "q, below 0.05", "excess", "selectivity"))
        passages = table(study, "passages").filter(latent=latent)
        values = [number(text) for text in page.locator(".passage .value").all_inner_texts()]
        assert values == pytest.approx(passages["activation"].to_list(), rel=6e-3)
        texts = page.locator(".passage p").evaluate_all("nodes => nodes.map((node) => node.children.length)")
        assert texts == passages["token_ids"].list.len().to_list()
        peaks = page.locator(".passage .peak").evaluate_all("nodes => nodes.map((node) => node.title)")
        assert [number(title.rpartition(": ")[2]) for title in peaks] == pytest.approx(values)
        effects = table(study, "logit_effects").filter(latent=latent)
        for side, label in (("top", "raises"), ("bottom", "lowers")):
            expected = effects.filter(side=side).select("token", "effect").rows()
            assert [(token, number(effect)) for token, effect in cells(page, label)] == [
                (token, pytest.approx(effect, rel=6e-3)) for token, effect in expected
            ]
        near = table(study, "neighbours").filter(latent=latent).select("neighbour", "cosine").rows()
        shown = [(int(other), number(cosine)) for other, cosine in cells(page, "Nearest latents by decoder cosine")]
        assert shown == [(other, pytest.approx(cosine, rel=6e-3)) for other, cosine in near]
        strip = table(study, "strips").filter(latent=latent)
        assert page.locator("#dashboard .cell.top").count() == len(strip.filter(pl.col("rank") <= 8))
        ranks = {(row["condition"], row["trace_id"]): str(row["rank"]) for row in strip.iter_rows(named=True)}
        assert page.locator("#dashboard .cell i").all_inner_texts() == [
            ranks.get((condition, trace), "") for condition in CONDITIONS for trace in range(4)
        ]
        quartiles = table(study, "latent_histograms").filter(latent=latent, condition="reason")["quartiles"][0]
        if quartiles.len():
            edges = (
                page.locator("#dashboard h4", has_text="Highest quarter").locator("small").inner_text().split(" to ")
            )
            assert [number(edge) for edge in edges] == pytest.approx(quartiles.to_list()[3:], rel=6e-3)
        link = page.get_by_role("link", name="On Neuronpedia").get_attribute("href")
        assert link == f"https://www.neuronpedia.org/gpt2-small/1-mlp/{latent}"
        page.keyboard.press("Escape")
        assert not page.locator("#dashboard").is_visible()
        assert page.evaluate("document.activeElement.textContent") == str(latent)


def test_dashboards_have_addresses_and_follow_each_other(browser, study):
    page = open_page(browser, study.results)
    page.get_by_role("columnheader", name="latent", exact=True).get_by_role("button").click()
    order = shown_latents(page)
    page.locator(f'#latents-0 tr[data-latent="{order[1]}"] a').click()
    # As the table is sorted; with the keys of the title, and by the links, which keep the focus.
    for step, latent in (("ArrowRight", order[2]), ("ArrowLeft", order[1]), ("ArrowLeft", order[0])):
        page.locator("#dashboard-title").press(step)
        page.get_by_role("heading", name=f"Latent {latent} ").wait_for()
    assert f"1 of {len(order)}" in page.locator("#dashboard .steps").inner_text()
    for latent in (order[1], order[2]):
        page.get_by_role("link", name="Next latent").press("Enter")
        page.get_by_role("heading", name=f"Latent {latent} ").wait_for()
        assert page.evaluate("document.activeElement.rel") == "next"
    assert page.url.endswith(f"#{SITE}/{order[2]}")
    page.go_back()  # past all of them
    page.locator("#dashboard").wait_for(state="hidden")
    page.context.close()

    page = open_page(browser, study.results, f"#{SITE}/{order[1]}")
    page.get_by_role("heading", name=f"Latent {order[1]} ").wait_for()
    page.get_by_role("button", name="Close").click()
    assert not page.locator("#dashboard").is_visible()
    assert page.evaluate("document.activeElement.textContent") == str(order[1])
    for address in (f"{SITE}/48", f"{SITE}/toString", f"{SITE}/%E0%A4%A"):
        page.evaluate("hash => { location.hash = hash; }", address)
        page.get_by_role("heading", name=f"No dashboard for latent {address.partition('/')[2]}").wait_for()
        page.keyboard.press("Escape")
        while page.evaluate("location.hash"):  # the dialog's end is told of a moment later
            page.wait_for_timeout(10)
    for address in ("%E0%A4%A", "trace/x/y/z", "trace", f"trace/reason/99/{SITE}/1", "nowhere/1", "search",
                    "search/x/y", "search/text/%E0%A4%A", f"{SITE}/1/nowhere/2"):  # fmt: skip
        page.evaluate("hash => { location.hash = hash; }", address)
    assert not page.locator("#dashboard").is_visible()
    assert page.seen == []
    page.context.close()


def read_trace(page: Page, condition: str, trace: int) -> None:
    page.locator("#traces").scroll_into_view_if_needed()
    value = f"{CONDITIONS.index(condition)} {trace}"
    page.locator("#reader-trace").select_option(value)
    page.locator(f'.trace[data-trace="{value}"]').wait_for()


def test_the_reader_shades_by_any_latent_and_names_those_active(page, study):
    rows = activations(study, "bypass").filter(trace_id=2)
    read_trace(page, "bypass", 2)
    latent = int(rows.group_by("latent").len().sort("len", "latent")["latent"][-1])
    page.get_by_label("Shade by latent").fill(str(latent))
    hot = page.locator(".trace .hot").evaluate_all("spans => spans.map((span) => Number(span.dataset.at))")
    assert hot == rows.filter(latent=latent)["position"].sort().to_list()
    written = (
        pl.read_parquet(study.results / "traces" / "bypass" / f"{BLOCK}.parquet").filter(trace_id=2).row(0, named=True)
    )
    length = len(written["prompt_ids"]) + len(written["generated_ids"])
    assert page.locator(".trace [data-at]").count() == length
    assert page.locator(".segment h3").all_inner_texts() == [part["segment"].upper() for part in written["segments"]]
    for position in (0, 7, length - 2):
        page.locator(f'.trace [data-at="{position}"]').hover()
        expected = rows.filter(position=position).sort("activation", "latent", descending=[True, False])
        assert "null" not in page.locator(".panel").inner_text()
        names = [int(text) for text in page.locator(".active button").all_inner_texts()]
        assert sorted(names) == sorted(expected["latent"])
        values = page.locator(".active meter").evaluate_all("meters => meters.map((meter) => meter.value)")
        of_name = dict(expected.select("latent", "activation").iter_rows())
        assert values == pytest.approx([of_name[name] for name in names], rel=0.02)
        assert values == sorted(values, reverse=True)
        shading = of_name.get(latent)
        status = page.locator(".panel [role=status]").inner_text()
        assert f"position {position}," in status
        assert f"{latent}: not active." in status if shading is None else f"{latent}: {shading:.1f}"[:-1] in status
    page.locator(".trace").press("End")
    assert "never read" in page.locator(".panel").inner_text()
    page.locator(".trace").press("ArrowLeft")
    assert f"position {length - 2}" in page.locator(".panel").inner_text()
    # From token to token that it is active on, and not past the last.
    page.locator(".trace").press("Home")
    active = [position for position in rows.filter(latent=latent)["position"].sort() if position > 0]
    for key, position in (("n", active[0]), ("n", active[1]), ("p", active[0]), ("End", length - 1), ("n", length - 1)):
        page.locator(".trace").press(key)
        assert f"position {position}," in page.locator(".panel [role=status]").inner_text()
    page.locator(f'.trace [data-at="{active[1]}"]').click()
    chosen = page.locator('.active button[aria-pressed="false"]').first
    other = int(chosen.inner_text())
    chosen.click()
    assert page.evaluate("document.activeElement.textContent") == str(other)
    assert page.get_by_label("Shade by latent").input_value() == str(other)
    hot = page.locator(".trace .hot").evaluate_all("spans => spans.map((span) => Number(span.dataset.at))")
    assert hot == rows.filter(latent=other)["position"].sort().to_list()


def test_pattern_words_are_underlined(page, study):
    matches = pl.read_parquet(study.results / "tables" / "matches.parquet").filter(
        kind="pattern", condition="reason", trace_id=0
    )
    assert len(matches)
    read_trace(page, "reason", 0)
    marked = page.locator(".trace .pattern").evaluate_all("spans => spans.map((span) => Number(span.dataset.at))")
    assert set(marked) == {at for start, end in matches.select("start", "end").iter_rows() for at in range(start, end)}


def status_of(page: Page) -> str:
    return page.locator(".panel [role=status]").inner_text()


def test_a_token_is_held_until_it_is_let_go(page, study):
    read_trace(page, "reason", 1)
    token = page.locator(".trace [data-at]").nth

    token(4).hover()
    assert "position 4," in status_of(page)
    token(6).hover()
    assert "position 6," in status_of(page)
    token(6).click()
    assert "position 6, prompt, held" in status_of(page)
    assert page.url.endswith(f"#trace/reason/1/{SITE}/{page.get_by_label('Shade by latent').input_value()}/6")
    token(9).hover()
    page.locator(".panel").hover()
    assert "position 6, prompt, held" in status_of(page)
    token(6).click()  # lets go
    token(9).hover()
    assert "position 9," in status_of(page)
    token(9).click()
    page.locator(".trace").press("Escape")
    assert "held" not in status_of(page)
    rows = activations(study, "reason").filter(trace_id=1)
    silent = next(latent for latent in range(48) if latent not in rows["latent"])
    for latent, scale in ((silent, "not active in this trace"), (48, "there are 48 latents")):
        page.get_by_label("Shade by latent").fill(str(latent))
        assert page.locator(".scale").inner_text() == scale
        assert f"{latent}: not active." in status_of(page)
        assert page.url.endswith(f"#trace/reason/1/{SITE}/{latent}")


def test_a_passage_opens_its_trace(page, study):
    """Where the pointer happens to be after the jump doesn't matter; and one step back is the dashboard again."""
    passage = table(study, "passages").filter(pl.col("peak") > 20).row(0, named=True)
    page.set_viewport_size({"width": 1280, "height": 500})
    open_board(page, passage["latent"])
    index = (
        table(study, "passages")
        .filter(latent=passage["latent"])
        .select("trace_id", "peak")
        .rows()
        .index((passage["trace_id"], passage["peak"]))
    )
    page.locator(".passage .where").nth(index).click()
    page.locator(".chosen").wait_for()
    assert not page.locator("#dashboard").is_visible()
    assert page.locator("#reader-trace").input_value() == f"0 {passage['trace_id']}"
    assert page.locator("#reader-latent").input_value() == str(passage["latent"])
    assert page.locator(".chosen").get_attribute("data-at") == str(passage["peak"])
    assert f"position {passage['peak']}," in status_of(page)
    inside = "span => { const box = span.getBoundingClientRect(); return box.top >= 0 && box.bottom <= innerHeight; }"
    assert page.locator(".chosen").evaluate(inside)
    assert page.evaluate("document.activeElement.className") == "trace"
    address = page.url
    page.go_back()
    page.get_by_role("heading", name=f"Latent {passage['latent']} ").wait_for()
    # The address of a token can be mailed.
    page.goto("about:blank")
    page.goto(address)
    page.locator(".chosen").wait_for()
    assert f"position {passage['peak']}," in status_of(page)


def test_a_cell_of_the_strip_opens_its_trace(page, study):
    latent = shown_latents(page)[0]
    open_board(page, latent)
    cells_ = page.locator("#dashboard .cells").nth(1).locator(".cell")
    cells_.nth(0).focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.locator('.trace[data-trace="1 2"]').wait_for()
    assert page.locator("#reader-latent").input_value() == str(latent)


def test_hostile_text_is_text(page, study):
    for trace, expected in enumerate(
        ["<script>window.hostile = 1</script><img src=x onerror='window.hostile = 2'>",
         "</script><!-- \"quoted\" & 'single' \\ back\\n {{ 7 * 7 }} ${7} &lt;b&gt;",
         "right \\xe2\\x80\\xaeto left\\xe2\\x80\\xac, zero\\xe2\\x80\\x8bwidth, bell\\u0007, \\xc3\\xa9",
         "</table></dialog><a href='javascript:window.hostile = 3'>link</a> %s %(x)s"]
    ):  # fmt: skip
        read_trace(page, "reason", trace)
        assert expected in page.locator(".segment.prompt .text").text_content()
        assert "<b id=hostile>Think</b> \\ \"'" in page.locator(".segment.prompt .text").text_content()
    assert page.locator("#hostile, img[src=x], a[href^=javascript]").count() == 0
    assert page.evaluate("window.hostile === undefined")
    assert "<b id=hostile>Think</b>" in page.locator("#answer").inner_text()
    assert "</b>" in page.locator("#methods").inner_text()
    assert page.locator("#reader").evaluate("node => node.querySelectorAll('b b, script, img').length") == 0


def test_nothing_but_its_own_script_can_run(page, study):
    """The page allows one script, by its hash; and all that its template puts in as it is, is the page's own."""
    code = "\n".join((report.FOLDER / f"{name}.js").read_text() for name in report.SCRIPTS).encode()
    digest = base64.b64encode(hashlib.sha256(code).digest()).decode()
    assert page.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content") == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )
    template = (report.FOLDER / "page.html.j2").read_text()
    assert sorted(re.findall(r"{{ (\w+) \| safe }}", template)) == ["code", "data", "parcel", "style"]
    assert len(re.findall(r"\bsafe\b", template.partition("#}")[2])) == 4
    assert not re.search(r"autoescape|Markup", template)
    study = loaded(study)
    hostile = "</script><b id=hostile><!--"
    text = render(replace(study, traces=study.traces.with_columns(predicted=pl.lit(hostile))))
    assert hostile not in text
    assert "</script>\\u003c" not in text
    assert text.count("\\u003c/script>\\u003cb id=hostile>\\u003c!--") == len(study.traces)


def counted_rows(study: Study, condition: str) -> pl.DataFrame:
    """The activations on tokens that count: written, and no sinks."""
    return activations(study, condition).filter(pl.col("segment") != "prompt", ~pl.col("sink"))


def sketch_of(page: Page, latent: int) -> dict:
    return page.evaluate("latent => sketch(0, latent, () => true, () => {})", latent)


def test_a_dashboard_is_computed_for_any_latent(page, study):
    """What the page's script computes from its traces is what the tables say, of every leading latent."""
    tables = {name: table(study, name) for name in ("latent_histograms", "strips", "coactivation")}
    for latent in table(study, "verdict")["latent"]:
        board = sketch_of(page, latent)
        of = {name: rows.filter(latent=latent) for name, rows in tables.items()}
        shown = board["histograms"]
        for name in ("condition", "tokens_active", "tokens"):
            assert shown[name] == of["latent_histograms"][name].to_list()
        assert shown["largest"] == pytest.approx(of["latent_histograms"]["largest"].to_list(), rel=0.03)
        for found, wanted in zip(shown["counts"], of["latent_histograms"]["counts"].to_list(), strict=True):
            # Rounded activations may be in the bin beside.
            assert np.abs(np.cumsum(found) - np.cumsum(wanted)).max() <= max(3, sum(wanted) // 5)
        strips = of["strips"].sort(pl.col("condition").cast(pl.Enum(CONDITIONS)), "trace_id")
        places = [(row["condition"], row["trace_id"]) for row in strips.iter_rows(named=True)]
        found = {
            (condition, trace): (most, rank)
            for condition, trace, most, rank in zip(
                *(board["strips"][name] for name in ("condition", "trace_id", "max", "rank")), strict=True
            )
        }
        assert sorted(found) == sorted(places)
        for place, row in zip(places, strips.iter_rows(named=True), strict=True):
            assert found[place][0] == pytest.approx(row["max"], rel=0.03)
            assert abs(found[place][1] - row["rank"]) <= 2  # as rounded, close ones may be the other way around
        near = of["coactivation"]
        assert board["coactive"].get("neighbour", []) == near["neighbour"].to_list()
        assert board["coactive"].get("phi", []) == pytest.approx(near["phi"].to_list(), rel=1e-5, abs=1e-6)
    others = counted_rows(study, "reason").filter(~pl.col("latent").is_in(table(study, "verdict")["latent"].to_list()))
    latent = int(others["latent"][0])
    own = others.filter(latent=latent)
    page.evaluate("hash => { location.hash = hash; }", f"{SITE}/{latent}")
    page.get_by_role("heading", name=f"Latent {latent} ").wait_for()
    text = page.locator("#dashboard").inner_text()
    assert "it isn’t among the" in text
    assert f"active on {len(own)} of" in text
    tops = own.group_by("trace_id").agg(pl.col("activation").max())["activation"].sort(descending=True)
    values = page.locator(".passage .value").all_inner_texts()[: len(tops)]
    assert [number(value) for value in values] == pytest.approx(tops.to_list(), rel=0.03)
    names = dict(pl.read_parquet(study.results / "vocabulary.parquet").select("token_id", "token").iter_rows())
    types = own.group_by("token_id").agg(pl.col("activation").max(), pl.len(), pl.col("trace_id").n_unique())
    wanted = {(names[kind], str(count), str(traces)) for kind, _, count, traces in types.iter_rows()}
    shown = {(name, count, traces) for name, _, count, traces in cells(page, "Top token types")}
    assert shown <= wanted
    assert len(shown) == min(20, len(wanted))
    assert len(page.locator("#dashboard .cell").all()) == 12


def test_two_latents_side_by_side(page, study):
    rows = counted_rows(study, "reason")
    first, second = (int(latent) for latent in rows.group_by("latent").len().sort("len", "latent")["latent"][-2:])
    at = {latent: set(rows.filter(latent=latent).select("trace_id", "position").iter_rows())
          for latent in (first, second)}  # fmt: skip
    open_board(page, shown_latents(page)[0])
    page.evaluate("hash => { location.hash = hash; }", f"{SITE}/{first}")
    page.get_by_role("heading", name=f"Latent {first} ").wait_for()
    page.get_by_role("spinbutton", name="The other latent").fill(str(second))
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("heading", name=f"Latents {first} at {SITE} and {second} at {SITE}").wait_for()
    assert page.url.endswith(f"#{SITE}/{first}/{SITE}/{second}")
    text = page.locator("#dashboard").inner_text()
    tokens = int(table(study, "latent_histograms").filter(condition="reason")["tokens"][0])
    both, a, b = len(at[first] & at[second]), len(at[first]), len(at[second])
    assert f"Of {tokens} tokens written" in text
    assert f"{first} is active on {a} token" in text
    assert f"{second} on {b} token" in text
    assert f"both on {both} token" in text
    active = np.zeros((2, tokens), dtype=bool)
    everything = sorted(at[first] | at[second])
    for place, key in enumerate(everything):
        active[:, place] = key in at[first], key in at[second]
    assert number(re.search(r"φ = (−?[\d.]+)\.", text).group(1)) == pytest.approx(np.corrcoef(active)[0, 1], rel=6e-3)
    assert page.locator("#dashboard .pair .histogram").count() == 2
    page.go_back()
    page.get_by_role("heading", name=f"Latent {first} ").wait_for()


def ask(page: Page, kind: str, query: str) -> str:
    page.locator("#search-kind").select_option(kind)
    page.locator("#search-query").fill(query)
    page.get_by_role("button", name="Search", exact=True).click()
    output = page.locator("#search output")
    output.filter(has_text=re.compile("place|Not found|Nothing|latents of")).wait_for()
    return output.inner_text()


def test_traces_are_searched(page, study):
    page.locator("#traces").scroll_into_view_if_needed()
    rows = activations(study, "reason").filter(pl.col("segment") != "prompt")
    every = pl.concat(activations(study, condition).filter(pl.col("segment") != "prompt") for condition in CONDITIONS)
    latent = int(rows["latent"].mode().min())
    own = every.filter(latent=latent)
    assert ask(page, "latent", str(latent)).startswith(f"{len(own)} places in ")
    found = page.locator(".results tbody tr")
    shown = [number(text) for text in found.locator("td:nth-child(3)").all_inner_texts()]
    assert shown == pytest.approx(own["activation"].sort(descending=True).head(50).to_list(), rel=0.03)
    if len(own) > 50:
        page.get_by_role("button", name="Show more").click()
        assert found.count() == min(len(own), 250)
    first = found.first.locator("th a").get_attribute("href")
    assert ask(page, "latent", "48") == f"The latents of {SITE} are 0 to 47."

    written = pl.concat(
        pl.read_parquet(study.results / "traces" / condition / f"{BLOCK}.parquet") for condition in CONDITIONS
    )
    tokens = pl.read_parquet(study.results / "vocabulary.parquet")
    text_of = dict(tokens.select("token_id", "text").iter_rows())
    ids = [token for row in written["generated_ids"] for token in row]
    words = {token for token in ids if text_of[token].strip().isalpha()}
    common = max(words, key=lambda token: (ids.count(token), token))
    named = [token for token in text_of if text_of[token].strip() == text_of[common].strip()]
    count = sum(token in named for token in ids)
    assert ask(page, "token", text_of[common].strip()).startswith(f"{count} place")
    prompts = sum(token in named for row in written["prompt_ids"] for token in row)
    page.get_by_label("in the prompts, too").check()
    assert ask(page, "token", text_of[common].strip()).startswith(f"{count + prompts} place")
    # Text is found across tokens, in any case, wherever it begins within one; hostile text is text.
    assert ask(page, "text", "QUOTED\" & 'single' \\").startswith("3 places in 3 traces of 12")
    hit = "".join(found.first.locator(".hit").all_inner_texts())
    assert "quoted\" & 'single' \\" in hit
    assert ask(page, "text", "<script>window.hostile = 1</script>").startswith("3 places in 3 traces")
    page.get_by_label("in the prompts, too").uncheck()
    assert ask(page, "text", "nowhere is this") == "Not found in 12 traces."
    page.get_by_label("under").select_option("again")
    assert ask(page, "text", "nowhere is this") == "Not found in 4 traces."
    page.evaluate("location.hash = 'search/latent/nowhere/1'")
    page.locator("#search output").filter(has_text=f"No site nowhere: there are {SITE}.").wait_for()
    assert ask(page, "text", " ") == "Nothing to look for."
    matches = pl.read_parquet(study.results / "tables" / "matches.parquet").filter(kind="pattern", name="odd")
    assert ask(page, "pattern", "odd").startswith(f"{len(matches)} place")
    assert page.url.endswith("#search/pattern/odd")
    # What is found is read on in the trace; and a search has an address.
    page.goto("about:blank")
    page.goto((study.results / "report.html").as_uri() + f"#search/latent/{SITE}/{latent}")
    found.first.wait_for()
    assert found.first.locator("th a").get_attribute("href") == first
    found.first.locator("th a").click()
    page.locator(".chosen").wait_for()
    best = own.sort("activation", descending=True)["activation"][0]
    shading, value = re.search(r"(\d+): ([\d.]+)\.", status_of(page)).groups()
    assert int(shading) == latent
    assert number(value) == pytest.approx(best, rel=0.03)


def test_notes_are_kept_and_can_be_passed_on(browser, study, tmp_path):
    page = open_page(browser, study.results)
    latent, other = shown_latents(page)[:2]
    open_board(page, latent)
    page.get_by_role("textbox", name="Your label").fill("<b>doubt</b>")
    page.get_by_role("textbox", name="Your note").fill('=HYPERLINK("x"), line\nanother')
    page.reload()  # what is typed is kept, whatever becomes of the page
    page.get_by_role("heading", name=f"Latent {latent} ").wait_for()
    page.get_by_role("button", name="Close").click()
    label = page.locator(f'#latents-0 tr[data-latent="{latent}"] .label')
    assert label.inner_text() == "<b>doubt</b>"
    page.locator("form.filters").first.get_by_label("Search").fill("doubt")
    assert shown_latents(page) == [latent]
    page.reload()
    assert label.inner_text() == "<b>doubt</b>"
    open_board(page, latent)
    assert page.get_by_role("textbox", name="Your note").input_value() == '=HYPERLINK("x"), line\nanother'
    page.get_by_role("button", name="Close").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as JSON").click()
    saved = json.loads(download.value.path().read_text())
    kept = [(note["site"], note["latent"], note["label"]) for note in saved["notes"]]
    assert kept == [(SITE, latent, "<b>doubt</b>")]
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    # A cell that a spreadsheet would compute is text.
    assert download.value.path().read_bytes().decode().splitlines()[1:] == [
        f"""{SITE},{latent},<b>doubt</b>,"'=HYPERLINK(""x""), line""",
        f'another",{saved["notes"][0]["changed"]}',
    ]
    page.get_by_role("button", name="Delete all").click()
    page.get_by_role("button", name="Delete all").click()
    assert label.count() == 0
    assert "None yet." in page.locator("#your-notes").inner_text()

    def take_in(value) -> str:
        path = tmp_path / "taken.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        page.locator("#your-notes input[type=file]").set_input_files(path)
        output = page.locator("#your-notes output")
        output.filter(has_text=re.compile("taken.json|Took")).wait_for()
        return output.inner_text()

    odd = [{"site": SITE, "latent": 48}, {"site": "nowhere", "latent": 1}, None]
    odd += [{"site": SITE, "latent": other, "label": 7}, {"site": SITE, "latent": other, "label": " "}]
    said = "Took in 1 note; 5 not, as they say nothing of latents here."
    assert take_in(saved | {"notes": saved["notes"] + odd}) == said
    assert label.inner_text() == "<b>doubt</b>"
    older = [saved["notes"][0] | {"label": "older", "changed": "2001"}]
    assert take_in(saved | {"notes": older}) == "Took in 0 notes; 1 not, as what is here is newer."
    assert label.inner_text() == "<b>doubt</b>"
    assert "is about other SAEs" in take_in(saved | {"saes": "0"})
    for value in ("{", [], {"format": "other"}, "null"):
        assert "has no notes of thoughtscope" in take_in(value)
    assert page.locator("#your-notes b").count() == 0
    assert page.seen == []
    page.context.close()


def test_tables_are_saved_as_they_are_shown(page, study):
    page.get_by_role("columnheader", name="latent", exact=True).get_by_role("button").click()
    page.locator("form.filters").first.get_by_label("Verdict").select_option("undecided")
    order = shown_latents(page)
    with page.expect_download() as download:
        page.get_by_role("button", name=f"save “Leading latents of {SITE}”").click()
    assert download.value.suggested_filename == f"tiny_Leading_latents_of_{SITE}.csv"
    rows = pl.read_csv(download.value.path(), infer_schema=False)
    assert rows["latent"].cast(int).to_list() == order
    assert rows.columns[:3] == ["latent", "verdict", "in traces"]
    assert all("pass" in text or "fail" in text for text in rows["checks"])
    open_board(page, order[0])
    with page.expect_download() as download:
        page.get_by_role("button", name="save “Nearest latents by decoder cosine”").click()
    shown = pl.read_csv(download.value.path())
    near = table(study, "neighbours").filter(latent=order[0])
    assert shown["latent"].to_list() == near["neighbour"].to_list()
    assert shown["cosine"].to_list() == pytest.approx(near["cosine"].to_list(), rel=6e-3)
    assert page.locator("main .scroll > table").count() == page.locator("main .scroll + .export").count()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 768, 390])
def test_accessibility(browser, study, scheme, width):
    page = open_page(browser, study.results, color_scheme=scheme, viewport={"width": width, "height": 800})
    axe = Axe()

    def check():
        found = [each for each in axe.run(page).response["violations"] if each["impact"] in ("serious", "critical")]
        assert [(each["id"], each["nodes"][0]["html"], each["nodes"][0].get("failureSummary")) for each in found] == []

    read_trace(page, "reason", 1)
    page.locator('.trace [data-at="9"]').click()
    page.get_by_label("Shade by latent").fill(page.locator(".active button").first.inner_text())
    check()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ask(page, "text", "a")
    check()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    first, second = shown_latents(page)[:2]
    open_board(page, first)
    page.get_by_role("textbox", name="Your label").fill("a label")
    page.get_by_role("textbox", name="Your label").blur()
    check()
    other = next(latent for latent in range(48) if latent not in shown_latents(page))
    for address in (f"{SITE}/{first}/{SITE}/{second}", f"{SITE}/{other}"):
        page.evaluate("hash => { location.hash = hash; }", address)
        page.locator(f'#dashboard[data-hash="#{address}"]').filter(has_text="Activations").wait_for()
        check()
        assert page.locator("#dashboard").evaluate("node => node.scrollWidth <= node.clientWidth")
    page.keyboard.press("Escape")
    assert page.locator("#your-notes table").count() == 1
    check()
    page.context.close()


def test_without_script_it_can_still_be_read(browser, study):
    page = open_page(browser, study.results, java_script_enabled=False)
    assert page.locator(".finding").is_visible()
    assert page.locator("#latents-0 tbody tr").count() == len(table(study, "verdict"))
    assert "need JavaScript" in page.locator("#reader").inner_text()
    assert "need JavaScript" in page.locator("#notes").inner_text()
    page.context.close()


def test_it_prints(browser, study, tmp_path):
    page = open_page(browser, study.results)
    page.pdf(path=tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    assert page.locator("details[open]").count() == 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details[open]").count() == page.locator("details.pictures").count() > 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert page.locator("#latents-0").is_visible()
    # Chromium doesn't paint buttons in the heads that it repeats on each page.
    assert page.locator("#latents-0 th .printed").first.is_visible()
    assert not page.locator("#latents-0 th button").first.is_visible()
    page.emulate_media(media="screen")
    open_board(page, shown_latents(page)[0])
    page.emulate_media(media="print")
    assert not page.locator("#answer").is_visible()
    # From the top of the first page on, and in full.
    box = page.locator("#dashboard").evaluate(
        "node => [node.getBoundingClientRect().top + scrollY, node.clientHeight, node.scrollHeight]"
    )
    assert box[0] == 0
    assert box[1] >= box[2]
    page.context.close()


def test_provenance_repeats_the_run(page, study, tmp_path):
    """The config on the page, saved and run, is the same study."""
    text = page.locator("#provenance pre").first.text_content()
    (study.folder / "repeat.yaml").write_text(text)
    command = study.command("--dry-run")
    command[command.index("--configfile") + 1] = str(study.folder / "repeat.yaml")
    done = subprocess.run(command, cwd=study.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" in done.stdout + done.stderr
    shown = page.locator("#provenance").inner_text()
    kept = ["problems.parquet", "sae_text.parquet", f"traces/reason/{BLOCK}.parquet",
            f"saes/trained/{SITE}/sae.safetensors"]  # fmt: skip
    for path in kept:
        assert files.sha256(study.results / path) in shown
    for digest in files.read_json(study.results / "model.json")["files"].values():
        assert digest in shown
    assert "4 of 4 problems of problems.jsonl under 3 prompts: 12 traces" in page.locator("#answer").inner_text()
    needs = files.read_foreign_json(study.results / "rules.json")["needs"]
    assert "read" in needs["trace_tables"]
    assert "trace_tables" not in needs["read"]
    rules = page.locator(".graph text:not(.room)").all_text_contents()
    assert {"generate", "read", "verdict", "report", "dashboards", "train_sae"} <= set(rules)
    assert "torch" in shown
    # Every job's time is counted that was finished when the page was made, and each room has its column, as data walks
    # through them.
    folder = study.results / "benchmarks"
    began = (folder / "report.jsonl").stat().st_mtime - json.loads((folder / "report.jsonl").read_text())["s"]
    ended = [path.stat().st_mtime for path in folder.rglob("*.jsonl") if path.stem not in ("report", "summary")]
    jobs = [int(row[1]) for row in table_cells(page, "Time per stage") if row[0] not in ("report", "summary")]
    assert sum(time < began - 1 for time in ended) <= sum(jobs) <= len(ended)
    assert sum(jobs) > 40
    rooms = page.locator(".graph .room").all_text_contents()
    files_ = re.findall(r'include: "workflow/rules/(\w+)\.smk"', (REPO / "Snakefile").read_text())
    assert rooms == [room for room in files_ if room not in ("common", "twins", "interventions", "truth", "exports")]


def test_the_reader_s_packing_can_be_undone():
    rows = pl.DataFrame(
        {"latent": [7, 3, 7, 65000, 3], "position": [4, 0, 5, 4, 9], "activation": [1.0, 0.01, 250.0, 3.0, 3.0],
         "sink": [False, True, False, False, False]},
        schema_overrides={"latent": pl.UInt32, "position": pl.UInt32, "activation": pl.Float32},
    )  # fmt: skip
    packed = reader.active_latents(rows)
    latents, index, found = 0, 0, {}
    for gap, count in zip(packed["latents"], packed["counts"], strict=True):
        latents, position = latents + gap, 0
        for _ in range(count):
            position += packed["positions"][index]
            share = packed["levels"][index] / reader.LEVELS
            found[latents, position] = packed["low"] * (packed["high"] / packed["low"]) ** share
            index += 1
    expected = {(row["latent"], row["position"]): row["activation"] for row in rows.iter_rows(named=True)}
    assert found == pytest.approx(expected, rel=0.021)  # half a step of ln(25,000) / 255
    assert packed["sinks"] == [0]


def test_what_cannot_be_read_shows_its_code():
    tokens = reader.Tokens.of(
        pl.DataFrame(
            {"token_id": [0, 1, 2, 3], "text": [" a\u202eb", "\ufffd", "\n\n", "<b>"],
             "token": ["␣a\\u202eb", "\\xe2\\x80", "↵↵", "<b>"]}
        )
    )  # fmt: skip
    assert tokens.numbers([3, 0, 3, 1, 2, 9]) == [0, 1, 0, 2, 3, 4]
    assert tokens.rows == [
        ("<b>", "<b>"), ("␣a\\u202eb", " a\\u202eb"), ("\\xe2\\x80", "\\xe2\\x80"), ("↵↵", "\n\n"), ("[9]", "[9]")
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 5, 32, 500])
def test_traces_get_room_evenly(count):
    order = reader.spread(count)
    assert sorted(order) == list(range(count))
    for first in (2, 4, 8, 16):
        if first <= count:
            gaps = [high - low for low, high in pairwise([*sorted(order[:first]), count])]
            assert max(gaps) <= 2 * count / first + 1


def test_those_under_study_get_room_first():
    traces = pl.DataFrame({"condition": ["b"] * 3 + ["a"] * 3 + ["c"] * 2, "trace_id": [0, 1, 2, 0, 1, 2, 0, 1]})
    order = reader.order(traces, ["a", "b", "c"])
    assert order[:3] == [("a", 0), ("a", 2), ("a", 1)]
    assert sorted(order) == sorted(traces.rows())


def inputs(study: Study, conditions=CONDITIONS) -> dict:
    """What rule report lists, for `load`."""

    def of(pattern: str, **levels) -> str:
        named = {"experiment": study.config["experiment"], "reader": "trained", "site": SITE, "block": BLOCK}
        return str(study.folder / pattern.format(**named | levels))

    return {
        "manifest": of(paths.MANIFEST), "problems": of(paths.PROBLEMS),
        "traces": [of(paths.TRACES, condition=condition) for condition in conditions],
        "saes": [of(paths.SAE_INFO, hookpoint=SITE)],
        "tables": [of(paths.SITE_TABLE, table=name) for name in REPORT_TABLES],
        "site_pictures": [of(paths.SITE_PICTURE, picture=name) for name in REPORT_PICTURES],
        "pictures": [of(paths.STUDY_PICTURE, picture=name) for name in REPORT_PICTURES_ACROSS],
    } | {name: of(paths.STUDY_TABLE, table=table)
         for name, table in (("matches", "matches"), ("gate", "site_gate"), ("layers", "layers"))
    } | {"headline": of(paths.READER_TABLE, table="headline")}  # fmt: skip


def loaded(study: Study, conditions=CONDITIONS):
    """The finished study as the report has it."""
    shown = re.search(r"<summary>All settings.*?<pre[^>]*>(.*?)</pre>", page_of(study), re.DOTALL).group(1)
    return load(
        inputs(study, conditions), experiment="tiny", conditions=conditions, settings=json.loads(html.unescape(shown)),
        config="", neuronpedia=None,
    )  # fmt: skip


def render(study, parcels=(), tokens=None, max_megabytes=60) -> str:
    return report.render(
        study, parcels=parcels, max_megabytes=max_megabytes,
        tokens=tokens or reader.Tokens({}),
        provenance={"rules": None, "stages": [], "hashes": {}, "versions": {"thoughtscope": "0"}, "run": "",
                    "settings": ""},
    )[0]  # fmt: skip


def test_a_page_keeps_to_its_size_and_says_what_it_left_out(study):
    """With parcels of a megabyte each: as many as there is room for, and a sentence on the rest."""
    of = loaded(study, conditions=["reason", "bypass"])
    for megabytes, size in ((5, 1_000_000), (2, 100_000)):  # in the second, what else is on the page decides
        asked = []

        def parcels(size=size, asked=asked):
            for condition, trace in [*reader.order(of.traces, of.conditions)] * 9:
                asked.append((condition, trace))
                yield condition, len(asked), "A" * size

        page = render(of, parcels(), max_megabytes=megabytes)
        assert megabytes * 1e6 - size - 5000 < len(page.encode()) <= megabytes * 1e6
        held = asked[:-1]
        assert 2 <= len(held) < 72
        named = re.search(r"(?:The page holds|All) (\d+)(?: of 8)? traces", page)
        assert int(named.group(1)) == len(held)
        if len(held) < 8:
            counts = re.search(r"traces \((\d+) under “reason”, (\d+) under “bypass”\)", page).groups()
            assert [int(count) for count in counts] == [
                sum(key[0] == condition for key in held) for condition in ("reason", "bypass")
            ]


def page_of(study: Study) -> str:
    return (study.results / "report.html").read_text(encoding="utf-8")


OTHER = "layers.2.mlp"


@pytest.fixture(scope="module")
def filled(study: Study, tmp_path_factory: pytest.TempPathFactory):
    """The finished study with a second site, and with numbers, all different, where so few traces give none."""
    of, chance = loaded(study), np.random.default_rng(0)

    def numbers(table: pl.DataFrame, *left: str) -> pl.DataFrame:
        floats = [name for name, kind in table.schema.items() if kind == pl.Float64 and name not in left]
        filled = table.with_columns(pl.Series(name, chance.random(len(table)).round(9)) for name in floats)
        counts = [name for name, kind in table.schema.items() if kind == pl.UInt32 and name not in
                  ("latent", "of", "token_id", "rank", "trace_id", "peak", "start", "neighbour", *left)]  # fmt: skip
        filled = filled.with_columns(
            pl.Series(name, chance.integers(1, 999, len(table)), dtype=pl.UInt32) for name in counts
        )
        return filled.with_columns(note=pl.lit(None, pl.String)) if "note" in table.columns else filled

    def other(table: pl.DataFrame) -> pl.DataFrame:
        """Judge each latent by checks drawn at random."""
        draws = chance.choice([*["pass"] * 10, "fail", "undecided"], (len(table), len(BY_NAME)))
        draws[:3] = "pass"
        draws[1, 3], draws[2, 4] = "fail", "undecided"  # one latent of each verdict at least
        results = table.with_columns(
            pl.Series(check, draws[:, place], dtype=SCHEMA[check]) for place, check in enumerate(BY_NAME)
        )
        removed = [next((check for check, result in zip(BY_NAME, row, strict=True) if result == "fail"), None)
                   for row in draws]  # fmt: skip
        names = ["no" if gone else "thinking pattern" if (row == "pass").all() else "undecided"
                 for gone, row in zip(removed, draws, strict=True)]  # fmt: skip
        return results.with_columns(
            pl.Series("removed_by", removed, dtype=pl.String),
            pl.Series("verdict", names, dtype=SCHEMA["verdict"]),
            needs=pl.when(pl.Series(names) == "undecided").then("needs"),
        )

    sites = []
    for name in (SITE, OTHER):
        tables = dict(of.sites[0].tables)
        # No latent of four traces can be tested, nor compared at equal length.
        assert tables["pattern_tests"].is_empty()
        assert tables["presence"].is_empty()
        each = tables["verdict"].select("latent")
        windows = pl.DataFrame({"pattern": ["none", "odd"]}).join(pl.DataFrame({"window": list(WINDOWS)}), how="cross")
        tables["pattern_tests"] = complete(each.join(windows, how="cross"), patterns.SCHEMA)
        tables["presence"] = complete(
            each.join(pl.DataFrame({"control": CONDITIONS[1:]}), how="cross"), presence.SCHEMA
        )
        for table in (
            "pattern_tests",
            "presence",
            "outcomes",
            "contrasts",
            "lexicality",
            "controls",
            "coactivation",
            "top_tokens",
        ):
            tables[table] = numbers(tables[table])
        tables["reason_scores"] = numbers(tables["reason_scores"]).with_columns(that_word=pl.lit("wait"))
        # Half of the windows have less than tokens alike; some are blocked by place, as `told_apart` is random, too.
        tables["pattern_tests"] = tables["pattern_tests"].with_columns(share=pl.col("share") - 0.5)
        tables["verdict"] = other(numbers(tables["verdict"], "traces", "of"))
        sites.append(replace(of.sites[0], name=name, tables=tables))
    place = pl.int_range(pl.len())
    traces = of.traces.with_columns(
        correct=pl.when(place % 3 == 2).then(None).otherwise(place % 3 == 0),
        finish_reason=pl.when(place % 4 == 1).then(pl.lit("length")).otherwise(pl.lit("stop")).cast(
            of.traces.schema["finish_reason"]),
        predicted=pl.format("<i>{}</i>", place), reference=pl.format("r{}", place),
    )  # fmt: skip
    layers = pl.concat(
        [numbers(of.layers, "sinks_on_top"), numbers(of.layers, "sinks_on_top").with_columns(site=pl.lit(OTHER))]
    )
    gate = pl.concat([of.gate, of.gate.with_columns(
        hookpoint=pl.lit(OTHER), fvu=pl.col("fvu") * 0 + 0.9, fvu_low=pl.col("fvu") * 0 + 0.8,
        fvu_high=pl.col("fvu") * 0 + 0.95)])  # fmt: skip
    family = pl.concat(site.tables["verdict"].select("latent").with_columns(site=pl.lit(site.name)) for site in sites)
    table = complete(family.with_columns(links=4, family=len(family)), headline.SCHEMA)
    values = {name: pl.Series(chance.random(len(table))) for name in ("q", "q_looking")}
    made = replace(of, sites=sites, traces=traces, layers=layers, gate=gate, headline=table.with_columns(**values))

    def read(site: str, condition: str, trace: int) -> pl.DataFrame:
        """The second site's activations are twice the first's, and its fourth position is a sink."""
        rows = activations(study, condition).filter(trace_id=trace)
        if site == OTHER:
            rows = rows.with_columns(activation=pl.col("activation") * 2, sink=pl.col("position") == 4)
        return rows

    tokens = reader.Tokens.of(pl.read_parquet(study.results / "vocabulary.parquet"))
    parcels = reader.trace_parcels(made.traces, made.matches, made.conditions, [SITE, OTHER], read, tokens, {})
    folder = tmp_path_factory.mktemp("filled")
    (folder / "report.html").write_text(render(made, parcels, tokens), encoding="utf-8")
    return made, folder


@pytest.fixture
def filled_page(browser, filled):
    page = open_page(browser, filled[1])
    yield page
    assert page.seen == []
    page.context.close()


def table_cells(page: Page, label: str) -> list[list[str]]:
    rows = page.locator(f'[aria-label="{label}"] tbody tr')
    texts = rows.evaluate_all("rows => rows.map((row) => [...row.cells].map((cell) => cell.innerText))")
    return [[" ".join(text.split()) for text in row] for row in texts]


def test_the_tables_of_the_page_are_those_of_the_study(filled, filled_page):
    study, page = filled[0], filled_page
    rows = table_cells(page, "What was run, by condition")
    for row, condition in zip(rows, CONDITIONS, strict=True):
        mine = study.traces.filter(condition=condition)
        written, graded = mine["generated_ids"].list.len(), mine["correct"].drop_nulls()
        assert row[0] == (f"{condition} (under study)" if condition == "reason" else condition)
        assert study.settings["prompts"][condition]["user"].split()[0] in row[1]
        assert row[2:4] == ["4", f"{written.sum():,}"]
        assert number(row[4]) == pytest.approx(written.median(), rel=1e-3)
        assert row[5] == str((mine["finish_reason"].cast(pl.String) == "length").sum())
        assert row[6] == f"{graded.sum()} of {len(graded)}"
        assert 0 < graded.sum() < len(graded) < 4 or condition != "reason"
    for row, site in zip(table_cells(page, "Layers side by side"), study.sites, strict=True):
        layers = study.layers.filter(site=site.name, scope="generated")
        verdict = site.tables["verdict"]["verdict"].cast(pl.String)
        of = {condition: layers.filter(condition=condition).row(0, named=True) for condition in CONDITIONS}
        used, best = (
            study.pooled_gate(site.name).filter("used").row(0, named=True),
            study.pooled_gate(site.name).row(0, named=True),
        )
        assert row[0] == site.name
        assert f"{site.info['num_latents']} latents, k = {site.info['k']}" == row[1]
        assert number(row[2].split(" ")[0]) == pytest.approx(used["fvu"], rel=6e-2)
        assert row[3].startswith(best["site"])
        assert number(row[4].replace(",", "")) == of["reason"]["active"]
        assert [number(text) for text in row[5:8]] == [of[condition]["recurring"] for condition in CONDITIONS]
        assert number(row[8]) == pytest.approx(of["reason"]["peaks"], rel=6e-2)
        assert [int(text) for text in row[9:]] == [(verdict == name).sum() for name in VERDICTS]
    marks = page.locator(".fits li .check").evaluate_all("nodes => nodes.map((node) => node.className)")
    assert marks == [f"check {fits(study.pooled_gate(site.name).to_dicts(), 0.7).result}" for site in study.sites]
    assert marks[1] == "check fail"
    verdicts = pl.concat(site.tables["verdict"]["verdict"].cast(pl.String) for site in study.sites)
    assert page.locator(".tiles dd").all_inner_texts() == [
        str(len(verdicts)), *(str((verdicts == name).sum()) for name in ("no", "undecided", "thinking pattern"))
    ]  # fmt: skip


def best_link(tests: pl.DataFrame, *, passes: bool, min_share: float) -> dict:
    """A latent's row of `pattern_tests` that the page shows, by hand; p of what place explains is 1."""
    rows = list(tests.iter_rows(named=True))
    for row in rows:
        if row["told_apart"] < links.MIN_TOLD_APART or row["rank"] < links.LEADING:
            row["p"] = 1.0
    words = [row for row in rows if row["window"] == "at" and row["low"] > min_share]
    if words and not passes:
        return max(words, key=lambda row: row["share"])
    return min((row for row in rows if row["window"] != "at"), key=lambda row: (row["p"], -row["share"]))


def test_the_rows_of_a_site_are_its_own(filled, filled_page):
    study, page = filled[0], filled_page
    site, min_share = study.sites[1], study.settings["analysis"]["min_share"]
    headings = [text.strip() for text in page.locator("#latents-1 thead th button").all_inner_texts()]
    assert headings[:5] == ["latent", "verdict", "in traces", "in bypass", "in again"]
    assert headings[5:] == ["ReasonScore", "pattern", "top tokens", "tells correct"]
    faints, kinds = set(), set()
    for row in site.tables["verdict"].iter_rows(named=True):
        line = page.locator(f'#latents-1 tr[data-latent="{row["latent"]}"]')
        shown = [" ".join(text.split()) for text in line.locator("> *").all_inner_texts()]
        of = {
            name: table.filter(latent=row["latent"]) for name, table in site.tables.items() if "latent" in table.columns
        }
        assert shown[0] == str(row["latent"])
        assert shown[1] == " ".join(filter(None, [row["verdict"], in_words.why(row), needs.in_words(row)]))
        low, high = share_interval(row)
        assert shown[2] == f"{row['traces']}/{row['of']} , 95% interval {low:.0%} to {high:.0%} of traces"
        edges = line.locator(".interval i").evaluate(
            "node => [parseFloat(node.style.left), parseFloat(node.style.right)]"
        )
        assert edges == pytest.approx([100 * low, 100 - 100 * high], abs=0.06)
        for text, control in zip(shown[3:5], CONDITIONS[1:], strict=True):
            ((count, total),) = of["controls"].filter(control=control).select("traces_control", "of").rows()
            excess = of["presence"].filter(control=control).row(0, named=True)
            clearer = excess["excess"] if excess["low"] >= excess["rate_low"] else excess["rate_excess"]
            assert text == f"{count}/{total} excess {clearer:.0%}"
        score, lower, upper = of["reason_scores"].select("score", "low", "high").row(0)
        assert [number(text) for text in re.findall(r"[\d.]+", shown[5])] == pytest.approx(
            [score, lower, upper], rel=6e-2
        )
        best = best_link(of["pattern_tests"], passes=row["pattern_linked"] == "pass", min_share=min_share)
        link, faint = (
            f"{WINDOWS[best['window']]}, {best['share']:.0%}".replace("-0%", "0%"),
            row["pattern_linked"] != "pass",
        )
        assert shown[6] == f"{best['pattern']} {link.replace('-', '−')}"
        assert (line.locator("> .faint").count() == 1) == faint
        faints.add(faint)
        kinds.add(best["window"] == "at")
        assert shown[7].endswith(f"{of['lexicality']['typed'][0]:.0%}")
        best = of["outcomes"].filter(outcome="correct").sort("p").row(0, named=True)
        assert [number(text) for text in re.findall(r"[\d.]+", shown[8])] == pytest.approx(
            [best["auroc"], best["low"], best["high"]], rel=6e-2
        )
        marks = line.locator(".checks .check").evaluate_all(
            "nodes => nodes.map((node) => [node.classList[1], node.title])"
        )
        assert marks == [
            [row[check], f"{check.replace('_', ' ')}: {row[check]}. {row[f'{check}_note']}"] for check in BY_NAME
        ]
    assert faints == kinds == {False, True}
    # By share of the link, the largest first; by verdict, thinking patterns first.
    shares = {row["latent"]: best_link(site.tables["pattern_tests"].filter(latent=row["latent"]),
                                       passes=row["pattern_linked"] == "pass", min_share=min_share)["share"]
              for row in site.tables["verdict"].iter_rows(named=True)}  # fmt: skip
    table = page.locator("#latents-1")

    def sorted_by(heading: str) -> list[int]:
        table.get_by_role("columnheader", name=heading, exact=True).get_by_role("button").click()
        return [int(text) for text in table.locator("tbody th").all_inner_texts()]

    order = [shares[latent] for latent in sorted_by("pattern")]
    assert order == sorted(order, reverse=True)
    names = dict(site.tables["verdict"].select("latent", pl.col("verdict").cast(pl.String)).iter_rows())
    places = [("thinking pattern", "undecided", "no").index(names[latent]) for latent in sorted_by("verdict")]
    assert places == sorted(places)
    assert len(set(places)) == 3
    outcomes = {latent: best["auroc"][0] for (latent,), best in
                site.tables["outcomes"].filter(outcome="correct").sort("p").group_by("latent")}  # fmt: skip
    order = [outcomes[latent] for latent in sorted_by("tells correct")]
    assert order == sorted(order, reverse=True)


def test_a_candidate_that_recurs_nowhere_has_a_row_and_a_dashboard(browser, study, tmp_path):
    """One that is only linked is in neither count of controls; one that is rarely active isn't compared."""
    of = loaded(study)
    (site,) = of.sites
    linked, *others = site.latents
    tables = site.tables | {"controls": site.tables["controls"].filter(pl.col("latent") != linked)}
    text = render(replace(of, sites=[replace(site, tables=tables)]))
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    page = open_page(browser, tmp_path)
    shown = table_cells(page, f"Leading latents of {SITE}")
    assert [row[3:5] for row in shown if row[0] == str(linked)] == [["–", "–"]]
    assert not any("–" in row[3:5] for row in shown if row[0] in map(str, others))
    for latent, headings in ((linked, 0), (others[0], 1)):
        open_board(page, latent)
        assert page.get_by_role("heading", name="Original count").count() == headings
        assert page.get_by_role("heading", name="Checks").count() == 1
        page.keyboard.press("Escape")
    assert page.seen == []
    page.context.close()


def near(shown: list[str], *expected: float | None, rel: float = 6e-3) -> bool:
    """Whether numbers are shown with three digits; all those in the texts, one after the other."""
    found = [number(text) for text in re.findall(r"−?\d+(?:\.\d+)?(?:e[+−]\d+)?", " ".join(shown))]
    return found == pytest.approx(list(expected), rel=rel)


def test_dashboards_have_the_numbers_of_their_tables(filled, filled_page):
    study, page = filled[0], filled_page
    site = study.sites[1]
    judged = site.tables["verdict"].unique("verdict", keep="first", maintain_order=True)
    assert len(judged) == 3
    for row in judged.iter_rows(named=True):
        latent = row["latent"]
        page.locator(f'#latents-1 tr[data-latent="{latent}"] a').click()
        page.get_by_role("heading", name=f"Latent {latent} at {OTHER}").wait_for()
        of = {name: table.filter(latent=latent) for name, table in site.tables.items() if "latent" in table.columns}
        rows_of = {name: list(table.iter_rows(named=True)) for name, table in of.items()}
        low, high = share_interval(row)
        head = page.locator("#dashboard > p").first.inner_text()
        takes = needs.in_words(row)
        assert (row["verdict"] == "undecided") == bool(takes)
        about = f"{row['verdict']}{f' ({in_words.why(row)})' if in_words.why(row) else ''}."
        assert head.startswith(f"{about} {f'A{takes[1:]}. ' if takes else ''}Among the top 8")
        assert f"in {row['traces']} of 4 traces under “reason” (95% interval {low:.0%} to {high:.0%} of" in head
        for shown, test in zip(cells(page, "Thinking patterns"), rows_of["pattern_tests"], strict=True):
            assert shown[:2] == [test["pattern"], WINDOWS[test["window"]]]
            assert near(shown[2:5], test["traces"], test["mean_inside"], test["mean_alike"])
            assert near(shown[5:6], *(100 * test[name] for name in ("share", "low", "high")), rel=6e-2)
            assert near(shown[6:7], test["p"])
            assert near(shown[7:], 100 * test["told_apart"], 100 * test["rank"], rel=6e-2)
        for shown, end in zip(cells(page, "Outcomes"), rows_of["outcomes"], strict=True):
            assert shown[:2] == [end["outcome"], end["value"]]
            names = ("auroc", "low", "high", "q", "length_auroc", "length_low", "length_high", "within_length",
                     "within_low", "within_high", "within_p")  # fmt: skip
            assert near(shown[2:], *(end[name] for name in names))
        assert page.locator("#dashboard p", has_text="Length may be a mediator").count() == 1
        for shown, contrast in zip(cells(page, "Contrasts"), rows_of["contrasts"], strict=True):
            assert shown[0] == contrast["contrast"]
            assert near(shown[1:], *(contrast[name] for name in ("pairs", "effect", "low", "high", "p", "q")))
        for shown, control in zip(cells(page, "Controls"), rows_of["controls"], strict=True):
            assert shown[0] == control["control"]
            names = ("traces", "traces_control", "of", "excess", "excess_low", "excess_high", "p", "q",
                     "traces_with_sinks", "traces_control_with_sinks")  # fmt: skip
            assert near(shown[1:], *(control[name] for name in names))
        for shown, excess in zip(cells(page, "Recurrence at equal length"), rows_of["presence"], strict=True):
            assert shown[0] == excess["control"]
            assert near(shown[1:2], excess["tokens"])
            names = ("presence", "presence_control", "excess", "low", "high", "rate", "rate_control", "rate_excess",
                     "rate_low", "rate_high")  # fmt: skip
            assert near(shown[2:8], *(100 * excess[name] for name in names), rel=6e-2)
            assert near(shown[8:], excess["p"])
        most = of["top_tokens"].filter(scope="generated", condition="reason")
        for shown, token in zip(cells(page, "Top token types"), most.iter_rows(named=True), strict=True):
            assert shown[0] == token["token"]
            assert near(shown[1:], token["max"], token["tokens"], token["traces"])
        for shown, other in zip(cells(page, "Nearest latents by co-activation"), rows_of["coactivation"], strict=True):
            assert int(shown[0]) == other["neighbour"]
            assert near(shown[1:], other["phi"], other["both"])
        lexical = rows_of["lexicality"][0]
        text = page.locator("#dashboard section", has=page.get_by_role("heading", name="Which tokens")).inner_text()
        names = ("top_1", "top_3", "typed", "low", "high", "top_10", "in_words")
        one, three, typed, low, high, ten, in_words_ = (f"{lexical[name]:.0%}" for name in names)
        assert f"on one type {one}, on three {three} (digits" in text
        assert f"would give it {typed} of its activation (95% interval {low} to {high})." in text
        assert f"on ten {ten}; on words of thinking patterns {in_words_};" in text
        assert f"types: {lexical['eta_squared']:.0%}, by chance {lexical['eta_squared_by_chance']:.0%}." in text
        score = rows_of["reason_scores"][0]
        text = page.locator("#dashboard p", has_text="ReasonScore").inner_text()
        assert near([text.replace("“wait”", "")], *(score[name] for name in
                    ("score", "low", "high", "q", "least_without_a_word")))  # fmt: skip
        # The histogram: a bar a bin of the condition under study, a line for each control, on one scale.
        histograms = rows_of["latent_histograms"]
        titles = page.locator(".histogram .bar title").all_text_contents()
        assert [int(title.split(": ")[1].split()[0]) for title in titles] == histograms[0]["counts"]
        assert page.locator(".histogram path.control").count() == 2
        shares = [[count / each["tokens"] for count in each["counts"]] for each in histograms]
        top = max(map(max, shares))
        heights = page.locator(".histogram .bar").evaluate_all(
            "bars => bars.map((bar) => Number(bar.getAttribute('height')))"
        )
        assert heights == pytest.approx([110 * (share / top) ** 0.5 if top else 0 for share in shares[0]])
        line = page.locator(".histogram path.control").nth(0).get_attribute("d")
        drawn = [110 - float(y) for y in re.findall(r" ([\d.e-]+)H", line)]
        assert drawn == pytest.approx([110 * (share / top) ** 0.5 if top else 0 for share in shares[1]], abs=1e-9)
        keys = page.locator("#dashboard .keys li").all_inner_texts()
        assert [key.partition(" (")[0] for key in keys] == [
            f"{each['condition']}: active on {each['tokens_active']} of {each['tokens']} tokens read"
            for each in histograms
        ]
        answers = [study.traces.filter(condition=condition).sort("trace_id")["correct"] for condition in CONDITIONS]
        assert page.locator("#dashboard .cell b").all_inner_texts() == [
            {True: "✓", False: "✗", None: "·"}[correct] for condition in answers for correct in condition
        ]
        assert not re.search("undefined|NaN|null", page.locator("#dashboard").inner_text())
        links = page.locator('#dashboard [aria-label="Nearest latents by co-activation"] tbody th a').all_inner_texts()
        assert [int(text) for text in links] == [other["neighbour"] for other in rows_of["coactivation"]]
        page.keyboard.press("Escape")


def test_a_new_check_is_all_over_the_page(browser, filled, monkeypatch, tmp_path):
    """What the page knows of checks is from CHECKS alone."""
    new = replace(CHECKS[0], name="not_by_chance", asks="it is there again in another run", fails="there only once",
                  number="share of runs, at least {min_share}")  # fmt: skip
    monkeypatch.setattr(checks, "CHECKS", (*CHECKS, new))
    monkeypatch.setitem(BY_NAME, new.name, new)
    results = [pl.lit("undecided").alias(new.name), pl.lit(0.25).alias(f"{new.name}_number"),
               pl.lit("one run").alias(f"{new.name}_note"), pl.lit(40).alias(f"{new.name}_needs")]  # fmt: skip
    sites = [replace(site, tables=site.tables | {"verdict": site.tables["verdict"].with_columns(results)})
             for site in filled[0].sites]  # fmt: skip
    (tmp_path / "report.html").write_text(render(replace(filled[0], sites=sites)), encoding="utf-8")
    page = open_page(browser, tmp_path)
    step = page.locator(".waterfall tr", has=page.get_by_role("rowheader", name="not by chance")).locator("td")
    judged = sum(len(site.tables["verdict"]) for site in sites)
    assert step.all_inner_texts()[2:5] == ["0", "0", str(judged)]
    assert page.locator("dt", has_text="not by chance").locator("+ dd").inner_text() == f"Passes if {new.asks}."
    form = page.locator("form.filters").first
    form.get_by_label("Check").select_option(label="not by chance: undecided")
    assert len(shown_latents(page)) == len(sites[0].tables["verdict"])
    form.get_by_label("Check").select_option(label="not by chance: pass")
    assert shown_latents(page) == []
    form.get_by_label("Check").select_option(label="any")
    open_board(page, shown_latents(page)[0])
    assert cells(page, "Checks")[-1] == [
        "not by chance",
        " undecided",
        "0.25",
        "share of runs, at least 0.05",
        "one run",
        "about 40 traces would decide it",
    ]
    takes = {row[0]: row[1:] for row in table_cells(page, "What it would take")}
    assert takes["not by chance"][1:] == [takes["verdict"][0], "about 40", "about 40"]
    assert "undefined" not in page.locator("body").inner_text()
    assert page.seen == []
    page.context.close()


def test_the_reader_tells_traces_and_sites_apart(filled, filled_page):
    study, page = filled[0], filled_page
    verdicts = {True: "correct", False: "wrong", None: "not graded"}
    for condition, trace in (("reason", 0), ("reason", 1), ("bypass", 1), ("again", 3)):
        read_trace(page, condition, trace)
        row = study.traces.filter(condition=condition, trace_id=trace).row(0, named=True)
        cut = row["finish_reason"] == "length"
        ending = ", as it didn’t come to an end" if row["correct"] is None and cut else ""
        assert (
            page.locator(".about")
            .inner_text()
            .startswith(
                f"{len(row['generated_ids'])} tokens, {'truncated' if cut else 'ended by the model'}; answer"
                f" {row['predicted']}, reference {row['reference']}: {verdicts[row['correct']]}{ending}. Activations"
            )
        )
    site = page.locator("#reader-site")
    site.select_option(label=OTHER)
    page.locator('.trace [data-at="4"]').click()
    assert "position 4, prompt, sink, held" in status_of(page)
    second = page.locator(".active meter").evaluate_all("meters => meters.map((meter) => meter.value)")
    assert f"{len(second)} active latents at {OTHER}:" in page.locator(".panel").inner_text()
    site.select_option(label=SITE)
    page.locator('.trace [data-at="4"].chosen').wait_for()
    assert "position 4, prompt, held" in status_of(page)
    first = page.locator(".active meter").evaluate_all("meters => meters.map((meter) => meter.value)")
    assert second == pytest.approx([2 * value for value in first], rel=0.06)
    # Shading is relative to the latent's largest in the trace; what it is, is said.
    page.locator(".active button").first.click()
    heats = page.locator(".trace .hot").evaluate_all(
        "spans => spans.map((span) => span.style.getPropertyValue('--heat'))"
    )
    assert max(float(heat.rstrip("%")) for heat in heats) == 85
    assert len(set(heats)) > 1 or len(heats) == 1
    assert page.locator(".scale").inner_text().startswith(f"active on {len(heats)} token")
    segments = study.traces.filter(condition="again", trace_id=3)["segments"][0]
    for part in segments:
        page.locator(f'.trace [data-at="{part["start"]}"]').click()
        assert f"position {part['start']}, {part['segment']}" in status_of(page)
    page.locator(".trace").press("Home")
    page.locator(".trace").press("ArrowDown")
    assert "position 10," in status_of(page)
    marked = page.locator(".trace .pattern").first
    marked.click()
    assert "Pattern: odd (" in status_of(page)
    page.get_by_role("button", name="Next trace").click()
    page.locator('.trace[data-trace="0 0"]').wait_for()  # from the last to the first
    page.get_by_role("button", name="Previous trace").click()
    page.locator('.trace[data-trace="2 3"]').wait_for()


def test_each_stage_s_time_is_added_up():
    rows = [("a/x", {"s": 1.0, "max_rss": 5.0}), ("a/y", {"s": 3.0, "max_rss": 2.0}), ("b", {"s": 9.0, "max_rss": 1.0})]
    assert provenance.stages(rows) == [
        {"stage": "b", "jobs": 1, "seconds": 9.0, "longest": 9.0, "memory": 1.0},
        {"stage": "a", "jobs": 2, "seconds": 4.0, "longest": 3.0, "memory": 5.0},
    ]


def test_times_are_of_this_config_s_jobs(tmp_path):
    """Others may have left theirs, also of another path scheme; a job that is of no site or block counts always."""
    folder, known = tmp_path / "results" / "x" / "benchmarks", {
        "reader": ["trained"], "site": [SITE, f"{SITE}@residual_in"], "hookpoint": [SITE], "condition": ["reason"],
        "block": [BLOCK],
    }  # fmt: skip
    ours = ["model", "tables/matches", f"traces/reason/{BLOCK}", f"saes/trained/{SITE}", "saes/trained",
            f"readings/trained/{SITE}@residual_in/reason/{BLOCK}", f"tables/trained/{SITE}/verdict",
            f"tables/trained/{SITE}/traces/reason/{BLOCK}"]  # fmt: skip
    others = [f"traces/bypass/{BLOCK}", "traces/reason/00000-00001", "saes/trained/layers.9.mlp", f"saes/{SITE}",
              f"readings/random_sae/{SITE}/reason/{BLOCK}", "tables/trained/layers.9.mlp/verdict",
              f"tables/{SITE}/verdict", f"tables/trained/{SITE}/traces/reason/00000-00001"]  # fmt: skip
    for job in ours + others:
        (folder / f"{job}.jsonl").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{job}.jsonl").write_text(json.dumps({"s": len(job)}) + "\n")
    assert dict(provenance.benchmarks(folder, known)) == {job: {"s": len(job)} for job in ours}


def test_a_trace_s_activations_are_those_of_its_site_condition_and_block(tmp_path):
    """Blocks may be listed in any order."""
    given = []
    for number, (site, condition, block) in enumerate(
        product((OTHER, SITE), CONDITIONS, ("00004-00005", "00000-00003"))
    ):
        levels = {"experiment": "x", "reader": "trained", "site": site, "condition": condition, "block": block}
        given.append(str(tmp_path / paths.ACTIVATIONS.format(**levels)))
        ids = [int(end) for end in block.split("-")]
        rows = {"trace_id": ids, "position": [0, 0], "sink": [False, False], "latent": [number, 100 + number],
                "activation": [1.0, 1.0]}  # fmt: skip
        files.write_parquet(pl.DataFrame(rows), given[-1], {})
    read = reader.reading(given)
    assert read(OTHER, "reason", 4)["latent"].to_list() == [0]
    assert read(OTHER, "bypass", 3)["latent"].to_list() == [103]
    assert read(SITE, "again", 5)["latent"].to_list() == [110]
    assert read(SITE, "again", 1).is_empty()


def test_links_to_neuronpedia_are_of_the_site_an_sae_was_made_for():
    name = "gemma-2-2b/{layer}-gemmascope-mlp-16k"
    assert (
        report.neuronpedia(name, "layers.12.mlp", 3) == "https://www.neuronpedia.org/gemma-2-2b/12-gemmascope-mlp-16k/3"
    )
    assert report.neuronpedia(name, "layers.12.mlp@residual_in", 3) is None
    assert report.neuronpedia(None, "layers.12.mlp", 3) is None
