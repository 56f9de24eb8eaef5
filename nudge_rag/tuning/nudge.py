"""A nudge: moved vectors for the labelled nodes of one store, and what they gain on held-out pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nudge_rag.common.archive import read_folder, write_folder
from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.caller import warn_caller
from nudge_rag.common.deprecation import warn_renamed
from nudge_rag.evaluation.comparison import Comparison
from nudge_rag.evaluation.report.render import write_report
from nudge_rag.evaluation.retriever_comparison import RetrieverComparison
from nudge_rag.feedback.pairs import LabeledPairs, Split
from nudge_rag.journal.fingerprints import FINGERPRINT, Fingerprint
from nudge_rag.journal.manifest import IN_PLACE
from nudge_rag.journal.node_map import NODE_MAP
from nudge_rag.journal.push import PushReceipt, check_mode, push_vectors
from nudge_rag.journal.rollback import RollbackReceipt, rollback
from nudge_rag.journal.switch import SwitchReceipt, switch
from nudge_rag.journal.text_hashes import TextsOf
from nudge_rag.solvers import Candidate, QueryAdapter, ValidationCurve
from nudge_rag.stores.access import require_store, write_problem_of
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.tuning.adapters import ADAPTER, pack_adapter
from nudge_rag.tuning.competitors import StoreReads
from nudge_rag.tuning.gate import LABEL_HASHES, LIVE_QUERIES, LiveComparison
from nudge_rag.tuning.held_out import HELD_OUT, HeldOutQueries, known_texts, name_queries
from nudge_rag.tuning.identity import check_same_store, describe_store
from nudge_rag.tuning.judge import Judgement
from nudge_rag.tuning.judged_archive import JUDGED, pack_evaluation
from nudge_rag.tuning.nudge_archive import KIND, parse_nudge
from nudge_rag.tuning.overlays import lay_over
from nudge_rag.tuning.printing import (
    describe_candidates,
    describe_coarse_index,
    describe_decision,
    describe_reaches,
    wrap,
)
from nudge_rag.tuning.refusal import describe_losses, describe_no_step
from nudge_rag.tuning.report import as_html, nudge_document
from nudge_rag.tuning.reported import ReportContents, ReportedCoverage

if TYPE_CHECKING:
    from nudge_rag.stores.overlay import OverlayStore

__all__ = ["Nudge"]


@dataclass(frozen=True)
class Nudge:
    """Moved embeddings for the covered nodes of ``store``; nothing is written before `push`.

    Attributes:
        ids: covered node ids.
        vectors: (len(ids), d) their moved embeddings, in the store's dtype.
        originals: (len(ids), d) their embeddings before any nudge.
        gamma: the step size; 0 if nothing was to be gained.
        curve: validation score along the step size.
        improves: whether held-out pairs improve; `push` does nothing otherwise, unless forced.
        summary: one line: what was tuned, on how many queries, and whether it helps.
        solver: the solver's name.
        comparison: before and after on held-out pairs; None if it was loaded from a folder without one.
        split: the pairs it was trained, validated and tested on; None for a nudge loaded from disk, and for one that a
            `nudge_rag.TuningState` solved: its ``pairs()`` has them.
        reads: what was read of the store, and how good its search is; None for a nudge loaded from disk.
        settings: the solver's name and parameters, for the record.
        text_hashes: node id to a hash of its text when it was tuned, if texts were given: `nudge_rag.status` finds
            the nodes whose texts changed since.
        tried: of ``solver="auto"``, every setting that it chose from, with its value on the validation queries and its
            estimated effect on queries whose answers have no label.
        model: name of the embedding model, if it is known; a push over one for another model is refused.
        adapter: the map that every query has to pass before it is searched; None if queries stay as they are.
        against_live: held-out queries with the new vectors and with those that are live; None if nothing is.
        query_hashes: hashes of the queries that it was trained and validated on.
        held_out: rankings of the held-out queries, which a report shows; of a nudge loaded from disk, queries are
            called by hashes of their texts, unless these were saved too.
        texts_of: node ids to their texts, as `nudge_rag.tune` took them, for a report.
        exact_comparison: before and after by exact scores, if the store's own index, whose answers ``comparison``
            shows, is so coarse that it misses some of them.
        label_hashes: as ``text_hashes``, of the other nodes that have a label: labels of ids that are no longer in the
            store are given to the nodes that have their texts then.
        fingerprint: of the embedding model, whatever its name; None if the model has none.
        judgement: what the application's own pipeline answers to the held-out queries (``tune(judge=)``); it decides
            then whether the nudge improves. None without one.
        node_map: the map that a push applies to all nodes of the store; ``vectors`` are nudges on top. None for none.
        other_reaches: of ``solver="auto"``, rough estimates of what the reaches would give that were not asked for.
    """

    store: EmbeddingStore = field(repr=False)
    ids: tuple[str, ...] = field(repr=False)
    vectors: FloatArray = field(repr=False)
    originals: FloatArray = field(repr=False)
    gamma: float
    curve: ValidationCurve = field(repr=False)
    improves: bool
    summary: str
    solver: str
    versions: Path | None = None
    comparison: Comparison | None = field(default=None, repr=False)
    split: Split | None = field(default=None, repr=False)
    reads: StoreReads | None = field(default=None, repr=False)
    model: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    text_hashes: Mapping[str, str] = field(default_factory=dict, repr=False)
    tried: tuple[Candidate, ...] = field(default=(), repr=False)
    adapter: QueryAdapter | None = None
    against_live: LiveComparison | None = field(default=None, repr=False)
    query_hashes: tuple[str, ...] = field(default=(), repr=False)
    held_out: HeldOutQueries | None = field(default=None, repr=False)
    texts_of: TextsOf | None = field(default=None, repr=False)
    exact_comparison: Comparison | None = field(default=None, repr=False)
    label_hashes: Mapping[str, str] = field(default_factory=dict, repr=False)
    fingerprint: Fingerprint | None = field(default=None, repr=False)
    judgement: Judgement | None = None
    node_map: QueryAdapter | None = None
    other_reaches: tuple[Candidate, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        decision = describe_decision(
            self.improves, self._changes_something, self.comparison, self.against_live, self.judgement
        )
        judged = None if self.judgement is None else self.judgement.evaluation
        live = None if self.against_live is None else wrap(str(self.against_live))
        coarse = describe_coarse_index(self.store.name, self.comparison, self.exact_comparison)
        parts: list[object] = [decision, judged, self.comparison, coarse, live, wrap(self.summary)]
        if self.tried:
            parts += [describe_reaches([*self.tried, *self.other_reaches]), describe_candidates(self.tried)]
        return "\n\n".join(str(part) for part in parts if part is not None)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the function that gives texts, which is often one of a framework and cannot be pickled."""
        return {**self.__dict__, "texts_of": None}

    def _repr_html_(self) -> str:
        return as_html(str(self))

    def to_dict(self) -> dict[str, Any]:
        """Return the nudge as plain values, fit for JSON, without its vectors."""
        return {
            "improves": self.improves,
            "gamma": self.gamma,
            "nodes": len(self.ids),
            "summary": self.summary,
            "store": self.store.name,
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "exact_comparison": None if self.exact_comparison is None else self.exact_comparison.to_dict(),
            "against_live": None if self.against_live is None else asdict(self.against_live),
            "judgement": None if self.judgement is None else self.judgement.to_dict(),
            "curve": {
                "metric": str(self.curve.metric),
                "gammas": self.curve.gammas.tolist(),
                "values": self.curve.values.tolist(),
            },
            "solver": self.solver,
            "settings": dict(self.settings),
            "tried": [asdict(setting) for setting in self.tried],
            "other_reaches": [asdict(reach) for reach in self.other_reaches],
            "model": self.model,
            "held_out": None if self.held_out is None else self.held_out.to_dict(),
        }

    def report(
        self,
        path: str | Path,
        *,
        title: str = "Nudge",
        evaluation: RetrieverComparison | None = None,
        texts: Mapping[str, str] | None = None,
        coverage: ReportedCoverage | None = None,
        pairs: LabeledPairs | None = None,
    ) -> Path:
        """Write a report to one HTML file, and `to_dict` as JSON beside it.

        Args:
            path: an .html file; the JSON is called the same with ``.json``.
            title: of the page.
            evaluation: of `nudge_rag.evaluate_retrievers`, such as of the untuned and the nudged retriever: its
                numbers, wins and losses, and hubs are shown. Without it, the judge's are (``tune(judge=)``), or else
                those of the held-out queries.
            texts: node id to its text, shown with queries that were won and lost; those of `nudge_rag.tune` by default.
            coverage: of `nudge_rag.tuning.label_coverage.coverage`: the learning curve is shown too.
            pairs: labels, whose texts stand for the queries that a nudge loaded from disk knows by their hashes.

        Returns:
            The path of the page.

        Raises:
            MissingPackageError: matplotlib or Jinja2 is not installed (``pip install 'nudge-rag[report]'``).
            ValueError: ``path`` does not end with .html.
        """
        if evaluation is None and self.judgement is not None:
            evaluation = self.judgement.evaluation
            if evaluation is not None and pairs is not None:
                evaluation = replace(evaluation, pairs=name_queries(evaluation.pairs, pairs))
        held_out = self.held_out
        if held_out is not None and pairs is not None:
            held_out = held_out.with_texts(pairs)
        if texts is None and held_out is not None and (evaluation is None or self.judgement is not None):
            texts = known_texts(held_out, self.texts_of)
        contents = ReportContents(evaluation, texts, self._compared_with_live(), coverage, held_out)
        document = nudge_document(self, contents, title=title, changes=self._changes_something)
        numbers = self.to_dict()
        if evaluation is not None:
            numbers["evaluation"] = evaluation.to_dict(per_query=False)
        return write_report(document, path, numbers)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Deprecated name of ``tried``."""
        warn_renamed("Nudge.candidates", "tried")
        return self.tried

    @property
    def _changes_something(self) -> bool:
        return self.gamma != 0 or self.adapter is not None or self.node_map is not None

    def push(self, *, mode: str = IN_PLACE, force: bool = False) -> PushReceipt:
        """Write the moved vectors to the store, after saving the originals in its history.

        Text and metadata stay as they are. Nothing is written if held-out pairs do not improve or are worse than with
        what is live, or if the live version was made from queries that are not among the new ones, unless ``force``: a
        warning and the receipt say so. Nodes changed or deleted since they were read are left alone, counted and
        listed.

        With ``mode="side-by-side"`` the vectors go to a copy of all nodes, if the store can hold one; nothing that
        readers see changes until `switch`.

        An ``adapter`` is recorded with the version. Every query must pass it from then on: NudgeRetriever finds it with
        the history, any other retriever needs the integration's embedding wrapper.

        With a ``node_map`` every node of the store is written, from its original on, some thousand nodes at a time. In
        place, every original is saved first; side by side, the copy of before holds them, and saves are made when
        `nudge_rag.drop_copies` removes it. Nodes that are added later hold unmapped vectors until `nudge_rag.reapply`,
        or until the switch if it is yet to come.

        Raises:
            ValueError: another mode, or a store that can hold no copy.
            nudge_rag.PushError: the store failed or did not keep what was written, or holds a nudge for another model.
            nudge_rag.LockedError: another push or rollback on the store is under way.
        """
        check_mode(self.store, mode)
        refusal = self.refusal(force=force)
        if refusal is not None:
            return self._not_pushed(refusal)
        details = {"gamma": self.gamma, "summary": self.summary, **self._record()}
        if self.comparison is not None:
            details["comparison"] = self.comparison.to_dict()
        if self.adapter is not None:
            details[ADAPTER] = pack_adapter(self.adapter)
        if self.node_map is not None:
            details[NODE_MAP] = pack_adapter(self.node_map)
        receipt = push_vectors(
            self.store, self.ids, self.originals, self.vectors, versions=self.versions, details=details, mode=mode
        )
        if receipt.pushed and self.adapter is not None:
            warn_caller(
                "from now on queries must pass nudge.adapter before they are searched: NudgeRetriever does so, other"
                " retrievers need the integration's NudgeEmbeddings or NudgeEmbedding in place of the model"
            )
        return receipt

    def refusal(self, *, force: bool = False) -> str | None:
        """Return why `push` would write nothing, in a sentence, or None if it would write.

        Args:
            force: as ``push`` would be called.

        Raises:
            JournalError: the history of the store cannot be read.

        Example:
            >>> import numpy as np, nudge_rag
            >>> store = nudge_rag.stores.MappingStore({"exit": [1.0, 0.0], "bill": [0.0, 1.0]}, key="refusal")
            >>> pairs = nudge_rag.LabeledPairs.from_pairs((f"leave {n}", "exit") for n in range(40))
            >>> nudge = nudge_rag.tune(store, pairs, lambda texts: np.tile([1.0, 0.0], (len(texts), 1)))
            >>> nudge.refusal()
            'gamma is 0: no step helped on the validation queries'
        """
        problem = write_problem_of(self.store)
        if problem is not None:
            return f"{problem}; an overlay serves the nudge"
        if not self._changes_something:
            return describe_no_step(self.tried)
        if force:
            return None
        reason = self._what_is_lost() if self.improves else "held-out pairs do not improve"
        return None if reason is None else f"{reason} (push(force=True) writes all the same)"

    def _compared_with_live(self) -> list[str]:
        """Sentences on what is live, for a report."""
        sentences = [] if self.against_live is None else [str(self.against_live)]
        lost = self._what_is_lost()
        return [*sentences, f"A push would make something worse: {lost}."] if lost else sentences

    def _what_is_lost(self) -> str | None:
        return describe_losses(self.store, self.versions, self.against_live, self.query_hashes)

    def _record(self) -> dict[str, Any]:
        """Return how the nudge came about, as every record of it says."""
        return {
            "solver": self.solver,
            "settings": dict(self.settings),
            "candidates": [asdict(setting) for setting in self.tried],
            "other_reaches": [asdict(reach) for reach in self.other_reaches],
            "model": self.model,
            "text_hashes": dict(self.text_hashes),
            LABEL_HASHES: dict(self.label_hashes),
            LIVE_QUERIES: list(self.query_hashes),
            FINGERPRINT: None if self.fingerprint is None else self.fingerprint.pack(),
        }

    def _not_pushed(self, reason: str) -> PushReceipt:
        warn_caller(f"nothing was pushed: {reason}")
        return PushReceipt(False, 0, None, reason)

    def switch(self, *, accept_gap: bool = False) -> SwitchReceipt:
        """Make what ``push(mode="side-by-side")`` wrote live, in one atomic step; see `nudge_rag.switch`."""
        return switch(self.store, self.versions, accept_gap=accept_gap)

    def rollback(self) -> RollbackReceipt:
        """Give every nudged node of the store its original vector back, bit for bit; see `nudge_rag.rollback`."""
        return rollback(self.store, self.versions)

    def overlay(self) -> OverlayStore:
        """Return the store as it would be after `push`, for reading and searching; nothing is written.

        If the nudge maps all nodes, each search streams them all.
        """
        if self.adapter is not None:
            warn_caller("queries must pass nudge.adapter before they are searched in this overlay")
        return lay_over(self, self.store, self.versions)

    def save(self, folder: str | Path, *, texts: bool = False) -> None:
        """Write the nudge to ``folder`` (JSON and npz, no pickle), for `load` in another process.

        Args:
            folder: made if it is not there; a nudge in it is replaced.
            texts: also save the texts of the held-out queries and of their answers, which a report shows. Without it
                the folder holds hashes of texts alone; it has the rankings of a judge's queries as well.
        """
        manifest = {
            "kind": KIND,
            "ids": list(self.ids),
            "gamma": self.gamma,
            "improves": self.improves,
            "summary": self.summary,
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "metric": self.curve.metric,
            "against_live": None if self.against_live is None else asdict(self.against_live),
            "judgement": None if self.judgement is None else self.judgement.to_dict(),
            **describe_store(self.store, self.versions),
            **self._record(),
        }
        arrays = {"vectors": self.vectors, "originals": self.originals}
        if self.held_out is not None:
            shown = known_texts(self.held_out, self.texts_of) if texts else None
            manifest[HELD_OUT], arrays[HELD_OUT] = self.held_out.pack(shown)
        if self.judgement is not None and self.judgement.evaluation is not None:
            manifest[JUDGED], arrays[JUDGED] = pack_evaluation(self.judgement.evaluation, texts=texts)
        if self.adapter is not None:
            arrays[ADAPTER] = self.adapter.change
        if self.node_map is not None:
            arrays[NODE_MAP] = self.node_map.change
        write_folder(Path(folder), manifest, arrays | {"gammas": self.curve.gammas, "values": self.curve.values})

    @classmethod
    def load(cls, folder: str | Path, store: EmbeddingStore, versions: str | Path | None = None) -> Nudge:
        """Read a nudge that `save` wrote, for the same store at whatever address.

        Raises:
            FileNotFoundError: there is no such folder.
            CorruptArchiveError: the folder is not a nudge, or is damaged.
            ValueError: the nudge was made for another store.
            nudge_rag.StoreError: the store failed while it was compared.
        """
        require_store(store)
        manifest, arrays = read_folder(Path(folder))
        fields = parse_nudge(folder, manifest, arrays)
        what = f"the nudge in {folder}"
        check_same_store(what, manifest, store, versions, (fields["ids"], fields["originals"]))
        return cls(store=store, versions=None if versions is None else Path(versions), **fields)
