"""Labelled pairs in, a nudge out: pull, embed the queries, solve, and measure on held-out pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

from nudge_rag.common.caller import warn_caller
from nudge_rag.common.deprecation import renamed_argument
from nudge_rag.feedback.pairs import LabeledPairs, Split
from nudge_rag.journal.fingerprints import FINGERPRINT, Fingerprint, describe_model
from nudge_rag.journal.text_hashes import TextsOf, hash_texts
from nudge_rag.solvers.registry import resolve_solver
from nudge_rag.stores.access import require_store, write_problem_of
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.tuning.gate import hash_queries
from nudge_rag.tuning.judging import judge_nudge
from nudge_rag.tuning.label_matching import match_labels
from nudge_rag.tuning.labelled_nodes import (
    LabelledNodes,
    find_unanswerable,
    read_nodes,
    require_validation,
    split_known,
)
from nudge_rag.tuning.live import with_live
from nudge_rag.tuning.nudge import Nudge
from nudge_rag.tuning.options import TuneOptions, TuneSettings
from nudge_rag.tuning.prepare_trial import prepare_trial
from nudge_rag.tuning.queries import EmbedQueries, embed_texts
from nudge_rag.tuning.spelling import spell_pairs
from nudge_rag.tuning.trial import run_trial

__all__ = ["tune"]


@renamed_argument("candidates", "competitors")
def tune(
    store: EmbeddingStore,
    pairs: LabeledPairs | Split,
    embed_queries: EmbedQueries,
    **options: Unpack[TuneOptions],
) -> Nudge:
    """Move the labelled nodes of ``store`` towards their queries, in memory; nothing is written before ``push``.

    Reads the vectors of the labelled nodes, and those of at most 10,000 that compete with them. The store's own search
    finds what competes for a place, so time and memory follow the labels and not the store. (If the labels are so many
    that one pass over the store is quicker than their searches, that is made instead: ``competitors``.)

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
            (default): the expected gain decides, of which a part is given up if that spares a group a significant
            loss: 15 % at most, or 30 % if NUDGE-N would gain no more; ``math.inf``: any loss.
        uncovered_share: of ``"auto"``: the share of tomorrow's queries whose answers have no label; None (default):
            estimated from the labels, and at least a fifth, since they know nothing of documents that are to come.
        reach: whom labels may help. ``"labelled"`` (default): labelled nodes move and queries stay as they are, so any
            retriever over the store gains. ``"queries"``: a linear map of all queries as well, which helps the nodes
            that nobody labelled; then every query must pass ``nudge.adapter`` before it is searched, as the
            integrations' NudgeRetriever and embedding wrappers do. ``"nodes"``: the map moves all nodes instead, so
            that any retriever gains; the push then writes every node of the store. Both need ``solver="auto"``. What
            the other reaches would give is printed, estimated roughly (``nudge.other_reaches``).

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
    nodes = read_nodes(store, pairs, settings.versions)
    split = split_known(pairs, nodes, settings, store)
    require_validation(split, settings)
    texts = list(dict.fromkeys(text for part in split for text in part.queries.values()))
    embedded = embed_texts(texts, embed_queries, nodes.originals.shape[1], similarity)
    held_out = split.test if split.test.n_queries else split.val
    trial = prepare_trial(store, solver, settings, nodes, split, embedded)
    model = describe_model(embed_queries, settings.model)
    trial = with_live(trial, settings.versions, held_out.queries, lambda: nodes.current, model)
    nudge = run_trial(trial, solver, settings.versions, split)
    learned = [text for part in (split.train, split.val) for text in part.queries.values()]
    nudge = _with_origin(nudge, nodes, settings.texts, [*learned, *find_unanswerable(pairs, nodes)], model)
    return nudge if settings.judge is None else judge_nudge(nudge, settings.judge)


def _with_origin(
    nudge: Nudge, nodes: LabelledNodes, texts_of: TextsOf | None, queries: Sequence[str], model: Mapping[str, Any]
) -> Nudge:
    """Return the nudge with what tells later on which queries, texts and model it was made from."""
    hashes = {} if texts_of is None else hash_texts(texts_of, nodes.ids)
    moved = set(nudge.ids)
    return replace(
        nudge,
        model=model["model"],
        fingerprint=Fingerprint.unpack(model[FINGERPRINT]),
        text_hashes={node_id: hashed for node_id, hashed in hashes.items() if node_id in moved},
        label_hashes={node_id: hashed for node_id, hashed in hashes.items() if node_id not in moved},
        query_hashes=hash_queries(queries),
        texts_of=texts_of,
    )
