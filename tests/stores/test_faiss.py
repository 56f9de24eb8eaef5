"""FAISS beyond the contract: ids, indexes that cannot be supported, files, and rebuilt indexes."""

from __future__ import annotations

import json
import shutil

import faiss
import numpy as np
import pytest
from langchain_community.docstore.in_memory import InMemoryDocstore
from langchain_community.vectorstores import FAISS
from langchain_nudge import embedding_store as langchain_store
from llama_index.core.schema import TextNode
from llama_index.retrievers.nudge import embedding_store
from llama_index.vector_stores.faiss import FaissMapVectorStore, FaissVectorStore

from nudge_rag.stores import FaissStore, UnknownIdError
from nudge_rag.stores.access import replace_vectors_if
from tests.support.builders.common import LangChainEmbeddings

ROWS = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)


def filled(index):
    index.train(ROWS)
    index.add(ROWS)
    return index


@pytest.mark.parametrize(
    "index",
    [
        faiss.IndexPQ(8, 2, 4),
        faiss.IndexScalarQuantizer(8, faiss.ScalarQuantizer.QT_8bit),
        faiss.IndexIVFPQ(faiss.IndexFlatL2(8), 8, 2, 2, 4),
        faiss.IndexHNSWSQ(8, faiss.ScalarQuantizer.QT_fp16, 16),
    ],
)
def test_indexes_that_do_not_keep_full_vectors_are_refused(index):
    with pytest.raises(ValueError, match=r"does not keep full vectors.*supported are IndexFlat"):
        FaissStore(index, {})


def test_other_objects_and_metrics_are_refused():
    with pytest.raises(TypeError, match=r"expected a faiss\.Index, got str"):
        FaissStore("index", {})
    with pytest.raises(ValueError, match="neither inner product nor L2"):
        FaissStore(faiss.IndexFlat(8, faiss.METRIC_L1), {})
    with pytest.raises(TypeError, match="pass the VectorStoreIndex"):
        embedding_store(FaissVectorStore(faiss.IndexFlatL2(8)))


def test_nodes_given_twice_are_refused_before_anything_is_written():
    index = filled(faiss.IndexFlatL2(8))
    store = FaissStore(index, {0: "a", 1: "b", 2: "a"})
    with pytest.raises(ValueError, match="node 'a' has several vectors"):
        store.replace(["b"], np.zeros((1, 8)))
    assert (index.reconstruct_n(0, 50) == ROWS).all()


def test_the_map_stores_colliding_ids_are_refused():
    vector_store = FaissMapVectorStore(faiss.IndexIDMap2(faiss.IndexFlatL2(8)))
    index = vector_store.client
    index.add_with_ids(ROWS[:3], np.array([0, 1, 1]))
    vector_store._faiss_id_to_node_id_map.update({0: "a", 1: "b"})
    with pytest.raises(ValueError, match="several vectors under one id"):
        embedding_store(vector_store).read(["a"])


def by_llama_index(inner):
    """A store, and how its application deletes nodes."""
    vector_store = FaissMapVectorStore(faiss.IndexIDMap2(inner))
    vector_store.add([TextNode(id_=f"n{at}", embedding=row.tolist()) for at, row in enumerate(ROWS)])
    return embedding_store(vector_store), vector_store.delete_nodes


def by_langchain(inner):
    vector_store = FAISS(LangChainEmbeddings(), inner, InMemoryDocstore(), {})
    pairs = [(f"text {at}", row.tolist()) for at, row in enumerate(ROWS)]
    vector_store.add_embeddings(pairs, ids=[f"n{at}" for at in range(50)])
    return langchain_store(vector_store), vector_store.delete


# FAISS renumbers nothing in an IVF index: it answers with the numbers of before, which those above it have given away.
@pytest.mark.parametrize("framework", [by_llama_index, by_langchain])
def test_an_ivf_index_from_which_vectors_were_removed_is_refused(framework):
    inner = faiss.IndexIVFFlat(faiss.IndexFlatL2(8), 8, 4)
    inner.train(ROWS)
    store, delete = framework(inner)
    assert store.read(["n3"]).tobytes() == ROWS[3].tobytes()
    delete(["n0", "n20"])
    for use in (
        lambda: store.count(),
        lambda: list(store.scan()),
        lambda: store.read(["n3"]),
        lambda: store.matching(["n3"], None),
        lambda: store.search(ROWS[:1], 3),
        lambda: store.replace(["n3"], ROWS[:1]),
        lambda: replace_vectors_if(store, ["n3"], ROWS[3:4], ROWS[:1]),
        lambda: FaissStore(store.index, {}),
    ):
        with pytest.raises(ValueError, match="not numbered by position: some were removed"):
            use()
    inner.nprobe = 4
    distances, numbers = inner.search(ROWS, 1)
    assert sorted(set(numbers[:, 0].tolist())) == [at for at in range(50) if at not in (0, 20)]
    assert not np.delete(distances, [0, 20]).any()


