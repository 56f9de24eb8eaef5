"""Incremental tuning: the cost of a change depends on the change, not on the history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Unpack, cast

import numpy as np

from nudge_rag.common.archive import CorruptArchiveError, read_folder, write_folder
from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.deprecation import renamed_argument
from nudge_rag.common.similarity import score_matrix
from nudge_rag.feedback.pairs import LabeledPairs, Split
from nudge_rag.journal.fingerprints import FINGERPRINT, Fingerprint, describe_model, differing_models
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.node_map import mapped_store, untouched_store
from nudge_rag.journal.text_hashes import hash_texts
from nudge_rag.solvers.labels import LabeledQueries, QuerySums
from nudge_rag.solvers.registry import resolve_solver
from nudge_rag.stores.access import require_store
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.tuning.competitors import Competitors, StoreReads, find_competitors
from nudge_rag.tuning.gate import hash_queries
from nudge_rag.tuning.identity import check_same_store, describe_store
from nudge_rag.tuning.incremental.held_out import HeldOutQuery, offer_nodes
from nudge_rag.tuning.incremental.kept_lists import KeptLists, train_depth_of
from nudge_rag.tuning.incremental.labels import PARTS, RunningLabels, TrainingQuery
from nudge_rag.tuning.incremental.new_ids import chunks_of, find_new_ids
from nudge_rag.tuning.incremental.parts import assign_parts, check_fractions, check_seed, keep_known_nodes
from nudge_rag.tuning.incremental.problem import (
    answers,
    stack_vectors,
    to_held_out,
    to_training_queries,
    to_training_sums,
)
from nudge_rag.tuning.incremental.recorded_solver import describe_solver, with_recorded_solver
from nudge_rag.tuning.incremental.store_reader import StoreReader
from nudge_rag.tuning.label_matching import match_labels
from nudge_rag.tuning.live import with_live
from nudge_rag.tuning.nudge import Nudge
from nudge_rag.tuning.options import StateOptions, TuneSettings
from nudge_rag.tuning.queries import EmbedQueries, embed_texts
from nudge_rag.tuning.spelling import spell_pairs
from nudge_rag.tuning.trial import Trial, run_trial

__all__ = ["TuningState"]

NODES_PER_BATCH = 1_000


class TuningState:
    """Labels folded in one change at a time; `solve` gives what `tune` gives from scratch with the same parts.

    Kept: the original vectors of the labelled nodes, for each the sum of its unit training queries and their number,
    and for each held-out query its best unlabelled nodes. The sums are exact
    (`nudge_rag.solvers.targets.summable_queries`), so that any sequence of additions and removals leaves
    what the remaining pairs alone would have given. For solvers that learn from the training queries themselves, these
    have their best unlabelled nodes kept as well, from the first `solve` on.

    A query falls into the training, validation or test part by a hash of its text, and stays there whatever else is
    added; a `Split` says it outright. What the version that is live learned from does not fall into the test part.

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
        require_store(store)
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
        self._settings = settings
        self.metrics = settings.metrics
        self.split = settings.split
        self.seed = settings.seed
        self.versions = settings.versions
        self.competitors = settings.competitors
        self.texts = settings.texts
        self.documents = settings.documents
        self._labels = RunningLabels()
        self._reader = StoreReader(store, self.versions, self.competitors, StoreReads.none(self.competitors))
        needs = self.solver.needs
        depth = max(needs.depth, needs.train_depth, *(metric.k for metric in self.metrics))
        self._lists = KeptLists(self._reader, depth, train_depth_of(needs, store.capabilities.similarity))

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
        found = self._find_nodes(spell_pairs(pairs, self.store))
        incoming = assign_parts(found, self._labels, self.split, self.seed, self._reader.learned())
        named = [node for _, graded in incoming.values() for node in graded]
        fresh = self._reader.read_new(named, self._labels.nodes)
        hashes = {} if self.texts is None else hash_texts(self.texts, list(fresh))
        known = self._labels.nodes.keys() | fresh.keys()
        given, incoming = incoming, keep_known_nodes(incoming, known)
        vectors = self._embed([text for text in incoming if self._labels.part_of(text) is None], fresh)
        held_out = {text: vector for text, vector in vectors.items() if incoming[text][0] != "train"}
        lists = self._reader.find_lists(list(held_out.values()), self._labels.nodes | fresh, self._lists.length)
        # From here on nothing can fail: the change is made as a whole.
        self._labels.nodes.update(fresh)
        self._labels.hashes.update(hashes)
        self._lists.drop(self._labels, fresh.keys())
        for (text, vector), (ids, scores) in zip(held_out.items(), lists, strict=True):
            watched = self._labels.watched[incoming[text][0]][text] = HeldOutQuery(vector)
            watched.fill(ids, scores, self._lists.length)
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
            vectors = self._reader.read_originals(batch)
            self._lists.drop(self._labels, set(batch))
            queries = list(self._lists.queries(self._labels))
            known = [node_id in self._labels.nodes for node_id in batch]
            self._labels.nodes.update({batch[row]: vectors[row] for row in np.flatnonzero(known)})
            if self.texts is not None:
                self._labels.hashes.update(hash_texts(self.texts, [batch[row] for row in np.flatnonzero(known)]))
            new = np.flatnonzero(np.logical_not(known))
            if len(new) and queries:
                scores = score_matrix(stack_vectors(queries), vectors[new], self.store.capabilities.similarity)
                offer_nodes(queries, [batch[row] for row in new], scores, self._lists.length)

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
        self._lists.drop(self._labels, gone)

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
            vectors = self._reader.read_originals(list(names.values()))
            self._labels.rename(names)
            self._labels.nodes.update(zip(names.values(), vectors, strict=True))
            self._lists.of_training.clear()
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
        held_out: Literal["val", "test"] = "test" if self._labels.watched["test"] else "val"
        counts = self._labels.counts
        if not counts or not self._labels.watched[held_out]:
            raise ValueError(f"{len(counts)} nodes have training queries, held-out queries: 0; add more pairs")
        self._lists.refill(self._labels)
        ids = sorted(self._labels.nodes)
        model = describe_model(self.embed_queries)
        trial = with_live(
            self._make_trial(ids, held_out),
            self.versions,
            {text: text for text in self._labels.watched[held_out]},
            lambda: self._reader.read_live(ids, self._labels.nodes),
            model,
        )
        nudge = run_trial(trial, self.solver, self.versions)
        return self._with_origin(nudge, Fingerprint.unpack(model[FINGERPRINT]))

    def _make_trial(self, ids: list[str], held_out: Literal["val", "test"]) -> Trial:
        row_of = {node_id: row for row, node_id in enumerate(ids)}
        learned = ("train", "val") if self.solver.needs.learns_from_validation else ("train",)
        originals = np.stack([self._labels.nodes[node_id] for node_id in ids])
        lists = [query.ids for query in (*self._lists.of_training.values(), *self._labels.watched["val"].values())]
        pool = self._reader.read_pool(self.solver, lists)
        journal = Journal.open(self.store, self.versions)
        return Trial(
            store=self.store,
            ids=ids,
            originals=originals,
            train=self._training_labels(row_of),
            trained=answers([query for part in learned for query in self._labels.of(part).values()]),
            val=to_held_out(self._labels.watched["val"]),
            held_out=to_held_out(self._labels.watched[held_out]),
            sizes=(len(self._labels.train), len(self._labels.watched["val"]), len(self._labels.watched["test"])),
            metrics=self.metrics,
            reads=self._reader.reads,
            background=pool,
            search=lambda mapped: self._reader.find_unlabelled(mapped, self._labels.nodes, self._lists.depth),
            scan_mapped=lambda asked, node_map: find_competitors(
                mapped_store(self.store, journal, node_map), asked, ids, originals, self._lists.depth, "scan"
            ),
            search_live=None if untouched_store(self.store, journal) is self.store else self._search_live,
        )

    def _with_origin(self, nudge: Nudge, fingerprint: Fingerprint | None) -> Nudge:
        """Return the nudge with what tells later on which labels, texts and model it was made from."""
        made_from = [*self._labels.train, *self._labels.watched["val"]]
        moved = set(nudge.ids)
        hashes = {node_id: hashed for node_id, hashed in self._labels.hashes.items() if node_id in self._labels.nodes}
        return replace(
            nudge,
            query_hashes=tuple(sorted({*hash_queries(made_from), *self._labels.unanswerable})),
            fingerprint=fingerprint,
            text_hashes={node_id: hashed for node_id, hashed in hashes.items() if node_id in moved},
            label_hashes={node_id: hashed for node_id, hashed in hashes.items() if node_id not in moved},
            texts_of=self.texts,
        )

    def _training_labels(self, row_of: Mapping[str, int]) -> LabeledQueries | QuerySums:
        if not self.solver.needs.training_queries:
            return to_training_sums(self._labels, row_of)
        return to_training_queries(self._labels.train, self._lists.of_training, self._lists.train_depth, row_of)

    def save(self, folder: str | Path) -> None:
        """Write the state to ``folder`` (JSON and npz, no pickle)."""
        manifest, arrays = self._labels.pack()
        settings: dict[str, Any] = {"split": list(self.split), "seed": self.seed, "length": self._lists.length}
        settings |= describe_solver(self._settings, self.solver)
        settings |= describe_store(self.store, self.versions) | describe_model(self.embed_queries)
        write_folder(Path(folder), manifest | settings, arrays)

    @classmethod
    def load(
        cls, folder: str | Path, store: EmbeddingStore, embed_queries: EmbedQueries, **options: Unpack[StateOptions]
    ) -> TuningState:
        """Read a state that `save` wrote; split and seed are those it was made with, other options as for a new one.

        So is the solver, with its reach and the rest of its options, unless ``solver`` names another; NUDGE-N if an
        earlier release saved it.

        Raises:
            FileNotFoundError: there is no such folder.
            CorruptArchiveError: the folder does not hold a state, or is damaged.
            ValueError: the state was made for another store, by another embedding model, or with a solver object whose
                settings are not its name's: pass that.
        """
        manifest, arrays = read_folder(Path(folder))
        labels = RunningLabels.unpack(manifest, arrays)
        try:
            recorded: Any = {"split": check_fractions(manifest["split"]), "seed": check_seed(manifest["seed"])}
            if not isinstance(manifest["store"], str):
                raise TypeError("its store is no text")
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptArchiveError(f"{folder} does not hold a tuning state: {error}") from error
        state = cls(store, embed_queries, **with_recorded_solver(folder, manifest, options), **recorded)
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

    def _embed(self, texts: list[str], fresh: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        if not texts:
            return {}
        sample = next(iter((fresh or self._labels.nodes).values()))
        embedded = embed_texts(texts, self.embed_queries, len(sample), self.store.capabilities.similarity)
        return {text: vector.astype(sample.dtype) for text, vector in embedded.items()}

    def _search_live(self, queries: FloatArray) -> Competitors:
        return self._reader.search_live(queries, self._labels.nodes, self._lists.depth)
