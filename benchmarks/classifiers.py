"""How far classifiers get on ATT&CK that may do what no map and no nudge can.

    python benchmarks/classifiers.py    # about ten minutes; writes a section of benchmarks/README.md

A map of queries with nudged nodes ranks by scores that are linear in the query. Classifiers of queries, one class a
labelled node, show what the labels and the encoder's embeddings hold if that limit falls: logistic regression is as
linear, kernel features and a network are not. None of them could serve a vector store's search but the network, whose
output is a query vector. Settings and epochs are chosen on the validation part.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from data_sets import METRIC, Data, load
from report import machine, write_section
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression

from nudge_rag import LabeledPairs, evaluate
from nudge_rag.evaluation.metrics import parse_metric

INVERSE_RIDGES = (3.0, 10.0, 30.0)
KERNEL_FEATURES, KERNEL_WIDTHS, KERNEL_INVERSE_RIDGES = 2_000, (0.5, 1.0), (10.0, 100.0)
HIDDEN_UNITS, DROPOUTS, EPOCHS, BATCH, RATE, TAU, RIDGE = 2_048, (0.3, 0.5), 20, 256, 1e-3, 0.05, 0.01


@dataclass(frozen=True)
class Attempt:
    """Scores (queries, nodes) of both parts by one setting."""

    setting: str
    validation: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Row:
    """What the setting that is best in validation reaches in test."""

    name: str
    setting: str
    validation: float
    test: float
    seconds: float


def embed(data: Data, part: LabeledPairs) -> np.ndarray:
    """(m, d) unit query embeddings, float32."""
    vectors = np.asarray(data.labels(part).vectors, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def embed_parts(data: Data) -> list[np.ndarray]:
    """Query embeddings of the training, the validation and the test part."""
    return [embed(data, part) for part in (data.split.train, data.split.val, data.split.test)]


def first_answers(data: Data) -> np.ndarray:
    """(m,) the row of the first answer of each training query: one in a hundred has a second one."""
    return np.array([rows[0] for rows in data.labels(data.split.train).answers])


def untuned(data: Data) -> Iterator[Attempt]:
    nodes = data.nodes / np.linalg.norm(data.nodes, axis=1, keepdims=True)
    yield Attempt("", embed(data, data.split.val) @ nodes.T, embed(data, data.split.test) @ nodes.T)


def logistic_regression(data: Data) -> Iterator[Attempt]:
    parts = embed_parts(data)
    for inverse in INVERSE_RIDGES:
        yield _regression(data, parts, inverse, f"C {inverse:g}")


def kernel_regression(data: Data) -> Iterator[Attempt]:
    """Logistic regression over Nyström features of a radial kernel."""
    parts = embed_parts(data)
    for width in KERNEL_WIDTHS:
        features = Nystroem(gamma=width, n_components=KERNEL_FEATURES, random_state=0).fit(parts[0])
        mapped = [features.transform(part) for part in parts]
        for inverse in KERNEL_INVERSE_RIDGES:
            yield _regression(data, mapped, inverse, f"gamma {width:g}, C {inverse:g}")


def _regression(data: Data, parts: list[np.ndarray], inverse: float, setting: str) -> Attempt:
    train, validation, test = parts
    model = LogisticRegression(C=inverse, max_iter=500, tol=1e-3).fit(train, first_answers(data))
    scores = []
    for part in (validation, test):
        all_nodes = np.full((len(part), len(data.nodes)), -np.inf)
        all_nodes[:, model.classes_] = model.decision_function(part)
        scores.append(all_nodes)
    return Attempt(setting, *scores)


def network(data: Data) -> Iterator[Attempt]:
    """q + W relu(A q + a) against free node vectors, by cosine; starts at the embeddings, an attempt each epoch."""
    torch.set_num_threads(1)
    train, validation, test = map(torch.from_numpy, embed_parts(data))
    answers = torch.from_numpy(first_answers(data))
    originals = torch.nn.functional.normalize(torch.tensor(data.nodes, dtype=torch.float32), dim=1)
    for dropout in DROPOUTS:
        torch.manual_seed(0)
        model = _Network(originals, dropout)
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=RATE, total_steps=EPOCHS * -(-len(train) // BATCH)
        )
        for epoch in range(EPOCHS):
            model.train()
            for rows in torch.randperm(len(train)).split(BATCH):
                loss = torch.nn.functional.cross_entropy(model(train[rows]) / TAU, answers[rows]) + model.penalty()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            model.eval()
            with torch.no_grad():
                yield Attempt(f"dropout {dropout:g}, epoch {epoch + 1}", model(validation).numpy(), model(test).numpy())


class _Network(torch.nn.Module):
    """A query-side network over nodes that may move."""

    def __init__(self, originals: torch.Tensor, dropout: float) -> None:
        super().__init__()
        dimension = originals.shape[1]
        self.originals = originals
        self.nodes = torch.nn.Parameter(originals.clone())
        self.inner = torch.nn.Linear(dimension, HIDDEN_UNITS)
        self.outer = torch.nn.Linear(HIDDEN_UNITS, dimension, bias=False)
        self.dropout = torch.nn.Dropout(dropout)
        with torch.no_grad():
            # Unit queries are small in each coordinate: units must see differences, and change little at first.
            self.inner.weight *= 20
            self.outer.weight *= 0.1

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        hidden = self.dropout(torch.relu(self.inner(queries)))
        mapped = torch.nn.functional.normalize(queries + self.outer(hidden), dim=1)
        scores: torch.Tensor = mapped @ torch.nn.functional.normalize(self.nodes, dim=1).T
        return scores

    def penalty(self) -> torch.Tensor:
        moved = ((self.nodes - self.originals) ** 2).sum(1).mean()
        return RIDGE * moved + 1e-4 * (self.outer.weight**2).sum()


METHODS = {
    "untuned": untuned,
    "logistic regression": logistic_regression,
    f"logistic regression, {KERNEL_FEATURES:,} kernel features": kernel_regression,
    f"network of {HIDDEN_UNITS:,} hidden units": network,
}


def metric_of(data: Data, part: LabeledPairs, scores: np.ndarray) -> float:
    """Mean METRIC times 100."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, : parse_metric(METRIC).k]
    run = {query: [data.ids[row] for row in rows] for query, rows in zip(part.queries, best, strict=True)}
    return float(100 * evaluate(part.qrels, run, [METRIC]).of(METRIC, list(part.qrels)).mean())


def best_row(data: Data, name: str) -> Row:
    started = time.process_time()
    measured = [
        (metric_of(data, data.split.val, one.validation), metric_of(data, data.split.test, one.test), one.setting)
        for one in METHODS[name](data)
    ]
    validation, test, setting = max(measured, key=lambda one: one[0])
    return Row(name, setting, validation, test, time.process_time() - started)


def main() -> None:
    data = load("attack")
    lines = [
        f"MITRE ATT&CK: {len(data.split.train.qrels):,} training queries, nDCG@10 (times 100). Classifiers of queries,",
        "one class a labelled node: what the labels and the embeddings hold if scores need not be linear in the query.",
        "Settings and epochs are chosen on the validation part; processor seconds are of all of them.",
        machine("numpy", "scikit-learn", "torch"),
        "",
        "| classifier | chosen | validation | test | seconds |",
        "|---|---|---|---|---|",
    ]
    for name in METHODS:
        row = best_row(data, name)
        lines.append(f"| {row.name} | {row.setting} | {row.validation:.1f} | {row.test:.1f} | {row.seconds:.0f} |")
        print(lines[-1], flush=True)
    write_section("classifiers", "What classifiers reach", lines)


if __name__ == "__main__":
    main()