def test_an_ivf_index_with_ids_of_its_own_is_refused():
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(8), 8, 4)
    index.train(ROWS)
    index.add_with_ids(ROWS[:4], np.array([3, 1, 1, 0]))
    with pytest.raises(ValueError, match="put ids of your own in an IndexIDMap"):
        FaissStore(index, {0: "a", 1: "b", 3: "c"})


def test_faiss_ids_without_a_node_are_left_alone_and_never_found():
    index = filled(faiss.IndexFlatL2(8))
    store = FaissStore(index, {at: f"n{at}" for at in range(0, 50, 5)})
    assert store.count() == 10
    found = store.search(ROWS[:4], 10).ids
    assert all(set(line) == {f"n{at}" for at in range(0, 50, 5)} for line in found)
    store.replace(["n5"], np.zeros((1, 8)))
    after = index.reconstruct_n(0, 50)
    assert not after[5].any()
    assert (np.delete(after, 5, axis=0) == np.delete(ROWS, 5, axis=0)).all()


def hnsw():
    index = faiss.IndexHNSWFlat(8, 8)
    index.hnsw.efConstruction, index.hnsw.efSearch = 33, 44
    return filled(index)


def ivf():
    index = filled(faiss.IndexIVFFlat(faiss.IndexFlatL2(8), 8, 4))
    index.nprobe = 2
    index.make_direct_map(True)
    return index


def test_a_rebuilt_index_keeps_its_parameters_training_and_direct_map():
    index = hnsw()
    FaissStore(index, dict(enumerate("abc"))).replace(["b"], np.ones((1, 8)))
    assert (index.hnsw.efConstruction, index.hnsw.efSearch, index.ntotal) == (33, 44, 50)
    assert index.search(np.ones((1, 8), np.float32), 1)[1].tolist() == [[1]]
    index = ivf()
    centres = index.quantizer.reconstruct_n(0, 4).tobytes()
    FaissStore(index, dict(enumerate("abc"))).replace(["b"], np.ones((1, 8)))
    assert (index.nprobe, index.ntotal, index.quantizer.reconstruct_n(0, 4).tobytes()) == (2, 50, centres)
    assert index.reconstruct(1).tolist() == [1.0] * 8
    assert not FaissStore(index, {}).capabilities.exact_search


@pytest.mark.parametrize("make", [lambda: filled(faiss.IndexFlatL2(8)), hnsw, ivf])
def test_memory_is_put_back_where_the_file_cannot_be_written(make, tmp_path):
    index = make()
    (folder := tmp_path / "folder").mkdir()
    faiss.write_index(index, str(folder / "index.faiss"))
    store = FaissStore(index, dict(enumerate("abc")), persist_path=folder / "index.faiss")
    shutil.rmtree(folder)
    with pytest.raises((RuntimeError, OSError)):
        store.replace(["b"], np.ones((1, 8)))
    assert index.reconstruct_n(0, 50).tobytes() == ROWS.tobytes()


def test_node_ids_from_a_json_file(tmp_path):
    path, ids = tmp_path / "index.faiss", tmp_path / "ids.json"
    faiss.write_index(filled(faiss.IndexFlatL2(8)), str(path))
    with pytest.raises(ValueError, match="give ids="):
        FaissStore.open(path)
    path.with_suffix(".pkl").write_bytes(b"")
    with pytest.raises(ValueError, match=r"in LangChain's .*index\.pkl.* langchain_nudge\.embedding_store"):
        FaissStore.open(path)
    ids.write_text(json.dumps([f"n{at}" for at in range(50)]))
    assert FaissStore.open(path, ids).read(["n7"]).tobytes() == ROWS[7].tobytes()
    ids.write_text(json.dumps({"3": "three"}))
    with pytest.raises(UnknownIdError, match="'n7'"):
        FaissStore.open(path, ids).read(["n7"])
    for broken in ("{", "3", '{"x": "y"}'):
        ids.write_text(broken)
        with pytest.raises(ValueError, match="is not a JSON list or object of node ids"):
            FaissStore.open(path, ids)
    with pytest.raises(ValueError, match="no FAISS index at"):
        FaissStore.open(tmp_path / "gone.faiss")
