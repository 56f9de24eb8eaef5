"""What else one could do with the same labels: the methods that accuracy.py sets beside this library's solvers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

import numpy as np
from data_sets import METRIC, Data, Method, Tuned, measure

# Of the cosine in the softmax: 1 / temperature, the default of sentence-transformers.
SCALE = 20.0
ADAPTER_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
ADAPTER_EPOCHS = 60
# A rate is given up after this many epochs without a better validation value than its best.
ADAPTER_PATIENCE = 6
ADAPTER_BATCH = 256
STEP_NORMS = (0.02, 0.05, 0.1, 0.2)
STEP_ROUNDS, STEP_PATIENCE = 60, 4


def nudge_ft(name: str) -> Method:
    """The paper's authors' own implementation, ``NUDGEM`` or ``NUDGEN``, with its defaults."""

    def method(data: Data) -> Tuned:
        import nudge

        parts = [data.labels(part) for part in data.split[:2]]
        sets = [{"q_embs": np.asarray(part.vectors), "q_ans_indx": part.answers} for part in parts]
        started = time.perf_counter()
        with contextlib.redirect_stdout(None):
            vectors = getattr(nudge, name)(device="cpu").finetune_embeddings(np.array(data.nodes), *sets)
        return Tuned(
            np.asarray(vectors), time.perf_counter() - started, similarity="dot" if name == "NUDGEM" else "cosine"
        )

    return method


def extra_vectors(data: Data) -> Tuned:
    """Every training query is stored as one more vector of each of its nodes; nothing is trained."""
    queries, nodes = data.positives(data.split.train)
    started = time.perf_counter()
    owners = np.concatenate([np.arange(len(data.ids)), nodes])
    vectors = np.concatenate([data.nodes, data.embed(list(data.split.train.queries.values()))[queries]])
    order = np.argsort(owners, kind="stable")
    vectors = vectors[order]
    return Tuned(vectors, time.perf_counter() - started, owners=owners[order])


def additive_steps(data: Data, steps: Sequence[float] = STEP_NORMS) -> Tuned:
    """Nodes move, by additive steps of bounded norm, towards those of their training queries that miss them.

    In the spirit of ERM (arXiv 2602.05152). A query misses a node if that is not the first of all nodes. Each round
    adds, to every node that is missed, a vector of the given norm in the mean direction of the queries that miss it;
    rounds end once the validation part has gained nothing for a few. The validation part chooses the norm.
    """
    started = time.perf_counter()
    best = max((_best_round(data, step) for step in steps), key=lambda choice: choice[0])
    return Tuned(best[1], time.perf_counter() - started)


def _best_round(data: Data, step: float) -> tuple[float, np.ndarray]:
    query_rows, node_rows = data.positives(data.split.train)
    queries = data.embed(list(data.split.train.queries.values()))
    nodes = np.array(data.nodes, dtype=np.float32)
    best, waited = (measure(data, Tuned(nodes, 0.0), data.split.val).mean(METRIC), nodes.copy()), 0
    for _ in range(STEP_ROUNDS):
        units = nodes / np.linalg.norm(nodes, axis=1, keepdims=True)
        first = np.concatenate(
            [(block @ units.T).argmax(axis=1) for block in np.array_split(queries, 1 + len(queries) // 1_000)]
        )
        missed = first[query_rows] != node_rows
        pull = np.zeros_like(nodes)
        np.add.at(pull, node_rows[missed], queries[query_rows[missed]])
        lengths = np.linalg.norm(pull, axis=1, keepdims=True)
        nodes = units + step * np.divide(pull, lengths, out=np.zeros_like(pull), where=lengths > 0)
        value = measure(data, Tuned(nodes, 0.0), data.split.val).mean(METRIC)
        best, waited = ((value, nodes.copy()), 0) if value > best[0] else (best, waited + 1)
        if waited == STEP_PATIENCE:
            break
    return best


def query_adapter(data: Data, rates: Sequence[float] = ADAPTER_RATES) -> Tuned:
    """Queries through a linear map before they are searched; the nodes stay (the Adaptor of arXiv 2409.02343).

    The map begins as the identity and learns by in-batch negatives. The validation part chooses the learning rate and
    the epoch, the identity among the choices.
    """
    started = time.perf_counter()
    identity = np.eye(data.nodes.shape[1], dtype=np.float32)
    with _one_thread():
        choices = [(_validation(data, identity), identity), *(_best_epoch(data, rate) for rate in rates)]
    _, best = max(choices, key=lambda choice: choice[0])
    return _adapted(data, best, time.perf_counter() - started)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """The products are so small that a second thread only waits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _best_epoch(data: Data, rate: float) -> tuple[float, np.ndarray]:
    best = (-np.inf, np.empty(0))
    waited = 0
    for matrix in _adapter_epochs(data, rate):
        value = _validation(data, matrix)
        best, waited = ((value, matrix), 0) if value > best[0] else (best, waited + 1)
        if waited == ADAPTER_PATIENCE:
            break
    return best


def _validation(data: Data, matrix: np.ndarray) -> float:
    return measure(data, _adapted(data, matrix), data.split.val).mean(METRIC)


def _adapted(data: Data, matrix: np.ndarray, seconds: float = 0.0) -> Tuned:
    return Tuned(data.nodes, seconds, embed=lambda texts: data.embed(texts) @ matrix.T)


def _adapter_epochs(data: Data, rate: float) -> Iterator[np.ndarray]:
    """The map after each epoch."""
    import torch
    from torch.nn import functional

    train = data.split.train
    query_rows, node_rows = (torch.from_numpy(rows) for rows in data.positives(train))
    queries = torch.from_numpy(data.embed(list(train.queries.values())))
    nodes = functional.normalize(torch.from_numpy(data.nodes))
    answers = torch.zeros(len(queries), len(nodes), dtype=torch.bool)
    answers[query_rows, node_rows] = True
    matrix = torch.eye(nodes.shape[1]).requires_grad_()
    optimizer = torch.optim.Adam([matrix], lr=rate)
    order = torch.Generator().manual_seed(0)
    for _ in range(ADAPTER_EPOCHS):
        for pairs in torch.randperm(len(query_rows), generator=order).split(ADAPTER_BATCH):
            asked, wanted = query_rows[pairs], node_rows[pairs]
            scores = SCALE * functional.normalize(queries[asked] @ matrix.T) @ nodes[wanted].T
            # Another answer of the same query is no negative.
            others = answers[asked[:, None], wanted].fill_diagonal_(False)
            loss = functional.cross_entropy(scores.masked_fill(others, -torch.inf), torch.arange(len(pairs)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield matrix.detach().numpy().copy()
