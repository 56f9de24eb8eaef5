"""LlamaIndex on Qdrant, whose ids are numbers, or UUIDs in any spelling that come back in one."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex

pytest.importorskip("llama_index.vector_stores.qdrant")
from llama_index.retrievers.nudge import NudgeRetriever, TuningState, evaluate, status, tune
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient, models

import nudge_rag
from tests.integrations.test_llama_index import make_index

SPELLINGS = {
    "hexadecimal": lambda node: uuid.UUID(node).hex,
    "capitals": str.upper,
    "urn": lambda node: f"urn:uuid:{node}",
    "braces": lambda node: "{" + node + "}",
}


def respelled(world, spell):
    pairs = [(text, spell(node)) for query, text in world.pairs.queries.items() for node in world.pairs.qrels[query]]
    return nudge_rag.LabeledPairs.from_pairs(pairs)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_labels_in_any_spelling_tune_as_those_in_the_stores_own(spelling, world, tmp_path):
    index = make_index("qdrant-Cosine", world, tmp_path)
    expected = tune(index, respelled(world, str), solver="nudge-n")
    nudge = tune(index, respelled(world, SPELLINGS[spelling]), solver="nudge-n")
    assert nudge.ids == expected.ids
    np.testing.assert_allclose(nudge.vectors, expected.vectors, atol=1e-6)
    assert str(nudge.comparison) == str(expected.comparison)
    state = TuningState(index)
    state.add_pairs(respelled(world, SPELLINGS[spelling]))
    assert set(state.solve().ids) <= {node for node, _, _ in world.rows}
    served = NudgeRetriever(index, 5, overlay=nudge).retrieve(world.queries[0])
    assert [one.node_id for one in served] == [
        one.node_id for one in NudgeRetriever(index, 5, overlay=expected).retrieve(world.queries[0])
    ]


def test_two_spellings_of_a_node_are_one_label(world, tmp_path):
    index = make_index("qdrant-Cosine", world, tmp_path)
    both = []
    for query, text in world.pairs.queries.items():
        for node in world.pairs.qrels[query]:
            both += [(text, node), (text, node.upper())]
    nudge = tune(index, nudge_rag.LabeledPairs.from_pairs(both), solver="nudge-n")
    assert nudge.ids == tune(index, respelled(world, str), solver="nudge-n").ids


def test_points_with_numbers_for_ids(world, tmp_path):
    client = QdrantClient(":memory:")
    client.create_collection("numbered", vectors_config=models.VectorParams(size=16, distance=models.Distance.COSINE))
    points = [
        models.PointStruct(id=number, vector=world.vector(text), payload={"text": text, **metadata})
        for number, (_, text, metadata) in enumerate(world.rows)
    ]
    client.upsert("numbered", points)
    store = QdrantVectorStore("numbered", client=client)
    index = VectorStoreIndex.from_vector_store(store, embed_model=world.llama_index)
    pairs = nudge_rag.LabeledPairs.from_pairs(
        (f"question {turn} about {number}", f"{number:03}") for number in range(40) for turn in range(10)
    )
    nudge = tune(index, pairs, solver="nudge-n")
    assert nudge.improves
    assert set(nudge.ids) <= {str(number) for number in range(40)}
    own = index.as_retriever(similarity_top_k=5)
    served = [NudgeRetriever(index, 5, overlay=nudge).retrieve(query) for query in world.queries]
    assert nudge.push().pushed
    for query, found in zip(world.queries, served, strict=True):
        pushed = own.retrieve(query)
        assert [one.node.get_content() for one in found] == [one.node.get_content() for one in pushed]
        np.testing.assert_allclose([one.score for one in found], [one.score for one in pushed], atol=1e-5)
    assert nudge.rollback().exact


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_evaluation_finds_nodes_that_labels_spell_otherwise(spelling, world, tmp_path):
    index = make_index("qdrant-Cosine", world, tmp_path)
    expected = evaluate(index, respelled(world, str), ["nDCG@10"]).mean("index", "nDCG@10")
    assert expected > 0.5
    assert evaluate(index, respelled(world, SPELLINGS[spelling]), ["nDCG@10"]).mean("index", "nDCG@10") == expected


def test_rows_of_milvus_with_numbers_for_ids(world, tmp_path):
    milvus = pytest.importorskip("llama_index.vector_stores.milvus")
    from pymilvus import DataType, MilvusClient

    path = str(tmp_path / "milvus.db")
    client = MilvusClient(path)
    schema = client.create_schema(enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=16)
    indexes = client.prepare_index_params()
    indexes.add_index("embedding", index_type="FLAT", metric_type="IP")
    client.create_collection("numbered", schema=schema, index_params=indexes)
    rows = [
        {"id": number, "embedding": world.vector(text), "text": text, "doc_id": "", **metadata}
        for number, (_, text, metadata) in enumerate(world.rows)
    ]
    client.insert("numbered", rows)
    client.close()
    store = milvus.MilvusVectorStore(
        path, collection_name="numbered", dim=16, text_key="text", use_async_client=False, output_fields=["number"]
    )
    index = VectorStoreIndex.from_vector_store(store, embed_model=world.llama_index)
    pairs = nudge_rag.LabeledPairs.from_pairs(
        (f"question {turn} about {number}", f"{number:03}") for number in range(40) for turn in range(8)
    )
    nudge = tune(index, pairs, solver="nudge-n")
    own = [one.node.get_content() for one in index.as_retriever(similarity_top_k=5).retrieve(world.queries[3])]
    plain = NudgeRetriever(index, 5).retrieve(world.queries[3])
    assert [one.node.get_content() for one in plain] == own
    assert [f"topic {one.node_id}" for one in plain] == own, "where the integration makes up ids"
    served = NudgeRetriever(index, 5, overlay=nudge).retrieve(world.queries[3])
    assert [f"topic {one.node_id}" for one in served] == [one.node.get_content() for one in served]
    assert nudge.push(force=True).pushed
    pushed = NudgeRetriever(index, 5).retrieve(world.queries[3])
    assert [(one.node_id, one.node.metadata) for one in pushed] == [(one.node_id, one.node.metadata) for one in served]
    assert nudge.rollback().exact
    store.client.close()


def test_what_is_no_index_is_told(world, tmp_path):
    index = make_index("qdrant-Cosine", world, tmp_path)
    for asks in (index.as_retriever(), NudgeRetriever(index)):
        with pytest.raises(TypeError, match="Retriever asks an index: pass the VectorStoreIndex itself"):
            status(asks)
    with pytest.raises(TypeError, match=r"got VectorStoreIndex: pass llama_index\.retrievers\.nudge\.embedding_store"):
        nudge_rag.status(index)
