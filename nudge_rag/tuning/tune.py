"""Labelled pairs in, a nudge out: pull, embed the queries, solve, and measure on held-out pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.caller import warn_caller
from nudge_rag.common.deprecation import renamed_argument
from nudge_rag.feedback.pairs import LabeledPairs, Split
from nudge_rag.journal.fingerprints import FINGERPRINT, Fingerprint, describe_model
from nudge_rag.journal.journal import Journal, nudged_ids, original_vectors
from nudge_rag.journal.node_map import mapped_store, untouched_store
from nudge_rag.journal.text_hashes import hash_texts
from nudge_rag.solvers import LabeledQueries
from nudge_rag.solvers.registry import Solver, resolve_solver
from nudge_rag.stores.access import reading, require_store, write_problem_of
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.tuning.competitors import CompetitorMethod, Competitors, StoreReads, find_competitors, read_pool
from nudge_rag.tuning.gate import find_seen, hash_queries, live_queries
from nudge_rag.tuning.generated import refuse_generated
from nudge_rag.tuning.judging import judge_nudge
from nudge_rag.tuning.label_matching import describe_strangers, example_ids, match_labels
from nudge_rag.tuning.live import with_live
from nudge_rag.tuning.nudge import Nudge
from nudge_rag.tuning.options import TuneOptions, TuneSettings
from nudge_rag.tuning.queries import EmbedQueries, embed_texts
from nudge_rag.tuning.spelling import spell_pairs
from nudge_rag.tuning.trial import HeldOut, Trial, run_trial

__all__ = ["tune"]


@dataclass(frozen=True)
class LabelledNodes:
    """The nodes that have a label or were nudged before.

    Attributes:
        ids: sorted, so that the order of the pairs does not decide between nodes that tie.
        current: (len(ids), d), what the store holds.
        originals: (len(ids), d), what it held before any nudge.
    """

    ids: list[str]
    current: FloatArray
    originals: FloatArray


@renamed_argument("candidates", "competitors")
def tune(
    store: EmbeddingStore,
    pairs: LabeledPairs | Split,
    embed_queries: EmbedQueries,
    **options: Unpack[TuneOptions],
) -> Nudge:
    """Move the labelled nodes of ``store`` towards their queries, in memory; nothing is written before ``push``.

    Reads the vectors of the labelled nodes only. The store's own search finds what else competes for a place, so time
    and memory follow the labels and not the store. (If the labels are so many that one pass over the store is quicker
    than their searches, that is made instead: ``competitors``.)

    Always starts from the original vectors: those of an earlier push are read from its history.

    Args:
        store: the vector store.
        pairs: labelled pairs, divided by query into train, validation and test parts; or a ready `Split`.
        embed_queries: texts to (m, d) query embeddings, by the model that the application searches with.
        **options: any of the following, by name.

    Keyword Args:
        solver: ``"auto"`` (default) fits the others, keeps what does not harm queries whose answers have no label, and
            chooses by the first metric on the validation pairs (`nudge_rag.AutoSolver`); ``nudge.tried`` lists what it
            chose from. Or one of them: ``"nudge-n"``, ``"nudge-contrastive"`` (better with many labels a node,
            slower), ``"nudge-m"`` (dot-product stores only), or an object with ``fit`` and ``needs``.
        metrics: what is compared on held-out pairs, default nDCG@10, Recall@1 and Recall@10; the first one decides
            whether the nudge improves.
        split: fractions of the queries for training, validation and test; default 0.7, 0.1 and 0.2.
        seed: of the split; default 0.
        versions: folder of the saved originals; default None, the history that the store itself holds.
        competitors: ``"search"`` asks the store for the best unlabelled nodes of each held-out query, and checks on the
            labelled nodes how many its index finds. ``"scan"`` streams every vector once and is exact in any store.
            ``"auto"`` (default) searches, but for thousands of queries whose searches would take longer than a scan.
            ``nudge.reads`` says what was read and how good it was.
        model: name of the embedding model, for the record. A push over one that was made for another model is refused;
            models are known by their embeddings of a few fixed texts, and by their names if they fail on those.
        texts: function of node ids that returns their texts (None for a node without one). Hashes of them go into the
            record of a push: `nudge_rag.status` then finds nodes whose texts were edited since, and labels of ids that
            are no longer in the store go to the nodes that have their texts now.
        documents: function of node ids that returns the ids of their documents (None for a node without one). Labels
            that name documents then go to the chunk of the document that answers best.
        judge: the application's own pipeline (hybrid, fused, reranked): a function from a store to a retriever, of any
            kind that `nudge_rag.evaluate_retrievers` takes. It is called with the store as it was before any nudge, as
            it is live, and with the new vectors laid over it, and its answers to the held-out queries decide whether
            to push; nothing is written. ``nudge.judgement`` has them.
        uncovered_tolerance: of ``"auto"``: how much of the first metric (0.01 is a point) queries whose answers have
            no label, and queries of new nodes, may lose, as estimated by holding out the labels of whole nodes. None
            (default): the expected gain decides, of which a tenth is given up if that spares a group a significant
            loss; ``math.inf``: any loss.
        uncovered_share: of ``"auto"``: the share of tomorrow's queries whose answers have no label; None (default):
            estimated from the labels, and at least a fifth, since they know nothing of documents that are to come.
        reach: whom labels may help. ``"labelled"`` (default): labelled nodes move and queries stay as they are, so any
            retriever over the store gains. ``"queries"``: a linear map of all queries as well, which helps the nodes
            that nobody labelled; then every query must pass ``nudge.adapter`` before it is searched, as the
            integrations' NudgeRetriever and embedding wrappers do. ``"nodes"``: the map moves all nodes instead, so
            that any retriever gains; the push then writes every node of the store. Both need ``solver="auto"``.

    Returns:
        A `Nudge`: print it for the before/after table, then ``push()``.

    Raises:
        TypeError: an option that does not exist, or of the wrong type.
        ValueError: arguments that do not fit, named; a solver that the store's similarity cannot score; no known node
            among the labels; query embeddings of another dimension than the store's.
        nudge_rag.StoreError: the store failed while it was read.

    Warns:
        UserWarning: labels that name unknown nodes, by name and count; a store whose search misses many nodes; what is
            live was made for another embedding model; answers that do not depend on the queries; a store that cannot be
            written to.

    Example:
        >>> import numpy as np, nudge_rag
        >>> from nudge_rag.stores import MappingStore
        >>> store = MappingStore({"exit": [1.0, 0.0, 0.0], "enter": [0.0, 1.0, 0.0], "bill": [0.0, 0.0, 1.0]})
        >>> pairs = nudge_rag.LabeledPairs.from_pairs((f"how do I leave {n}", "exit") for n in range(40))
        >>> nudge = nudge_rag.tune(store, pairs, lambda texts: np.tile([0.6, 0.7, 0.1], (len(texts), 1)))
        >>> nudge.ids, nudge.gamma > 0, nudge.improves
        (('exit',), True, True)
    """
    require_store(store)
    settings = TuneSettings.from_options("tune", options)
    similarity = store.capabilities.similarity
    solver = resolve_solver(
        settings.solver,
        store.name,
        similarity,
        settings.metrics[0],
        settings.uncovered_tolerance,
        settings.reach,
        settings.uncovered_share,
    )
    if not isinstance(pairs, LabeledPairs | Split):
        raise TypeError(f"pairs must be LabeledPairs or a Split of them, got {type(pairs).__name__}")
    spelled, texts_of, documents_of = spell_pairs(pairs, store), settings.texts, settings.documents
    problem = write_problem_of(store)
    if problem is not None:
        warn_caller(f"what is tuned cannot be pushed, only served by an overlay: {problem}")
    pairs = match_labels(store, spelled, embed_queries, settings.versions, texts=texts_of, documents=documents_of)
    nodes = _read_nodes(store, pairs, settings.versions)
    split = _split_known(pairs, nodes, settings, store)
    _require_validation(split, settings)
    texts = list(dict.fromkeys(text for part in split for text in part.queries.values()))
    embedded = embed_texts(texts, embed_queries, nodes.originals.shape[1], similarity)
    held_out = split.test if split.test.n_queries else split.val
    trial = _prepare_trial(store, solver, settings, nodes, split, embedded)
    model = describe_model(embed_queries, settings.model)
    trial = with_live(trial, settings.versions, held_out.queries, lambda: nodes.current, model)
    nudge = run_trial(trial, solver, settings.versions, split)
    hashes = {} if settings.texts is None else hash_texts(settings.texts, nodes.ids)
    moved = set(nudge.ids)
    learned = [text for part in (split.train, split.val) for text in part.queries.values()]
    queries = hash_queries([*learned, *_unanswerable(pairs, nodes)])
    nudge = replace(
        nudge,
        model=model["model"],
        fingerprint=Fingerprint.unpack(model[FINGERPRINT]),
        text_hashes={node_id: hashed for node_id, hashed in hashes.items() if node_id in moved},
        label_hashes={node_id: hashed for node_id, hashed in hashes.items() if node_id not in moved},
        query_hashes=queries,
        texts_of=settings.texts,
    )
    return nudge if settings.judge is None else judge_nudge(nudge, settings.judge)


@dataclass(frozen=True)
class QueryTable:
    """Embeddings and competitors of every held-out query, by its text."""

    queries: FloatArray
    competitors: Competitors
    row_of: dict[str, int]

    def select(self, part: LabeledPairs) -> HeldOut:
        """Return the queries of ``part``, in its order."""
        rows = [self.row_of[text] for text in part.queries.values()]
        ids, scores = self.competitors.ids, self.competitors.scores
        return HeldOut(part.qrels, self.queries[rows], [ids[row] for row in rows], [scores[row] for row in rows])


def _read_nodes(store: EmbeddingStore, pairs: LabeledPairs | Split, versions: Path | None) -> LabelledNodes:
    """Read the labelled nodes and those that an earlier push moved: no others can differ from the store's."""
    refuse_generated(pairs)
    labelled = list(dict.fromkeys(node for part in _parts(pairs) for node in part.node_ids))
    with reading(store, "the labelled nodes were read"):
        if not store.count():
            raise ValueError(f"{store.name} holds no nodes: add them before tuning")
        wanted = list(dict.fromkeys([*labelled, *nudged_ids(store, versions)]))
        present = store.matching(wanted, None)
        ids = sorted(present)
        if not present.intersection(labelled):
            warn_caller(f"none of the {len(labelled)} labelled node ids is in {store.name}")
            raise ValueError(describe_strangers(labelled, store))
        current = store.read(ids)
    originals = original_vectors(store, ids, current, versions)
    bad = ~np.isfinite(originals).all(axis=1)
    if bad.any():
        raise ValueError(f"the vector of node {ids[int(bad.argmax())]!r} holds NaN or infinite values")
    return LabelledNodes(ids, current, originals)


