"""Incremental tuning: the cost of a change depends on the change, not on the history."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Unpack, cast

import numpy as np

from nudge_rag.common.archive import CorruptArchiveError, read_folder, write_folder
from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.common.caller import warn_caller
from nudge_rag.common.deprecation import renamed_argument
from nudge_rag.common.similarity import score_matrix
from nudge_rag.feedback.pairs import LabeledPairs, Split, UnknownNodes
from nudge_rag.feedback.rows import normalise
from nudge_rag.journal.fingerprints import FINGERPRINT, Fingerprint, describe_model, differing_models
from nudge_rag.journal.journal import Journal, nudged_ids, original_vectors
from nudge_rag.journal.node_map import mapped_store, untouched_store
from nudge_rag.journal.text_hashes import hash_texts
from nudge_rag.solvers.labels import LabeledQueries, QuerySums
from nudge_rag.solvers.registry import resolve_solver
from nudge_rag.stores.access import read_present, reading
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.tuning.competitors import Competitors, StoreReads, find_competitors, read_pool
from nudge_rag.tuning.gate import hash_queries
from nudge_rag.tuning.generated import refuse_generated
from nudge_rag.tuning.identity import check_same_store, describe_store
from nudge_rag.tuning.incremental.held_out import HeldOutQuery, offer_nodes
from nudge_rag.tuning.incremental.labels import PARTS, RunningLabels, TrainingQuery
from nudge_rag.tuning.incremental.new_ids import chunks_of, find_new_ids
from nudge_rag.tuning.label_matching import match_labels
from nudge_rag.tuning.live import with_live
from nudge_rag.tuning.nudge import Nudge
from nudge_rag.tuning.options import StateOptions, TuneSettings
from nudge_rag.tuning.queries import EmbedQueries, embed_texts
from nudge_rag.tuning.spelling import spell_pairs
from nudge_rag.tuning.trial import HeldOut, Trial, run_trial

__all__ = ["TuningState"]

# Lists of unlabelled nodes are kept longer than needed, so that some can leave before the store is asked again.
SPARE = 10
NODES_PER_BATCH = 1_000


class TuningState:
    """Labels folded in one change at a time; `solve` gives what `tune` gives from scratch with the same parts.

    Kept: the original vectors of the labelled nodes, for each the sum of its unit training queries and their number,
    and for each held-out query its best unlabelled nodes. The sums are exact
    (`nudge_rag.solvers.targets.summable_queries`), so that any sequence of additions and removals leaves
    what the remaining pairs alone would have given. For solvers that learn from the training queries themselves, these
    have their best unlabelled nodes kept as well, from the first `solve` on.

    A query falls into the training, validation or test part by a hash of its text, and stays there whatever else is
    added; a `Split` says it outright.

    Args:
        store: the vector store.
        embed_queries: texts to (m, d) query embeddings.
        **options: ``solver`` (default ``"nudge-n"``, which needs the sums alone: quickest), ``metrics``, ``versions``,
            ``competitors``, ``reach``, ``uncovered_tolerance``, ``uncovered_share``, ``texts`` and ``documents`` as in
            `nudge_rag.tune`; ``split``, the fractions of the queries for training, validation and test; ``seed`` of the
            hash.

    Raises:
        TypeError: as `nudge_rag.tune`.
        ValueError: as `nudge_rag.tune`.

    Example:
        >>> import numpy as np, nudge_rag
        >>> from nudge_rag.stores import MappingStore
        >>> store = MappingStore({"exit": [1.0, 0.0, 0.0], "enter": [0.0, 1.0, 0.0], "bill": [0.0, 0.0, 1.0]})
        >>> state = nudge_rag.TuningState(store, lambda texts: np.tile([0.6, 0.7, 0.1], (len(texts), 1)))
        >>> for day in range(2):
        ...     new = [(f"how do I leave, {n} on day {day}", "exit") for n in range(20)]
        ...     state.add_pairs(nudge_rag.LabeledPairs.from_pairs(new))
        >>> nudge = state.solve()
        >>> len(state), nudge.ids, nudge.improves
        (40, ('exit',), True)
    """

    @renamed_argument("candidates", "competitors")
    def __init__(self, store: EmbeddingStore, embed_queries: EmbedQueries, **options: Unpack[StateOptions]) -> None:
        settings = TuneSettings.from_options("TuningState", {"solver": "nudge-n", **options})
        self.store = store
        self.embed_queries = embed_queries
        self.solver = resolve_solver(
            settings.solver,
            store.name,
            store.capabilities.similarity,
            settings.metrics[0],
            settings.uncovered_tolerance,
            settings.reach,
            settings.uncovered_share,
        )
        LabeledPairs.from_pairs([("query", "node")]).split(*settings.split)  # checks the fractions
        self.metrics = settings.metrics
        self.split = settings.split
        self.seed = settings.seed
        self.versions = settings.versions
        self.competitors = settings.competitors
        self.texts = settings.texts
        self.documents = settings.documents
        self._depth = max(
            self.solver.needs.depth, self.solver.needs.train_depth, *(metric.k for metric in self.metrics)
        )
        self._labels = RunningLabels()
        # Of solvers that learn from what training queries are confused with: their best unlabelled nodes.
        self._training_lists: dict[str, HeldOutQuery] = {}
        self._reads = StoreReads(self.competitors, True, 0, 0)

    def __len__(self) -> int:
        """Number of labelled pairs."""
        return sum(len(query.grades) for part in PARTS for query in self._labels.of(part).values())

    def pairs(self) -> Split:
        """Return the pairs folded in so far; query ids are the texts."""
        grades = [{text: query.grades for text, query in self._labels.of(part).items()} for part in PARTS]
        return Split(*(LabeledPairs({text: text for text in part}, part) for part in grades))

    def add_pairs(self, pairs: LabeledPairs | Split, *, grades: Literal["add", "replace"] = "add") -> None:
        """Fold in pairs; only new texts are embedded. Synthetic queries train.

        Args:
            pairs: new ones, or ones that are there already.
            grades: of a pair that is there already: ``"add"`` the new grade to it, as one more vote, or ``"replace"``
                it, for pairs that hold all votes so far.

        Raises:
            ValueError: a text of a `Split` that is already in another part; a generated question in its val or test
                part; embeddings of another dimension; another value of ``grades``.
            nudge_rag.stores.StoreError: the store failed; no pair was folded in.

        Warns:
            UserWarning: labels that name unknown nodes.
        """
        if grades not in ("add", "replace"):
            raise ValueError(f'grades must be "add" or "replace", got {grades!r}')
        incoming = self._by_text(self._find_nodes(spell_pairs(pairs, self.store)))
        fresh = self._read_new([node for _, graded in incoming.values() for node in graded])
        hashes = {} if self.texts is None else hash_texts(self.texts, list(fresh))
        known = self._labels.nodes.keys() | fresh.keys()
        given, incoming = incoming, _of_known_nodes(incoming, known)
        vectors = self._embed([text for text in incoming if self._labels.part_of(text) is None], fresh)
        held_out = {text: vector for text, vector in vectors.items() if incoming[text][0] != "train"}
        lists = self._lists(list(held_out.values()), self._labels.nodes | fresh)
        # From here on nothing can fail: the change is made as a whole.
        self._labels.nodes.update(fresh)
        self._labels.hashes.update(hashes)
        for query in self._with_lists():
            query.drop(fresh.keys())
        for (text, vector), (ids, scores) in zip(held_out.items(), lists, strict=True):
            watched = self._labels.watched[incoming[text][0]][text] = HeldOutQuery(vector)
            watched.fill(ids, scores, self._length)
        for text, (part, graded) in incoming.items():
            if part == "train" and text in vectors:
                self._labels.train[text] = TrainingQuery(vectors[text])
            self._labels.add(part, text, graded, replace=grades == "replace")
        self._labels.give_up(given.keys() - incoming.keys())

    def remove_pairs(self, pairs: LabeledPairs) -> None:
        """Take pairs out again; those that are not there are ignored. A query without pairs goes too."""
        known = cast(LabeledPairs, self._find_nodes(spell_pairs(pairs, self.store), to_chunks=False))
        for query, text in known.queries.items():
            part, named = self._labels.part_of(text), list(known.qrels[query])
            if part is not None:
                chunks = chunks_of(self.documents, named, self._labels.of(part)[text].grades)
                self._labels.remove(text, [*named, *chunks])

    def add_nodes(self, ids: Iterable[str]) -> None:
        """Take notice of nodes that were added to the store, or whose vectors were changed there.

        Raises:
            nudge_rag.stores.UnknownIdError: ids that are not in the store.
        """
        names = list(dict.fromkeys(ids))
        for first in range(0, len(names), NODES_PER_BATCH):
            batch = names[first : first + NODES_PER_BATCH]
            vectors = self._read(batch)
            queries = list(self._with_lists())
            for query in queries:
                query.drop(set(batch))
            known = [node_id in self._labels.nodes for node_id in batch]
            self._labels.nodes.update({batch[row]: vectors[row] for row in np.flatnonzero(known)})
            if self.texts is not None:
                self._labels.hashes.update(hash_texts(self.texts, [batch[row] for row in np.flatnonzero(known)]))
            new = np.flatnonzero(np.logical_not(known))
            if len(new) and queries:
                scores = score_matrix(_stack(queries), vectors[new], self.store.capabilities.similarity)
                offer_nodes(queries, [batch[row] for row in new], scores, self._length)

    def remove_nodes(self, ids: Iterable[str]) -> None:
        """Take notice of nodes that were deleted from the store; their pairs go with them."""
        gone = set(ids)
        for part in PARTS:
            for text, query in list(self._labels.of(part).items()):
                self._labels.remove(text, [node_id for node_id in query.grades if node_id in gone])
                if not query.grades:
                    self._labels.give_up([text])
        for node_id in gone & self._labels.nodes.keys():
            del self._labels.nodes[node_id]
            self._labels.hashes.pop(node_id, None)
        for watched in self._with_lists():
            watched.drop(gone)

    def follow_new_ids(self) -> dict[str, str]:
        """Give the labels of nodes that are in the store under new ids, as after an index was built anew, to these.

        They are known by their texts, if ``texts`` are given: by hashes that this state, or a push, has recorded.
        `load` calls this.

        Returns:
            Ids that are no longer in the store, and those that their nodes have now.

        Raises:
            nudge_rag.stores.StoreError: the store failed; the state is as it was.
        """
        names = find_new_ids(self.store, self.versions, self.texts, self._labels)
        if names:
            vectors = self._read(list(names.values()))
            self._labels.rename(names)
            self._labels.nodes.update(zip(names.values(), vectors, strict=True))
            self._training_lists.clear()
        return names

    def _find_nodes(self, pairs: LabeledPairs | Split, *, to_chunks: bool = True) -> LabeledPairs | Split:
        """Give labels of unknown ids to the nodes that they mean, by texts and, unless told otherwise, by documents."""
        documents = self.documents if to_chunks else None
        if (self.texts is None and documents is None) or not isinstance(pairs, LabeledPairs | Split):
            return pairs
        hashes, embed = self._labels.hashes, self.embed_queries
        return match_labels(
            self.store, pairs, embed, self.versions, texts=self.texts, documents=documents, known_hashes=hashes
        )

    def solve(self) -> Nudge:
        """Return a nudge for the pairs as they are now; only lists that became too short are asked for again.

        Raises:
            ValueError: no training or no held-out pair.
            nudge_rag.stores.StoreError: the store failed; the state is as it was.
        """
        held_out = "test" if self._labels.watched["test"] else "val"
        counts = self._labels.counts
        if not counts or not self._labels.watched[held_out]:
            raise ValueError(f"{len(counts)} nodes have training queries, held-out queries: 0; add more pairs")
        self._refill()
        ids = sorted(self._labels.nodes)
        row_of = {node_id: row for row, node_id in enumerate(ids)}
        train = self._training_queries(row_of) if self.solver.needs.training_queries else self._training_sums(row_of)
        learned = ("train", "val") if self.solver.needs.learns_from_validation else ("train",)
        sizes = len(self._labels.train), len(self._labels.watched["val"]), len(self._labels.watched["test"])
        originals = np.stack([self._labels.nodes[node_id] for node_id in ids])
        pool = self._read_pool()
        journal = Journal.open(self.store, self.versions)
        trial = Trial(
            store=self.store,
            ids=ids,
            originals=originals,
            train=train,
            trained=_answers([query for part in learned for query in self._labels.of(part).values()]),
            val=self._judged("val"),
            held_out=self._judged(held_out),
            sizes=sizes,
            metrics=self.metrics,
            reads=self._reads,
            background=pool,
            search=lambda mapped: self._find(mapped, self._labels.nodes, self._depth),
            scan_mapped=lambda asked, node_map: find_competitors(
                mapped_store(self.store, journal, node_map), asked, ids, originals, self._depth, "scan"
            ),
            search_live=None if untouched_store(self.store, journal) is self.store else self._search_live,
        )
        held_out_texts = {text: text for text in self._labels.watched[held_out]}
        model = describe_model(self.embed_queries)
        trial = with_live(trial, self.versions, held_out_texts, lambda: self._read_current(ids), model)
        made_from = [*self._labels.train, *self._labels.watched["val"]]
        hashes = {*hash_queries(made_from), *self._labels.unanswerable}
        nudge = run_trial(trial, self.solver, self.versions)
        moved = set(nudge.ids)
        texts = {node_id: hashed for node_id, hashed in self._labels.hashes.items() if node_id in row_of}
        return replace(
            nudge,
            query_hashes=tuple(sorted(hashes)),
            fingerprint=Fingerprint.unpack(model[FINGERPRINT]),
            text_hashes={node_id: hashed for node_id, hashed in texts.items() if node_id in moved},
            label_hashes={node_id: hashed for node_id, hashed in texts.items() if node_id not in moved},
            texts_of=self.texts,
        )

    def _training_sums(self, row_of: Mapping[str, int]) -> QuerySums:
        trained = sorted(self._labels.counts)
        return QuerySums(
            np.array([row_of[node_id] for node_id in trained], dtype=np.int64),
            np.stack([self._labels.sums[node_id] for node_id in trained]),
            np.array([self._labels.counts[node_id] for node_id in trained], dtype=np.int64),
        )

    def _training_queries(self, row_of: Mapping[str, int]) -> LabeledQueries:
        """The training queries, with the best unlabelled nodes of each if the solver learns from them."""
        train, depth = self._labels.train, self._train_depth
        table = np.full((len(train), max(depth, 1)), -np.inf)
        for row, text in enumerate(train if depth else ()):
            scores = self._training_lists[text].scores[:depth]
            table[row, : len(scores)] = scores
        return LabeledQueries(
            np.stack([query.vector for query in train.values()]),
            [[row_of[node_id] for node_id in query.grades] for query in train.values()],
            [list(query.grades.values()) for query in train.values()],
            table if depth else None,
        )

    @property
    def _train_depth(self) -> int:
        # Solvers that learn from confusions work with directions, of which Euclidean distances do not tell enough.
        needs, distances = self.solver.needs, self.store.capabilities.similarity == "l2"
        return 0 if distances and not needs.competitor_vectors else needs.train_depth

    def _read_pool(self) -> FloatArray | None:
        lists = [query.ids for query in (*self._training_lists.values(), *self._labels.watched["val"].values())]
        pool = read_pool(self._untouched(), self.solver, [lists])
        if pool is not None:
            self._reads = replace(self._reads, vectors_read=self._reads.vectors_read + len(pool))
        return pool

    def _with_lists(self) -> Iterator[HeldOutQuery]:
        """Every query whose best unlabelled nodes are kept."""
        yield from self._labels.held_out()
        yield from self._training_lists.values()

    def save(self, folder: str | Path) -> None:
        """Write the state to ``folder`` (JSON and npz, no pickle)."""
        manifest, arrays = self._labels.pack()
        settings: dict[str, Any] = {"split": list(self.split), "seed": self.seed, "length": self._length}
        settings |= describe_store(self.store, self.versions) | describe_model(self.embed_queries)
        write_folder(Path(folder), manifest | settings, arrays)

    @classmethod
    def load(
        cls, folder: str | Path, store: EmbeddingStore, embed_queries: EmbedQueries, **options: Unpack[StateOptions]
    ) -> TuningState:
        """Read a state that `save` wrote; split and seed are those it was made with, other options as for a new one.

        Raises:
            CorruptArchiveError: the folder does not hold a state, or is damaged.
            ValueError: the state was made for another store, or by another embedding model.
        """
        manifest, arrays = read_folder(Path(folder))
        labels = RunningLabels.unpack(manifest, arrays)
        try:
            recorded: Any = {"split": _fractions(manifest["split"]), "seed": _seed(manifest["seed"])}
            if not isinstance(manifest["store"], str):
                raise TypeError("its store is no text")
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptArchiveError(f"{folder} does not hold a tuning state: {error}") from error
        state = cls(store, embed_queries, **options, **recorded)
        state._labels = labels
        names = find_new_ids(store, state.versions, state.texts, labels)
        nodes = [names.get(node_id, node_id) for node_id in labels.nodes], np.array(list(labels.nodes.values()))
        check_same_store(f"the state in {folder}", manifest, store, options.get("versions"), nodes)
        differing = differing_models(manifest, describe_model(embed_queries))
        if differing is not None:
            raise ValueError(f"the state in {folder} was made for {differing}")
        if names:
            state.follow_new_ids()
        return state

    @property
    def _length(self) -> int:
        return self._depth + SPARE

    def _by_text(self, pairs: LabeledPairs | Split) -> dict[str, tuple[str, dict[str, float]]]:
        """Map each text to its part and grades."""
        if not isinstance(pairs, LabeledPairs | Split):
            raise TypeError(f"pairs must be LabeledPairs or a Split of them, got {type(pairs).__name__}")
        refuse_generated(pairs)
        found: dict[str, tuple[str, dict[str, float]]] = {}
        for wanted, given in [(None, pairs)] if isinstance(pairs, LabeledPairs) else zip(PARTS, pairs, strict=True):
            for query, text in given.queries.items():
                there = self._labels.part_of(text) or found.get(text, (None,))[0]
                generated = "train" if query in given.synthetic else None
                part = there or wanted or generated or _hashed_part(text, self.split, self.seed)
                if wanted not in (None, part):
                    raise ValueError(f"query {text!r} is in the {part} part already, not in {wanted}")
                grades = found.setdefault(text, (part, {}))[1]
                for node_id, grade in given.qrels[query].items():
                    grades[node_id] = grades.get(node_id, 0.0) + grade
        return found

    def _read_new(self, named: Sequence[str]) -> dict[str, FloatArray]:
        """Read the originals of named nodes, and of those nudged by an earlier push, that are not known yet."""
        wanted = list(dict.fromkeys([*named, *nudged_ids(self.store, self.versions)]))
        wanted = [node_id for node_id in wanted if node_id not in self._labels.nodes]
        with reading(self.store, "the labelled nodes were read"):
            present = self.store.matching(wanted, None)
        unknown = {node_id: named.count(node_id) for node_id in wanted if node_id not in present}
        unknown = {node_id: count for node_id, count in unknown.items() if count}
        if unknown:
            warn_caller(str(UnknownNodes(unknown, ())))
        ids = [node_id for node_id in wanted if node_id in present]
        return dict(zip(ids, self._read(ids), strict=True)) if ids else {}

    def _read(self, ids: list[str]) -> FloatArray:
        with reading(self.store, "nodes were read"):
            current = self.store.read(ids)
        bad = ~np.isfinite(current).all(axis=1)
        if bad.any():
            raise ValueError(f"the vector of node {ids[int(bad.argmax())]!r} holds NaN or infinite values")
        self._reads = replace(self._reads, vectors_read=self._reads.vectors_read + len(ids))
        return original_vectors(self.store, ids, current, self.versions)

    def _read_current(self, ids: list[str]) -> FloatArray:
        """Read what the store holds; only nodes that an earlier push moved can differ from the originals."""
        nudged = [node_id for node_id in nudged_ids(self.store, self.versions) if node_id in self._labels.nodes]
        if self._untouched() is not self.store:
            nudged = ids
        with reading(self.store, "nodes were read"):
            moved, _ = read_present(self.store, nudged)
        return np.stack([moved.get(node_id, self._labels.nodes[node_id]) for node_id in ids])

    def _embed(self, texts: list[str], fresh: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        if not texts:
            return {}
        sample = next(iter((fresh or self._labels.nodes).values()))
        embedded = embed_texts(texts, self.embed_queries, len(sample), self.store.capabilities.similarity)
        return {text: vector.astype(sample.dtype) for text, vector in embedded.items()}

    def _lists(
        self, vectors: list[FloatArray], nodes: Mapping[str, FloatArray]
    ) -> list[tuple[list[str], Float64Array]]:
        """Find the best unlabelled nodes of queries; known nodes that hold their originals tell how good that is."""
        if not vectors:
            return []
        competitors = self._find(np.stack(vectors), nodes, self._length)
        self._reads += competitors.reads
        return list(zip(competitors.ids, competitors.scores, strict=True))

    def _find(self, queries: FloatArray, nodes: Mapping[str, FloatArray], depth: int) -> Competitors:
        untouched = self._untouched()
        if untouched is not self.store:
            # All nodes were written, and no index knows what they were before: they are streamed.
            return find_competitors(untouched, queries, list(nodes), queries[:0], depth, "scan")
        nudged = set(nudged_ids(self.store, self.versions))
        known = sorted(nodes, key=lambda node_id: node_id in nudged)
        checked = np.array([nodes[node_id] for node_id in known if node_id not in nudged]).reshape(-1, queries.shape[1])
        return find_competitors(self.store, queries, known, checked, depth, self.competitors)

    def _search_live(self, queries: FloatArray) -> Competitors:
        """Find the best unlabelled nodes of queries with the vectors that are live."""
        ids = list(self._labels.nodes)
        return find_competitors(self.store, queries, ids, self._read_current(ids), self._depth, self.competitors)

    def _untouched(self) -> EmbeddingStore:
        """The store as it was before all of its nodes were written, if they were."""
        return untouched_store(self.store, Journal.open(self.store, self.versions))

    def _refill(self) -> None:
        train = self._labels.train if self._train_depth else {}
        for text in self._training_lists.keys() - train.keys():
            del self._training_lists[text]
        for text in train.keys() - self._training_lists.keys():
            self._training_lists[text] = HeldOutQuery(train[text].vector)
        short = [query for query in self._with_lists() if query.needs_more(self._depth)]
        lists = self._lists([query.vector for query in short], self._labels.nodes)
        for query, (ids, scores) in zip(short, lists, strict=True):
            query.fill(ids, scores, self._length)

    def _judged(self, part: str) -> HeldOut:
        queries = self._labels.watched[part]
        vectors = _stack(list(queries.values())) if queries else np.zeros((0, 0))
        return HeldOut(
            {text: query.grades for text, query in queries.items()},
            vectors,
            [query.ids for query in queries.values()],
            [np.array(query.scores, dtype=np.float64) for query in queries.values()],
        )


def _fractions(given: Any) -> tuple[float, ...]:
    """Check the fractions of a split that were read."""
    if not isinstance(given, list) or len(given) != 3 or not all(isinstance(part, int | float) for part in given):
        raise TypeError(f"its split is {given!r}")
    LabeledPairs.from_pairs([("query", "node")]).split(*given)  # checks that they sum to 1
    return tuple(given)


def _seed(given: Any) -> int:
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(f"its seed is {given!r}")
    return given


def _hashed_part(text: str, split: Sequence[float], seed: int) -> str:
    """Return the part that a text falls into, whatever else there is; near-identical texts fall into one."""
    fraction = int.from_bytes(hashlib.sha256(f"{seed}:{normalise(text)}".encode()).digest()[:8]) / 2**64
    return PARTS[min(2, int(np.searchsorted(np.cumsum(split), fraction, side="right")))]


def _stack(queries: Sequence[HeldOutQuery]) -> FloatArray:
    return np.stack([query.vector for query in queries])


def _answers(queries: Iterable[TrainingQuery | HeldOutQuery]) -> set[str]:
    """Ids of all nodes that answer one of the queries."""
    return {node_id for query in queries for node_id, grade in query.grades.items() if grade > 0}


def _of_known_nodes(
    incoming: Mapping[str, tuple[str, dict[str, float]]], known: set[str]
) -> dict[str, tuple[str, dict[str, float]]]:
    """Keep the pairs of known nodes, and the queries that have any."""
    kept = {
        text: (part, {node_id: grade for node_id, grade in grades.items() if node_id in known})
        for text, (part, grades) in incoming.items()
    }
    return {text: judged for text, judged in kept.items() if judged[1]}
