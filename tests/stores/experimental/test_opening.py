"""Opening an experimental store: it warns, and each framework knows its own vector stores by their types."""

from __future__ import annotations

import warnings

import langchain_nudge
import pytest
from llama_index.retrievers import nudge as llama_index_nudge

from nudge_rag.stores import ElasticsearchStore, OpenSearchStore, PineconeStore, WeaviateStore
from nudge_rag.stores.catalog import RECORDS
from tests.support.doubles.registry import every, only

ADAPTERS = {
    "elasticsearch": ElasticsearchStore,
    "opensearch": OpenSearchStore,
    "pinecone": PineconeStore,
    "weaviate": WeaviateStore,
}
TITLES = {record.name: record.title for record in RECORDS}
FRAMEWORKS = {"llama-index": llama_index_nudge, "langchain": langchain_nudge}


def framework_of(name):
    return "llama-index" if "llama-index" in name else "langchain"


@pytest.mark.parametrize("name", every())
def test_opening_a_store_warns_once_and_using_it_does_not(build, name):
    built = build(name, 8)
    with pytest.warns(UserWarning, match="adapter is experimental: .* not against a running") as caught:
        store = built.reopen()
    # Clients of earlier tests may be collected here, unclosed.
    [warning] = [one for one in caught if not issubclass(one.category, ResourceWarning)]
    assert str(warning.message).startswith(f"the {TITLES[store.name]} adapter")
    assert warning.filename.endswith(f"builders/{store.name}.py")  # where `reopen` opens it
    assert store.capabilities.experimental
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        node = next(iter(built.vectors))
        store.replace([node], store.read([node]))
        store.search(store.read([node]), 3)
        assert len(next(store.scan())[0]) == 8


@pytest.mark.parametrize(
    "name", only(["elasticsearch-llama-index-l2", "opensearch-langchain-dot", "weaviate-llama-index-cosine"])
)
def test_so_does_opening_it_through_a_framework(build, name):
    framework = build(name, 8).framework
    with pytest.warns(UserWarning) as caught:
        FRAMEWORKS[framework_of(name)].embedding_store(framework)
    assert ["adapter is experimental" in str(warning.message) for warning in caught] == [True]


@pytest.mark.parametrize("name", every())
def test_vector_stores_are_known_by_their_types_in_their_own_framework(build, name):
    built = build(name, 2)
    store = built.store
    assert type(store) is ADAPTERS[store.name]
    for module in FRAMEWORKS.values():
        assert module.embedding_store(store) is store
    (other,) = set(FRAMEWORKS) - {framework_of(name)}
    with pytest.raises(TypeError, match=r"is not supported; supported are .*ElasticsearchStore"):
        FRAMEWORKS[other].embedding_store(built.framework)


@pytest.mark.parametrize(
    "name", only(["elasticsearch-llama-index-l2", "opensearch-langchain-dot", "pinecone-langchain-l2"])
)
def test_subclasses_are_known_as_well(build, name):
    framework = build(name, 2).framework
    framework.__class__ = type("Mine", (type(framework),), {})
    with pytest.warns(UserWarning, match="adapter is experimental"):
        store = FRAMEWORKS[framework_of(name)].embedding_store(framework)
    assert type(store) is ADAPTERS[store.name]