def _split_known(
    pairs: LabeledPairs | Split, nodes: LabelledNodes, settings: TuneSettings, store: EmbeddingStore
) -> Split:
    """Leave out pairs of unknown nodes, with a warning, and divide the others unless they are divided already.

    Queries that the live version was made from are learned from again, and never judge what is to follow it.
    """
    known_parts = []
    for part in _parts(pairs):
        known, unknown = part.restrict_to(nodes.ids)
        if unknown:
            warn_caller(f"{unknown}. Ids of {store.name} are such as {example_ids(store)}")
        known_parts.append(known)
    if isinstance(pairs, LabeledPairs):
        live = Journal.open(store, settings.versions).live
        known_hashes = set() if live is None else live_queries(live.manifest["details"])
        texts = known_parts[0].queries
        learned = [texts[query] for query in find_seen(texts, known_hashes)]
        return known_parts[0].split(*settings.split, seed=settings.seed, learned=learned)
    return Split(*known_parts)


def _require_validation(split: Split, settings: TuneSettings) -> None:
    """Refuse labels too few to choose by; a solver that is given as an object may need none."""
    if isinstance(settings.solver, str) and not split.val.n_queries:
        train, _, test = (part.n_queries for part in split)
        raise ValueError(
            f"{train + test} labelled queries leave none to validate on ({train} for training, {test} for testing):"
            " label more, pass split= with a larger part for validation, or a Split of your own"
        )


