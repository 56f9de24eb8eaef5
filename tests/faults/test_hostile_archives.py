"""Saved nudges and states that are damaged or made to harm: one error class, or the object as it was."""

from __future__ import annotations

import copy
import json
import shutil

import numpy as np
import pytest

from nudge_rag import CorruptArchiveError, LabeledPairs, Nudge, TuningState, tune
from nudge_rag.stores import MappingStore
from tests.support.hostile import damaged, signed, signed_again

ROUNDS = 200
NODES = np.random.default_rng(0).normal(size=(6, 4))
# What a value of a manifest is put in place of; each is wrong somewhere, and none may be taken for something else.
STRANGE = (None, True, -1, 10**400, 1.5, "", "text", [], [None], ["a", "a"], {}, {"a": None}, [[]], {"a": {"b": "c"}})


def embed(texts):
    return np.array([np.random.default_rng([ord(sign) for sign in text]).normal(size=4) for text in texts])


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """A saved nudge and a saved state of one store."""
    folder = tmp_path_factory.mktemp("archives")
    store = MappingStore({f"n{row}": vector.tolist() for row, vector in enumerate(NODES)}, key="test")
    pairs = LabeledPairs.from_pairs((f"query {n}", f"n{n % 6}") for n in range(60))
    texts = {"texts": lambda ids: [f"text {node}" for node in ids]}
    tune(store, pairs, embed, reach="queries", model="m", **texts).save(folder / "nudge")
    state = TuningState(store, embed)
    state.add_pairs(pairs)
    state.save(folder / "state")
    return store, folder


@pytest.fixture(params=["nudge", "state"])
def saved(request, archives, tmp_path):
    """A folder, and how it is loaded."""
    store, folder = archives
    copied = shutil.copytree(folder / request.param, tmp_path / "saved")
    if request.param == "nudge":
        return copied, lambda: Nudge.load(copied, store)
    return copied, lambda: TuningState.load(copied, store, embed)


def use(found):
    """What is loaded works: nothing that is wrong in it is found only later."""
    if isinstance(found, Nudge):
        assert isinstance(str(found), str)
        json.dumps(found.to_dict())
        assert found.vectors.shape == (len(found.ids), 4)
        assert len(found.overlay().read(["n0"])) == 1
    else:
        assert len(found) >= 0
        found.pairs()


def outcome(load):
    try:
        return load()
    except CorruptArchiveError:
        return None
    except ValueError as error:
        assert "was made for" in str(error), error  # the one other answer: it names another store
        return None


def write(folder, manifest, arrays):
    (folder / "manifest.json").write_bytes(manifest)
    (folder / "arrays.npz").write_bytes(arrays)


@pytest.mark.parametrize("sign", [False, True])
def test_damage_at_random_gives_one_error_or_the_object(saved, sign):
    folder, load = saved
    manifest, arrays = ((folder / name).read_bytes() for name in ("manifest.json", "arrays.npz"))
    rng, loaded = np.random.default_rng(7), 0
    for number in range(ROUNDS):
        if number % 2:
            changed = damaged(arrays, rng)
            write(folder, signed(json.loads(manifest), changed) if sign else manifest, changed)
        else:
            changed = damaged(manifest, rng)
            write(folder, signed_again(changed, arrays) if sign else changed, arrays)
        found = outcome(load)
        if found is not None:
            loaded += 1
            use(found)
    assert loaded < ROUNDS, "some damage is found"
    write(folder, manifest, arrays)
    use(load())


def places(value, path=()):
    """Every place in a manifest, a few of each list or object."""
    yield path
    if isinstance(value, dict):
        for name in list(value)[:40]:
            yield from places(value[name], (*path, name))
    elif isinstance(value, list):
        for at in range(min(len(value), 2)):
            yield from places(value[at], (*path, at))


def test_every_value_may_be_another(saved):
    """Checksums fit, as those of somebody who means harm would."""
    folder, load = saved
    true = json.loads((folder / "manifest.json").read_bytes())
    arrays = (folder / "arrays.npz").read_bytes()
    where = [path for path in places(true) if path and path[0] not in ("manifest_sha256", "arrays_sha256", "format")]
    strange = np.random.default_rng(3)
    refused = 0
    for path in where[:150]:
        for value in [STRANGE[at] for at in strange.choice(len(STRANGE), 2, replace=False)]:
            changed = copy.deepcopy(true)
            inside = changed
            for step in path[:-1]:
                inside = inside[step]
            inside[path[-1]] = value
            write(folder, signed(changed, arrays), arrays)
            found = outcome(load)
            refused += found is None
            if found is not None:
                use(found)
    assert refused > len(where)
    for name in list(true):
        changed = {key: value for key, value in true.items() if key != name}
        write(folder, signed(changed, arrays), arrays)
        if (found := outcome(load)) is not None:
            use(found)


def test_a_folder_without_one_of_its_files_is_refused(saved):
    folder, load = saved
    for name in ("manifest.json", "arrays.npz"):
        shutil.copytree(folder, folder.parent / "kept", dirs_exist_ok=True)
        (folder / name).unlink()
        with pytest.raises(CorruptArchiveError):
            load()
        shutil.copytree(folder.parent / "kept", folder, dirs_exist_ok=True)
