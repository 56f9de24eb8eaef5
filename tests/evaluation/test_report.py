"""Reports: complete, escaped, without scripts and requests; looked at in a headless browser."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import shutil
import subprocess
import threading
from collections import Counter
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

import nudge_rag
from nudge_rag import LabeledPairs, evaluate_retrievers, store_retriever
from nudge_rag.evaluation.report.figures import draw_bars, draw_intervals
from nudge_rag.stores.memory.mapping import MappingStore
from nudge_rag.tuning.label_coverage import coverage
from nudge_rag.tuning.report import measure_angles

OUR_ELEMENTS = (
    "html head meta title style body main section h1 h2 p bdi strong div figure figcaption details summary table "
    "caption thead tbody tr th td ul li footer svg defs g path use text clippath rect tspan"
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def hostile_texts(port):
    """What a corpus may hold, each as a query and as a text; those with an address would ask our server."""
    address = f"http://127.0.0.1:{port}"
    return [
        "<script>document.title = 'broken'</script>",
        f"<img src='{address}/image' onerror=\"document.title='broken'\">",
        f"</style></table></svg><script src='{address}/script'></script>",
        f"<svg onload=\"document.title='broken'\"><image href='{address}/svg'/></svg>",
        f"<link rel=stylesheet href='{address}/css'><iframe src='{address}/frame'></iframe>",
        f"<style>@import url({address}/import); body {{ background: url({address}/background) }}</style>",
        f"<meta http-equiv=refresh content='0; url={address}/refresh'><base href='{address}/'>",
        "javascript:alert(1) \" onmouseover=\"document.title='broken'\" x='",
        "{{ 7 * 7 }} {% raw %} $\\frac{1}{2}$ $unbalanced",
        "\u202eevil\u202c \u2066isolated\u2069 \u2028separated\u2029",
        "nul \x00 bell \x07 escape \x1b[31m",
        "&lt;script&gt; &amp; &#60;",
        "<!-- comment --> ]]> <![CDATA[ x ]]>",
        "x" * 5000,
    ]


@pytest.fixture(scope="module")
def server():
    """Counts every request: there must be none."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, asked
    server.shutdown()


@pytest.fixture(scope="module")
def tuned(server):
    """A nudge over a store whose ids, and queries whose texts, are hostile."""
    texts = hostile_texts(server[0])
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(texts) * 4, 12))
    ids = [f"{text[:200]} {number}" for number in range(4) for text in texts]
    store = MappingStore(dict(zip(ids, vectors, strict=True)))
    wordings = [f"{text} {number}" for number, text in enumerate(texts * 20)]
    asked = {text: vectors[number % len(ids)] + rng.normal(size=12) for number, text in enumerate(wordings)}
    pairs = LabeledPairs.from_pairs((text, ids[number % len(ids)]) for number, text in enumerate(asked))

    def embed(wanted):
        return np.stack([asked[text] for text in wanted])

    nudge = nudge_rag.tune(store, pairs, embed, solver="nudge-n", model="<b>model</b>")
    systems = {
        "<script>untuned": store_retriever(store, embed),
        "\u202enudged": store_retriever(nudge.overlay(), embed),
    }
    slices = {"<i>kind": {query: texts[number % 3][:40] for number, query in enumerate(nudge.split.test.queries)}}
    found = evaluate_retrievers(systems, nudge.split.test, ["nDCG@10"], trained_on=nudge.split.train, slices=slices)
    shown = [*texts, "a lone surrogate \ud800"]
    return nudge, found, {node: shown[number % len(shown)] for number, node in enumerate(ids)}


@pytest.fixture(scope="module")
def pages(tuned, tmp_path_factory):
    nudge, found, texts = tuned
    folder = tmp_path_factory.mktemp("reports")
    nudge.report(folder / "nudge.html", title="<script>alert(1)</script> \u202etitle", evaluation=found, texts=texts)
    found.report(folder / "evaluation.html", texts=texts)
    return folder


