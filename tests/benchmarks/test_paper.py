"""The paper's protocol on a small folder of the authors' schema, against rankings by brute force."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WORDS = [f"word{number}" for number in range(12)]


@pytest.fixture(autouse=True)
def _benchmarks_are_modules(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def write(file, rows):
    import pyarrow.parquet as parquet

    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), file)


def encode(texts):
    """Counts of words, and a little noise of each text's own, so that no two nodes tie."""
    counts = np.array([[text.split().count(word) for word in WORDS] for text in texts], dtype=float)
    return counts + [0.05 * np.random.default_rng(crc32(text.encode())).random(len(WORDS)) for text in texts]


@pytest.fixture
def folder(tmp_path):
    """Records of two words each; a question names one of its record's words and one of the next record's."""
    rng = np.random.default_rng(0)
    n_records = 30
    words = [rng.choice(WORDS, 2, replace=False) for _ in range(n_records)]
    records = [
        {"record_id": row, "doc_id": f"d{row}", "passage_id": "0", "title": pair[0], "text": pair[1]}
        for row, pair in enumerate(words)
    ]
    folder = tmp_path / "toy_ft"
    write(folder / "data_records" / "train.parquet", records[::-1])
    for split, size in (("train", 60), ("dev", 15), ("test", 20)):
        answers = rng.integers(0, 20, size)  # the last ten records answer nothing
        questions = [
            {"q_id": q, "input": f"{words[answer][0]} {words[answer + 1][1]}"} for q, answer in enumerate(answers)
        ]
        write(folder / "qs" / f"{split}.parquet", questions)
        labels = [{"q_id": q, "record_id": int(answer), "rel": 1 + q % 2} for q, answer in enumerate(answers)]
        labels.append({"q_id": 0, "record_id": 25, "rel": 0})
        write(folder / "qs_rel" / f"{split}.parquet", labels)
    return folder


def test_records_are_in_the_order_of_their_ids_and_queries_are_keyed_by_split(folder):
    import paper

    records = paper.read_records(folder)
    assert len(records.texts) == 30
    assert [len(records.parts[split].queries) for split in paper.SPLITS] == [60, 15, 20]
    assert set(records.parts["dev"].queries) == {f"dev-{q}" for q in range(15)}
    assert "25" not in records.parts["test"].qrels["test-0"]  # rel 0 is no answer
    assert set(records.parts["test"].qrels["test-1"].values()) == {2.0}


def test_measures_are_those_of_a_ranking_by_brute_force(folder):
    import paper

    data = paper.embed(paper.read_records(folder), encode)
    recall_1, recall_10, ndcg = paper.measure_percent(data, paper.untuned(data))
    first, ten, gains = [], [], []
    for query, text in data.split.test.queries.items():
        (answer,) = (int(node) for node in data.split.test.qrels[query])
        scores = data.nodes @ data.queries[text]
        order = np.argsort(-scores, kind="stable").tolist()
        rank = order.index(answer)
        first.append(rank == 0)
        ten.append(rank < 10)
        gains.append(1 / np.log2(rank + 2) if rank < 10 else 0.0)
    np.testing.assert_allclose([recall_1, recall_10, ndcg], [100 * np.mean(v) for v in (first, ten, gains)], atol=1e-4)


@pytest.mark.parametrize("name", ["NudgeN", "NudgeM"])
def test_the_filter_of_nontrain_records_changes_nothing(folder, name):
    import paper

    data = paper.embed(paper.read_records(folder), encode)
    solver = getattr(paper, name)()
    whole = paper.nudged(solver, nontrain_filter=False)(data)
    filtered = paper.nudged(solver, nontrain_filter=True)(data)
    np.testing.assert_allclose(filtered.vectors, whole.vectors, atol=1e-6)
    assert not np.array_equal(whole.vectors, data.nodes)
    np.testing.assert_array_equal(filtered.vectors[20:], data.nodes[20:])


def test_the_table_has_the_published_figures_beside_ours(folder, monkeypatch, capsys):
    import paper

    monkeypatch.setattr(paper, "_encoder", lambda model: encode)
    monkeypatch.setitem(paper.PUBLISHED, ("toy", "bge-small-en-v1.5"), {"NUDGE-N": (None, 43.7, 44.5)})
    paper.main(["--data", str(folder), "--model", "somewhere/bge-small-en-v1.5"])
    lines = capsys.readouterr().out.splitlines()
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines}
    assert next(iter(cells)) == "" and set(cells) >= {"untuned", "NUDGE-M", "NUDGE-N"}
    assert cells["NUDGE-N"][4:] == ["- / 43.7 / 44.5", "52.1 / 72.5 / 61.3"]
    assert cells["untuned"][4:] == ["-", "37.0 / 62.4 / 48.6"]
    assert float(cells["NUDGE-N"][2]) > float(cells["untuned"][2])


def test_a_folder_of_another_schema_is_refused_by_name(folder):
    import paper

    (folder / "qs" / "dev.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"dev\.parquet is missing"):
        paper.read_records(folder)
    write(folder / "qs" / "dev.parquet", [{"q_id": 0, "input": "word1"}])
    write(folder / "qs_rel" / "dev.parquet", [{"q_id": 0, "record_id": 30, "rel": 1}])
    with pytest.raises(ValueError, match="record_id 30"):
        paper.read_records(folder)
