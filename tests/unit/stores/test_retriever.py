"""`store_retriever`: what is no number of nodes is refused at once, not by the first question."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag import store_retriever
from nudge_rag.stores import MappingStore


@pytest.mark.parametrize("k", [0, -1, 2.5, "3", True, None])
def test_a_number_of_nodes_is_a_positive_integer(k):
    with pytest.raises(ValueError, match="k must be a positive integer"):
        store_retriever(MappingStore({"a": [1.0, 0.0]}), lambda texts: np.eye(2)[: len(texts)], k)