class Elements(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("name", ["nudge", "evaluation"])
def test_the_page_holds_our_elements_only(pages, name):
    page = (pages / f"{name}.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 300_000
    found = Elements(page)
    assert set(found.tags) <= set(OUR_ELEMENTS.split())
    for tag, attribute, value in found.attributes:
        assert not attribute.startswith("on"), (tag, attribute)
        assert attribute not in ("src", "srcset", "action", "formaction")
        if attribute == "href":
            assert (tag, value[0]) == ("use", "#")
    assert found.tags.index("meta") < found.tags.index("style")
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    visible = "".join(found.text)
    assert "<script>untuned" in visible  # shown, as text
    for sign in "\x00\x07\x1b\u202e\u202c\u2066\u2069\u2028\u2029":
        assert sign not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", ["nudge", "evaluation"])
def test_every_drawing_has_a_text_alternative_and_scales(pages, name):
    page = (pages / f"{name}.html").read_text(encoding="utf-8")
    drawings = re.findall(r'<div role="img" aria-label="([^"]+)">\s*(<svg[^>]*>)', page)
    assert len(drawings) == page.count("<svg") > 0
    for label, opening in drawings:
        assert len(label) > 40
        assert 'viewBox="' in opening
        assert " width=" not in opening
    assert not re.search(r"#(010203|0a72b1|d45e0a)", page)  # drawn colours are the page's own
    assert page.count("<caption>") == page.count("<table>")


def test_the_numbers_stand_beside(pages, tuned):
    nudge, found, _ = tuned
    numbers = json.loads((pages / "nudge.json").read_text(encoding="utf-8"))
    assert numbers["comparison"] == nudge.to_dict()["comparison"]
    assert numbers["evaluation"]["rows"] == found.to_dict(per_query=False)["rows"]
    assert json.loads((pages / "evaluation.json").read_text(encoding="utf-8"))["schema"] == "nudge-rag/evaluation/1"


def test_examples_are_capped_and_what_is_cut_is_said(pages, tuned):
    found = tuned[1]
    page = (pages / "evaluation.html").read_text(encoding="utf-8")
    changes = found.changes(found.systems[1])
    losses = sum(1 for _, change in changes if change < 0)
    wins = len(changes) - losses
    assert page.count("<li>") == min(losses, 20) + min(wins, 20)
    if len(changes) > page.count("<li>"):
        assert f"{len(changes) - page.count('<li>'):,} are left out" in page
    assert "x" * 400 not in page


@pytest.fixture(scope="module")
def improved(server):
    """A nudge that wins and loses queries whose texts, and those of their answers, are hostile."""
    texts = hostile_texts(server[0])
    rng = np.random.default_rng(1)
    nodes, shift = rng.normal(size=(2, 45, 16))
    store = MappingStore({f"n{row}": vector for row, vector in enumerate(nodes)})
    wordings = [f"{text} {number}" for number, text in enumerate(texts * 30)]
    asked = {text: (nodes + 2 * shift)[row % 45] + rng.normal(size=16) for row, text in enumerate(wordings)}
    pairs = LabeledPairs.from_pairs((text, f"n{row % 45}") for row, text in enumerate(asked))
    return nudge_rag.tune(
        store,
        pairs,
        lambda wanted: np.stack([asked[text] for text in wanted]),
        solver="nudge-n",
        texts=lambda ids: [texts[int(node[1:]) % len(texts)] + " \ud800" for node in ids],
    )


@pytest.mark.parametrize("saved_texts", [False, True])
def test_a_saved_nudge_reports_hubs_wins_and_losses_too(improved, tmp_path, saved_texts):
    nudge = improved
    nudge.save(tmp_path / "nudge", texts=saved_texts)
    loaded = nudge_rag.Nudge.load(tmp_path / "nudge", nudge.store)
    nudge.report(tmp_path / "tuned.html")
    loaded.report(tmp_path / "loaded.html")
    loaded.report(tmp_path / "named.html", pairs=nudge.split.test)
    numbers = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("tuned", "loaded", "named")]
    assert numbers[0]["held_out"]["against_untuned"]["nudged"]["wins"] > 3
    assert numbers[1]["held_out"] == numbers[2]["held_out"] == numbers[0]["held_out"]
    pages = [(tmp_path / f"{name}.html").read_text(encoding="utf-8") for name in ("tuned", "loaded", "named")]
    titles = [re.findall(r"<h2[^>]*>(.*?)</h2>", page, re.DOTALL) for page in pages]
    # How many labels each part has is not saved.
    assert [title for title in titles[0] if title in titles[1]] == titles[1] == titles[2]
    assert any("Hubs" in title for title in titles[1]) and any("Won and lost" in title for title in titles[1])
    asked = [re.findall(r"<li>\s*<strong[^>]*>(.*?)</strong>|<li>(.*?)</li>", page, re.DOTALL) for page in pages]
    assert len(asked[0]) == len(asked[1]) == len(asked[2]) > 3
    if saved_texts:
        assert asked[1] == asked[0]
    else:
        assert "document.title" not in "".join(map(str, asked[1]))
        assert "document.title" in "".join(map(str, asked[2]))
    for page in pages:
        assert set(Elements(page).tags) <= set(OUR_ELEMENTS.split())


def test_notebooks_get_escaped_html(tuned):
    nudge, found, _ = tuned
    for shown in (nudge._repr_html_(), found._repr_html_()):
        assert "<script" not in shown
        assert "\u202e" not in shown
    assert "&lt;script&gt;untuned" in found._repr_html_()
    assert html.unescape(nudge._repr_html_()).startswith("<pre>")


def test_the_same_report_twice_is_the_same_file(tuned, tmp_path):
    found = tuned[1]
    first, second = (found.report(tmp_path / f"{number}.html").read_bytes() for number in range(2))
    assert first == second


def test_another_ending_is_refused(tuned, tmp_path):
    with pytest.raises(ValueError, match=r"a report is an \.html file, got"):
        tuned[1].report(tmp_path / "report.pdf")
    assert list(tmp_path.iterdir()) == []


def test_texts_of_data_start_no_mathematics():
    for text in ("$\\frac{1}$", "$", "a$b$c"):
        assert "<svg" in draw_bars("bars", [text, "b"], [1, 2], labels=(text, text))
        assert "<svg" in draw_intervals("intervals", [text], [(0.0, 0.1, 0.2)], label=text)


def test_angles_by_hand():
    angles = measure_angles(
        np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]), np.array([[0.0, 3.0], [0.0, 1.0], [1.0, 0.0]])
    )
    np.testing.assert_allclose(angles, [90.0, 0.0, 0.0])