def _unanswerable(pairs: LabeledPairs | Split, nodes: LabelledNodes) -> list[str]:
    """Queries to learn from whose nodes are not in the store: a push does not forget them, nobody could learn them."""
    known = set(nodes.ids)
    return [
        part.queries[query]
        for part in _parts(pairs)[:2]
        for query, grades in part.qrels.items()
        if not known & grades.keys()
    ]


def _parts(pairs: LabeledPairs | Split) -> list[LabeledPairs]:
    return [pairs] if isinstance(pairs, LabeledPairs) else list(pairs)


def _prepare_trial(
    store: EmbeddingStore,
    solver: Solver,
    settings: TuneSettings,
    nodes: LabelledNodes,
    split: Split,
    embedded: Mapping[str, FloatArray],
) -> Trial:
    """Ask the store what competes with the labelled nodes, and put together what the solver and its test need."""
    held_out = split.test if split.test.n_queries else split.val
    depth = max(solver.needs.depth, *(metric.k for metric in settings.metrics))
    texts = list(dict.fromkeys(text for part in (split.val, held_out) for text in part.queries.values()))
    queries = np.stack([embedded[text] for text in texts]) if texts else np.zeros((0, nodes.originals.shape[1]))
    journal = Journal.open(store, settings.versions)
    # If all nodes were written, no index knows what they were before: they are streamed.
    untouched = untouched_store(store, journal)
    method: CompetitorMethod = settings.competitors if untouched is store else "scan"
    competitors = find_competitors(untouched, queries, nodes.ids, nodes.current, depth, method)
    table = QueryTable(queries, competitors, {text: row for row, text in enumerate(texts)})
    train = _training_queries(split.train, embedded, nodes.ids)
    train, training_reads, train_ids = _with_competitors(train, solver, untouched, nodes, method)
    reads = competitors.reads if training_reads is None else competitors.reads + training_reads
    held_out_queries = table.select(split.val)
    pool = read_pool(untouched, solver, [train_ids, held_out_queries.competitor_ids])
    learned_from = (split.train, split.val) if solver.needs.learns_from_validation else (split.train,)
    return Trial(
        store=store,
        ids=nodes.ids,
        originals=nodes.originals,
        train=train,
        trained=_answers(learned_from),
        val=held_out_queries,
        held_out=table.select(held_out),
        sizes=(split.train.n_queries, split.val.n_queries, split.test.n_queries),
        metrics=settings.metrics,
        reads=replace(reads, vectors_read=reads.vectors_read + len(nodes.ids) + (0 if pool is None else len(pool))),
        background=pool,
        stored=nodes.current,
        search=lambda mapped: find_competitors(untouched, mapped, nodes.ids, nodes.current, depth, method),
        scan_mapped=lambda asked, node_map: find_competitors(
            mapped_store(store, journal, node_map), asked, nodes.ids, nodes.current, depth, "scan"
        ),
        search_live=None
        if untouched is store
        else lambda asked: find_competitors(store, asked, nodes.ids, nodes.current, depth, settings.competitors),
    )


