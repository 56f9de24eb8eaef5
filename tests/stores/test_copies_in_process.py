"""What is particular to versions beside an index in memory: files, ids, threads that write, and memory that is gone."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import faiss
import numpy as np
import pytest
from langchain_community.docstore.in_memory import InMemoryDocstore
from langchain_community.vectorstores import FAISS
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_nudge import embedding_store
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore

from nudge_rag import PushError, drop_copies, reapply, rollback, status, switch, versions
from nudge_rag.common import files
from nudge_rag.journal.journal import original_vectors
from nudge_rag.journal.manifest import SIDE_BY_SIDE
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import FaissStore, InMemoryStore, SimpleStore, StoreError
from tests.support.builders.common import LangChainEmbeddings, documents, plain_id

IDS = [f"n{at}" for at in range(8)]
ROWS = np.random.default_rng(0).normal(size=(8, 4))


def simple():
    vector_store = SimpleVectorStore()
    vector_store.add([TextNode(id_=node, embedding=row) for node, row in zip(IDS, ROWS.tolist(), strict=True)])
    return vector_store


def on_disk(folder):
    path = folder / "vectors.json"
    simple().persist(str(path))
    return SimpleStore.open(path), path


def push(store, root, ids=IDS):
    return push_vectors(store, ids, store.read(ids), -store.read(ids), versions=root, mode=SIDE_BY_SIDE)


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_all_adapters_of_an_object_share_its_versions_and_no_others_do(tmp_path):
    vector_store, other = simple(), simple()
    push(SimpleStore(vector_store), tmp_path)
    assert len(SimpleStore(vector_store).copy_labels()) == 1
    assert SimpleStore(other).copy_labels() == []
    switch(SimpleStore(vector_store), tmp_path)
    assert vector_store.get("n3") == (-ROWS[3]).tolist()
    assert SimpleStore(other).read(IDS).tobytes() == ROWS.tobytes()
    rollback(SimpleStore(vector_store), tmp_path)
    assert vector_store.get("n3") == ROWS[3].tolist()
    assert other.get("n3") == ROWS[3].tolist()


@pytest.mark.parametrize("state", ["committed", "switching", "switched"])
def test_memory_that_is_gone_is_told_and_lets_nothing_hang(tmp_path, state):
    """What the next process finds whose store was in memory: the journal of a version that is no more."""
    store = SimpleStore(simple())
    push(store, tmp_path)
    if state == "switched":
        switch(store, tmp_path)
    versions(store, tmp_path)[0].set_state(state)
    store = SimpleStore(simple())
    with (
        pytest.warns(UserWarning, match="no longer"),
        pytest.raises(PushError, match="nothing waits beside simple-memory"),
    ):
        switch(store, tmp_path)
    assert store.read(IDS).tobytes() == ROWS.tobytes()
    rollback(store, tmp_path)
    assert store.read(IDS).tobytes() == ROWS.tobytes()
    push(store, tmp_path)
    switch(store, tmp_path)
    assert store.read(IDS).tobytes() == (-ROWS).tobytes()


def test_a_version_waits_in_its_file_for_another_process(tmp_path):
    (tmp_path / "data").mkdir()
    store, path = on_disk(tmp_path / "data")
    path.chmod(0o640)
    push(store, tmp_path / "v")
    (label,) = store.copy_labels()
    assert names(path.parent) == ["vectors.json", f"vectors.json.beside_{label}"]
    before = path.read_bytes()
    store = SimpleStore.open(path)
    switch(store, tmp_path / "v")
    assert names(path.parent) == ["vectors.json", f"vectors.json.beside_{label}"]
    assert path.with_name(f"vectors.json.beside_{label}").read_bytes() == before
    assert SimpleStore.open(path).read(IDS).tobytes() == (-ROWS).tobytes()
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob("*json*") if file.is_file()} == {0o640}
    store = SimpleStore.open(path)
    assert rollback(store, tmp_path / "v").exact
    assert path.read_bytes() == before
    drop_copies(store, tmp_path / "v")
    assert names(path.parent) == ["vectors.json"]


def test_what_was_never_written_to_the_file_is_in_it_after_a_switch(tmp_path):
    store, path = on_disk(tmp_path)
    store.vector_store.add([TextNode(id_="new", embedding=[1.0, 2.0, 3.0, 4.0])])
    push(store, tmp_path / "v")
    store.vector_store.data.metadata_dict["new"]["edited"] = "since the push"
    switch(store, tmp_path / "v")
    found = SimpleStore.open(path)
    assert found.read(["new"]).tolist() == [[1, 2, 3, 4]]
    assert found.vector_store.data.metadata_dict["new"] == {"edited": "since the push"} | {
        key: value for key, value in store.vector_store.data.metadata_dict["new"].items() if key != "edited"
    }
    rollback(store, tmp_path / "v")
    assert SimpleStore.open(path).read(["new"]).tolist() == [[1, 2, 3, 4]]
    assert "edited" in SimpleStore.open(path).vector_store.data.metadata_dict["new"]


def test_documents_changed_since_the_copy_keep_their_text(tmp_path):
    vectorstore = InMemoryVectorStore(LangChainEmbeddings())
    vectorstore.add_documents(documents(5))
    store = InMemoryStore(vectorstore)
    push(store, tmp_path, [plain_id(0)])
    vectorstore.store[plain_id(1)] = {**vectorstore.store[plain_id(1)], "text": "edited"}
    switch(store, tmp_path)
    assert vectorstore.get_by_ids([plain_id(1)])[0].page_content == "edited"
    vectorstore.store[plain_id(2)]["text"] = "edited as well"
    rollback(store, tmp_path)
    assert [one.page_content for one in vectorstore.get_by_ids([plain_id(1), plain_id(2)])] == [
        "edited",
        "edited as well",
    ]


def test_nodes_that_another_thread_adds_during_a_switch_are_not_lost(monkeypatch):
    """As if it added one each time when the switch has just read what is live."""
    vector_store = simple()
    store = SimpleStore(vector_store)
    store.create_copy("a").replace(IDS, -ROWS)
    holding, added = store._holding, []

    def holding_and_adding(vectors):
        held = holding(vectors)
        added.append(f"new {len(added)}")
        vector_store.add([TextNode(id_=added[-1], embedding=[1.0, 2.0, 3.0, 4.0])])
        return held

    monkeypatch.setattr(store, "_holding", holding_and_adding)
    for expected in (-ROWS, ROWS):
        store.switch("a")
        assert store.read(IDS).tobytes() == expected.tobytes()
    assert len(added) > 2
    assert store.read(added).tolist() == [[1.0, 2.0, 3.0, 4.0]] * len(added)


CUT_OFF = {
    "before the live file is replaced": ("old", {"beside": "new", "switching": "old"}, "committed"),
    "after the live file is replaced": ("new", {"switching": "old"}, "switched"),
    "after everything": ("new", {"beside": "old"}, "switched"),
    "while a file is written": ("old", {"beside": "new", "switching": "tmp"}, "committed"),
}


@pytest.mark.parametrize("case", CUT_OFF)
def test_files_of_a_switch_that_was_cut_off_are_put_right(tmp_path, case):
    live, files, state = CUT_OFF[case]
    (tmp_path / "data").mkdir()
    store, path = on_disk(tmp_path / "data")
    push(store, tmp_path / "v")
    (version,) = versions(store, tmp_path / "v")
    contents = {"old": path.read_bytes(), "new": path.with_name(f"vectors.json.beside_{version.label}").read_bytes()}
    contents["tmp"] = contents["old"][:100]
    for file in filter(Path.is_file, path.parent.iterdir()):
        file.unlink()
    path.write_bytes(contents[live])
    for kind, what in files.items():
        end = ".nudge-tmp" if what == "tmp" else ""
        path.with_name(f"vectors.json.{kind}_{version.label}{end}").write_bytes(contents[what])
    version.set_state("switching")
    store = SimpleStore.open(path)
    assert store.copy_labels() == [version.label]
    with pytest.warns(UserWarning, match="it died while it was switched"):
        reapply(store, tmp_path / "v")
    assert versions(store, tmp_path / "v")[0].state == state
    assert store.read(IDS).tobytes() == (ROWS if live == "old" else -ROWS).tobytes()
    if state == "committed":
        switch(store, tmp_path / "v")
    assert rollback(store, tmp_path / "v").exact
    assert path.read_bytes() == contents["old"]
    switch(store, tmp_path / "v")
    assert SimpleStore.open(path).read(IDS).tobytes() == (-ROWS).tobytes()
    drop_copies(store, tmp_path / "v")
    assert names(path.parent) == ["vectors.json"]
    assert rollback(store, tmp_path / "v").exact
    assert json.loads(path.read_bytes()) == json.loads(contents["old"])


def test_a_switch_whose_file_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    store, path = on_disk(tmp_path)
    push(store, tmp_path / "v")

    put_in_place = files.put_in_place
    for writes in range(3):  # what was live, the copy, and the copy in place of what was live
        left = [writes]

        def full(*paths, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(28, "No space left on device")
            put_in_place(*paths)

        with monkeypatch.context() as patch:
            patch.setattr(files, "put_in_place", full)
            with pytest.raises(PushError, match=r"simple did not switch: .*No space left"):
                switch(store, tmp_path / "v")
        assert store.read(IDS).tobytes() == SimpleStore.open(path).read(IDS).tobytes() == ROWS.tobytes()
        assert str(status(store, tmp_path / "v")) == "nothing is pushed; version 0001 is ready beside"
    switch(store, tmp_path / "v")
    assert rollback(store, tmp_path / "v").exact


def langchain_faiss(make=lambda: faiss.IndexFlatL2(12), n=20):
    vectorstore = FAISS(LangChainEmbeddings(), make(), InMemoryDocstore(), {})
    vectorstore.add_documents(documents(n))
    return vectorstore


def test_faiss_ids_that_stand_for_other_nodes_are_caught_up_with(tmp_path):
    """A node deleted and added again has the vector it had, at another position: all after it have moved up."""
    vectorstore = langchain_faiss()
    store = embedding_store(vectorstore)
    nodes = [plain_id(at) for at in range(20)]
    push(store, tmp_path, nodes)
    first = vectorstore.index_to_docstore_id[0]
    again = vectorstore.docstore.search(first)
    vectorstore.delete([first])
    vectorstore.add_documents([Document(id=first, page_content=again.page_content, metadata=again.metadata)])
    before = store.read(nodes)
    (label,) = store.copy_labels()
    with pytest.raises(StoreError, match="nodes no longer have the FAISS ids that they had when the index was copied"):
        store.switch(label)
    assert store.read(nodes).tobytes() == before.tobytes()
    switch(store, tmp_path)
    assert store.read(nodes).tobytes() == (-before).tobytes()
    last = vectorstore.index_to_docstore_id[19]
    vectorstore.delete([last])
    assert rollback(store, tmp_path).exact
    kept = [node for node in nodes if node != last]
    assert store.read(kept).tobytes() == before[[nodes.index(node) for node in kept]].tobytes()
    assert store.count() == vectorstore.index.ntotal == 19


def hnsw():
    index = faiss.IndexHNSWFlat(12, 8)
    index.hnsw.efSearch = 40
    return index


def ivf():
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(12), 12, 4)
    index.train(np.random.default_rng(0).normal(size=(400, 12)).astype(np.float32))
    return index


@pytest.mark.parametrize("persisted", [False, True])
@pytest.mark.parametrize("make", [lambda: faiss.IndexFlatIP(12), hnsw, ivf])
def test_faiss_a_rollback_brings_back_the_very_index(tmp_path, make, persisted):
    """Graph, lists and parameters as they were, and what was set since the push."""
    vectorstore = langchain_faiss(make)
    path = tmp_path / "data" / "index.faiss" if persisted else None
    if path:
        vectorstore.save_local(str(path.parent))
    store = embedding_store(vectorstore, persist_path=path)
    nodes = [plain_id(at) for at in range(20)]
    original = faiss.serialize_index(vectorstore.index).tobytes()
    push(store, tmp_path / "v", nodes)
    if make is hnsw:
        vectorstore.index.hnsw.efSearch = 77
    if make is ivf:
        vectorstore.index.nprobe = 3
    switch(store, tmp_path / "v")
    assert type(vectorstore.index) is type(make())
    if make is hnsw:
        assert vectorstore.index.hnsw.efSearch == 77
    if make is ivf:
        assert vectorstore.index.nprobe == 3
    rollback(store, tmp_path / "v")
    if make is hnsw:
        vectorstore.index.hnsw.efSearch = 40
    if make is ivf:
        vectorstore.index.nprobe = 1
    assert faiss.serialize_index(vectorstore.index).tobytes() == original
    if path:
        found = FAISS.load_local(str(path.parent), LangChainEmbeddings(), allow_dangerous_deserialization=True)
        assert embedding_store(found, persist_path=path).read(nodes).tobytes() == store.read(nodes).tobytes()


def test_faiss_files_beside_keep_the_node_ids_that_they_had(tmp_path):
    index, path = faiss.IndexFlatL2(4), tmp_path / "data" / "index.faiss"
    index.add(ROWS.astype(np.float32))
    path.parent.mkdir()
    faiss.write_index(index, str(path))
    store = FaissStore.open(path, dict(enumerate(IDS)))
    push(store, tmp_path / "v")
    (label,) = store.copy_labels()
    beside = f"index.faiss.beside_{label}"
    assert names(path.parent) == ["index.faiss", beside, f"{beside}.ids"]
    renamed = FaissStore.open(path, dict(enumerate(reversed(IDS))))
    with pytest.raises(PushError, match=r"no longer what version 0001 was made from \(8 node\(s\) changed"):
        switch(renamed, tmp_path / "v")
    (path.parent / f"{beside}.ids").write_text("[[")
    assert switch(store, tmp_path / "v").caught_up == 8, "a copy without its ids is made anew"
    assert rollback(store, tmp_path / "v").exact
    assert store.read(IDS).tobytes() == ROWS.astype(np.float32).tobytes()
    drop_copies(store, tmp_path / "v")
    assert names(path.parent) == ["index.faiss"]


def push_in_place(store, root, ids):
    held = store.read(ids)
    return push_vectors(store, ids, original_vectors(store, ids, held, root), held + 1, versions=root)


def test_a_version_is_stale_once_the_one_beneath_it_is_followed_by_another_or_undone(tmp_path):
    store = SimpleStore(simple())
    push_in_place(store, tmp_path, IDS[:2])
    store.replace(IDS[:2], ROWS[:2])  # an ingestion pipeline embeds them again
    push_vectors(store, IDS[3:5], ROWS[3:5], ROWS[3:5] + 2, versions=tmp_path, mode=SIDE_BY_SIDE)
    push_in_place(store, tmp_path, IDS[5:6])
    with pytest.raises(PushError, match=r"\(it was made over version 0001, and version 0003 is live\); nothing was"):
        switch(store, tmp_path)
    rollback(store, tmp_path)
    with pytest.raises(PushError, match=r"\(it was made over version 0001, and no version is live\); nothing was"):
        switch(store, tmp_path)
    assert store.read(IDS).tobytes() == ROWS.tobytes()


def test_originals_are_known_if_an_earlier_release_switched_over_a_push_in_place(tmp_path, monkeypatch):
    store = SimpleStore(simple())
    push(store, tmp_path, IDS[:3])
    push_in_place(store, tmp_path, IDS[3:5])
    with monkeypatch.context() as earlier:
        earlier.setattr("nudge_rag.journal.swapping.find_other_base", lambda journal, version: "")
        switch(store, tmp_path)
    assert status(store, tmp_path).version == "0001"
    assert original_vectors(store, IDS, store.read(IDS), tmp_path).tobytes() == ROWS.tobytes()
    with pytest.raises(PushError, match="0001 was made live"):
        push_in_place(store, tmp_path, IDS[:2])
    rollback(store, tmp_path)
    assert store.read(IDS).tobytes() == ROWS.tobytes()


def test_a_bare_faiss_index_keeps_no_version_beside(tmp_path):
    store = FaissStore(faiss.IndexFlatL2(4), {})
    assert not store.capabilities.side_by_side
    for action in (store.create_copy, store.switch, store.drop_copy):
        with pytest.raises(ValueError, match=r"would not see another take its place: give held_by="):
            action("a")
    with pytest.raises(ValueError, match="use mode='in-place'"):
        push_vectors(store, [], np.zeros((0, 4)), np.zeros((0, 4)), versions=tmp_path, mode=SIDE_BY_SIDE)


def test_a_node_that_is_away_while_versions_are_switched_is_undone_when_it_is_back(build):
    """Once by a switch back, and once by a switch to a version that knows nothing of it."""
    store = build("simple", 6).store
    held = store.vector_store.data
    ids = list(held.embedding_dict)
    originals = store.read(ids)

    def away(action):
        taken = held.embedding_dict.pop(ids[0])
        action()
        held.embedding_dict[ids[0]] = taken
        return original_vectors(store, ids, store.read(ids)).tobytes() == originals.tobytes()

    push_vectors(store, ids[:3], originals[:3], -originals[:3], mode=SIDE_BY_SIDE)
    switch(store)
    assert away(lambda: rollback(store))
    assert store.read(ids[:1]).tobytes() == (-originals[:1]).tobytes()
    assert rollback(store).restored == 1
    drop_copies(store)
    push_vectors(store, ids[:3], originals[:3], -originals[:3])

    def switch_to_another():
        push_vectors(store, ids[1:3], originals[1:3], originals[1:3] * 2, mode=SIDE_BY_SIDE)
        switch(store)

    assert away(switch_to_another)
    rollback(store)
    assert original_vectors(store, ids, store.read(ids)).tobytes() == originals.tobytes()
    rollback(store)
    assert store.read(ids).tobytes() == originals.tobytes()
