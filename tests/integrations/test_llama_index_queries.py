"""Queries of an index are embedded in batches or side by side, and kept for the next night."""

from __future__ import annotations

import numpy as np
import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.bridge.pydantic import Field
from llama_index.core.schema import TextNode
from llama_index.retrievers.nudge.queries import embed_queries_with


class Named(MockEmbedding):
    """Has a name, counts its calls, and puts an instruction before queries if told to."""

    instruction: float = 0.0
    singles: list = Field(default_factory=list)
    batches: list = Field(default_factory=list)

    def _vector(self, text):
        return [float(len(text)), float(text.count("e")), 1.0]

    def _get_text_embeddings(self, texts):
        self.batches.append(len(texts))
        return [self._vector(text) for text in texts]

    def _get_query_embedding(self, query):
        self.singles.append(query)
        first, *others = self._vector(query)
        return [first + self.instruction, *others]


@pytest.mark.parametrize("instruction", [0.0, 0.5])
def test_queries_are_embedded_at_once_and_not_again_the_next_night(tmp_path, monkeypatch, instruction):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    texts = [f"{'question ' * (number % 7 + 1)}{number}" for number in range(100)]
    nights = []
    for _ in range(2):
        model = Named(embed_dim=3, model_name="named", instruction=instruction, singles=[], batches=[])
        index = VectorStoreIndex([TextNode(text="text", id_="n1")], embed_model=model)
        model.batches.clear()
        embedded = embed_queries_with(index)(texts)
        np.testing.assert_allclose(embedded, [[len(t) + instruction, t.count("e"), 1.0] for t in texts])
        nights.append((len(model.singles), sum(model.batches)))
    # The first night: two texts are compared, then all in batches; or one differs, and all are embedded one by one.
    assert nights == [(101, 2) if instruction else (2, 102), (2, 0)]