def test_the_learning_curve_and_what_is_live(tuned, tmp_path):
    nudge = tuned[0]
    store = nudge.store
    ids = [node for batch, _ in store.scan() for node in batch][:10]
    originals = dict(zip(ids, store.read(ids), strict=True))
    rng = np.random.default_rng(1)
    # Users' words lie nearer to the next node than to the one that answers.
    asked = {
        f"question {number}": 0.8 * originals[ids[number % 10]]
        + originals[ids[(number + 1) % 10]]
        + rng.normal(size=12) * 0.2
        for number in range(300)
    }
    pairs = LabeledPairs.from_pairs((text, ids[number % 10]) for number, text in enumerate(asked))

    def embed(wanted):
        return np.stack([asked[text] for text in wanted])

    fresh = MappingStore(dict(zip(ids, store.read(ids), strict=True)), key="learning")
    first = nudge_rag.tune(fresh, pairs, embed, solver="nudge-n", versions=tmp_path / "v")
    first.push(force=True)
    few = pairs.subset(list(pairs.queries)[:150])
    second = nudge_rag.tune(fresh, few, embed, solver="nudge-n", versions=tmp_path / "v")
    found = coverage(pairs, fresh, embed)
    shown = {node: f"the text of {number}" for number, node in enumerate(ids)}
    again = dataclasses.replace(second, texts_of=lambda wanted: [shown[node] for node in wanted])
    page = again.report(tmp_path / "report.html", coverage=found).read_text(encoding="utf-8")
    assert "Would more labels help?" in page
    assert page.count("<svg") >= 4
    assert f"{found.curve[-1].after:.3f}" in page
    assert "Against what is live" in page
    assert "it would forget" in page
    check_rankings(second, page, shown)