def _answers(parts: tuple[LabeledPairs, ...]) -> set[str]:
    """Return the ids of all nodes that answer a query."""
    grades_of_queries = (grades for part in parts for grades in part.qrels.values())
    return {node for grades in grades_of_queries for node, grade in grades.items() if grade > 0}


def _with_competitors(
    train: LabeledQueries, solver: Solver, store: EmbeddingStore, nodes: LabelledNodes, method: CompetitorMethod
) -> tuple[LabeledQueries, StoreReads | None, Sequence[Sequence[str]]]:
    """Find the best unlabelled nodes of each training query, if the solver learns from what it is confused with."""
    depth = solver.needs.train_depth
    # Such solvers work with directions, of which Euclidean distances do not tell enough.
    distances = store.capabilities.similarity == "l2" and not solver.needs.competitor_vectors
    if not depth or distances or not len(train.answers):
        return train, None, []
    competitors = find_competitors(store, np.asarray(train.vectors), nodes.ids, nodes.current, depth, method)
    table = np.full((len(train.answers), depth), -np.inf)
    for row, scores in enumerate(competitors.scores):
        table[row, : len(scores)] = scores
    return replace(train, competitors=table), competitors.reads, competitors.ids


def _training_queries(part: LabeledPairs, embedded: Mapping[str, FloatArray], ids: list[str]) -> LabeledQueries:
    row_of = {node_id: row for row, node_id in enumerate(ids)}
    vectors = [embedded[text] for text in part.queries.values()]
    return LabeledQueries(
        np.stack(vectors) if vectors else np.zeros((0, 0), dtype=np.float32),
        [[row_of[node] for node in grades] for grades in part.qrels.values()],
        [list(grades.values()) for grades in part.qrels.values()],
    )
