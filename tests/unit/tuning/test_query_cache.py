"""Queries are embedded in batches or side by side, never twice, and always as the model embeds a query."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from nudge_rag.tuning.query_cache import QueryCache, embed_queries_at_once

TEXTS = [f"question {number}" for number in range(150)]


class Model:
    """Counts what it is asked; ``shift`` makes it another model, ``instruction`` sets queries apart from texts."""

    def __init__(self, shift=0.0, instruction=0.0):
        self.shift, self.instruction = shift, instruction
        self.batches, self.singles, self.threads = [], [], set()

    def vector(self, text):
        return np.random.default_rng(list(text.encode())).normal(size=8) + self.shift

    def one(self, text):
        self.singles.append(text)
        self.threads.add(threading.get_ident())
        return (self.vector(text) + self.instruction).tolist()

    def many(self, texts):
        self.batches.append(len(texts))
        return [self.vector(text).tolist() for text in texts]

    def expected(self):
        return np.array([self.vector(text) + self.instruction for text in TEXTS])


def test_a_model_without_an_instruction_embeds_in_batches():
    model = Model()
    assert np.array_equal(embed_queries_at_once(TEXTS, model.one, model.many), model.expected())
    assert (model.batches, model.singles) == ([2, 64, 64, 22], [TEXTS[0], TEXTS[-1]])


def test_a_model_with_an_instruction_for_queries_keeps_it():
    model = Model(instruction=0.5)
    assert np.array_equal(embed_queries_at_once(TEXTS, model.one, model.many), model.expected())
    assert model.batches == [2]
    assert len(model.threads) > 1, "side by side"


def test_the_next_night_embeds_new_texts_alone(tmp_path):
    first, second = Model(), Model()
    embed_queries_at_once(TEXTS[:100], first.one, None, QueryCache("m", tmp_path))
    found = embed_queries_at_once(TEXTS, second.one, None, QueryCache("m", tmp_path))
    assert np.array_equal(found, second.expected())
    assert sorted(second.singles) == sorted([TEXTS[0], TEXTS[99], *TEXTS[100:]]), "two known ones, to compare"
    third = Model()
    assert np.array_equal(embed_queries_at_once(TEXTS, third.one, None, QueryCache("m", tmp_path)), found)
    assert len(third.singles) == 2


def test_another_model_of_the_same_name_starts_again(tmp_path):
    model, changed = Model(), Model(shift=0.1)
    embed_queries_at_once(TEXTS, model.one, None, QueryCache("m", tmp_path))
    assert np.array_equal(
        embed_queries_at_once(TEXTS, changed.one, None, QueryCache("m", tmp_path)), changed.expected()
    )
    again = Model(shift=0.1)
    embed_queries_at_once(TEXTS, again.one, None, QueryCache("m", tmp_path))
    assert len(again.singles) == 2
    assert len(QueryCache("other", tmp_path).find(TEXTS)) == 0


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_a_damaged_file_is_no_cache(tmp_path, content):
    cache = QueryCache("m", tmp_path)
    cache.add(["a"], np.ones((1, 3)))
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert cache.find(["a"]) == {}
    cache.add(["a"], np.ones((1, 3)))
    assert list(cache.find(["a"])) == ["a"]


def test_texts_are_not_written_down(tmp_path):
    QueryCache("m", tmp_path).add(["a very private question"], np.ones((1, 3)))
    (file,) = tmp_path.iterdir()
    assert b"private" not in file.read_bytes()


def test_a_folder_that_cannot_be_made_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("")
    model = Model()
    found = embed_queries_at_once(TEXTS, model.one, None, QueryCache("m", tmp_path / "file" / "below"))
    assert np.array_equal(found, model.expected())