def check_rankings(nudge, page, texts):
    """Hubs, wins and losses stand in the report without an evaluation; their numbers are counted here again."""
    held_out = nudge.held_out
    assert held_out.systems == ("untuned", "live", "nudged")
    assert held_out.pairs is nudge.split.test
    for system, found in held_out.evaluations.items():
        counts = Counter(node for query in held_out.pairs.queries for node in found.rankings[query])
        row = re.search(rf'<th scope="row"><bdi>{system}</bdi></th>(.*?)</tr>', page[page.index(">Hubs<") :]).group(1)
        cells = re.findall(r"<bdi>(.*?)</bdi>", row)
        assert cells[:2] == [str(len(counts)), str(max(counts.values()))]
    before, after = (held_out.evaluations[name] for name in ("untuned", "nudged"))
    values = [(before.of("nDCG@10", [query])[0], after.of("nDCG@10", [query])[0]) for query in before.query_ids]
    wins, losses = sum(new > old for old, new in values), sum(new < old for old, new in values)
    assert f"of {wins} queries is higher and of {losses} lower than with untuned" in page
    assert before.mean("nDCG@10") == nudge.comparison.row("nDCG@10").before
    assert any(html.escape(text) in page for text in texts.values())
    assert any(html.escape(text) in page for text in held_out.pairs.queries.values())
    for query, grades in held_out.pairs.qrels.items():
        if after.of("nDCG@10", [query])[0] == 1:
            assert after.rankings[query][0] in grades


@pytest.fixture(scope="module")
def browser():
    found = next((shutil.which(name) for name in BROWSERS if shutil.which(name)), None)
    assert found, f"this test needs one of {', '.join(BROWSERS)}: `make browser` installs Debian's chromium"
    return found


@pytest.mark.parametrize("name", ["nudge", "evaluation"])
@pytest.mark.parametrize(("scheme", "paper"), [(1, (255, 255, 255)), (0, (18, 22, 26))])
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(browser, pages, server, tmp_path, name, scheme, paper, width):
    _, asked = server
    picture = tmp_path / "page.png"
    options = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-component-update", "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=3000",
        f"--blink-settings=preferredColorScheme={scheme}", f"--window-size={width},1200",
    ]  # fmt: skip
    address = (pages / f"{name}.html").as_uri()
    shown = subprocess.run(
        [*options, "--dump-dom", address], capture_output=True, text=True, timeout=180, check=True, errors="replace"
    )
    title = re.search(r"<title>(.*?)</title>", shown.stdout, re.DOTALL)
    assert title is not None
    assert "broken" not in title.group(1)
    assert "CONSOLE" not in shown.stderr, shown.stderr
    subprocess.run([*options, f"--screenshot={picture}", address], capture_output=True, timeout=180, check=True)
    from matplotlib.image import imread

    pixels = (imread(picture)[..., :3] * 255).round().astype(np.uint8)
    assert pixels.shape[1] == width
    assert tuple(pixels[2, 2]) == paper
    assert len(np.unique(pixels.astype(np.uint32) @ (1 << 16, 1 << 8, 1))) > 20  # colours: something is drawn on it
    # Nothing sticks out to the right: the last columns of pixels are paper.
    assert (pixels[:, -3:] == paper).all()
    assert asked == []
