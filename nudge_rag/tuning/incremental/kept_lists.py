"""Lists of the best unlabelled nodes of queries, kept longer than needed from one solution to the next."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from nudge_rag.solvers.needs import SolverNeeds
from nudge_rag.stores.base import Similarity
from nudge_rag.tuning.incremental.held_out import HeldOutQuery
from nudge_rag.tuning.incremental.labels import RunningLabels
from nudge_rag.tuning.incremental.store_reader import StoreReader

__all__ = ["KeptLists", "train_depth_of"]

# So many nodes can leave a list before the store is asked again.
SPARE = 10


def train_depth_of(needs: SolverNeeds, similarity: Similarity) -> int:
    """How many unlabelled nodes of each training query a solver learns from; 0 if from none."""
    # Solvers that learn from confusions work with directions, of which Euclidean distances do not tell enough.
    return 0 if similarity == "l2" and not needs.competitor_vectors else needs.train_depth


@dataclass(eq=False)
class KeptLists:
    """The lists of held-out queries, which the labels hold, and of training queries if a solver learns from theirs.

    Attributes:
        reader: asks the store.
        depth: how many nodes of a list are used.
        train_depth: how many of those of a training query; 0 if no training query has one.
        of_training: the training queries with a list, by text.
    """

    reader: StoreReader
    depth: int
    train_depth: int
    of_training: dict[str, HeldOutQuery] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """How long a fresh list is."""
        return self.depth + SPARE

    def queries(self, labels: RunningLabels) -> Iterator[HeldOutQuery]:
        """Every query whose best unlabelled nodes are kept."""
        yield from labels.held_out()
        yield from self.of_training.values()

    def drop(self, labels: RunningLabels, gone: Collection[str]) -> None:
        """Forget nodes that left the store, got a label or have another vector."""
        for query in self.queries(labels):
            query.drop(gone)

    def refill(self, labels: RunningLabels) -> None:
        """Ask the store anew for the lists that became too short, and for those of new training queries."""
        train = labels.train if self.train_depth else {}
        for text in self.of_training.keys() - train.keys():
            del self.of_training[text]
        # In the order of the labels: that of a set is another one in each process, and sums are rounded by it.
        for text in [text for text in train if text not in self.of_training]:
            self.of_training[text] = HeldOutQuery(train[text].vector)
        short = [query for query in self.queries(labels) if query.needs_more(self.depth)]
        lists = self.reader.find_lists([query.vector for query in short], labels.nodes, self.length)
        for query, (ids, scores) in zip(short, lists, strict=True):
            query.fill(ids, scores, self.length)
