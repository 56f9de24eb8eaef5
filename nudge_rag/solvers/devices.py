"""Embeddings that are not numpy arrays: torch tensors, CuPy arrays and others of the array API standard.

The corpus stays on its device. What the solvers compute in float64 (directions of the covered nodes, roots of the line
search) is small and happens on the host; products with the corpus and with the covered nodes happen on the device.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray, IntArray

__all__ = ["as_device_matrix", "check_rows", "is_foreign", "namespace", "numpy_dtype", "on_device"]
__all__ += ["replaced_rows", "take", "to_numpy", "top"]

DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}


def is_foreign(array: Any) -> bool:
    """Whether ``array`` is an array of another library than numpy."""
    return hasattr(array, "__dlpack__") and not isinstance(array, np.ndarray | np.generic)


def namespace(array: Any) -> Any:
    """The array API namespace of ``array``.

    Raises:
        ImportError: array-api-compat is not installed.
        TypeError: an array library that it does not know.
    """
    try:
        import array_api_compat
    except ImportError as error:
        raise ImportError(
            f"{type(array).__name__} embeddings need array-api-compat: pip install 'nudge-rag[arrays]'"
        ) from error
    return array_api_compat.array_namespace(array)


def as_device_matrix(array: Any, name: str) -> Any:
    """``array`` as it is, once it is known to be a float32 or float64 matrix.

    Raises:
        TypeError: any other dtype. ValueError: any other number of dimensions.
    """
    if array.ndim != 2:
        raise ValueError(f"{name} must have two dimensions (rows, dimension), got shape {tuple(array.shape)}")
    numpy_dtype(array, name)
    return array


def numpy_dtype(array: Any, name: str = "embeddings") -> np.dtype[Any]:
    """The numpy dtype of the same name."""
    found = str(array.dtype).rpartition(".")[2]
    if found not in DTYPES:
        raise TypeError(f"{name} must be float32 or float64, got {array.dtype}")
    return DTYPES[found]


def to_numpy(array: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """A copy on the host, as a numpy array; a numpy array as it is."""
    if not is_foreign(array):
        return np.asarray(array)
    import array_api_compat

    if array_api_compat.is_torch_array(array):
        array = array.detach()
    if array_api_compat.is_cupy_array(array):
        return np.asarray(array.get())
    return np.asarray(array_api_compat.to_device(array, "cpu") if str(array.device) != "cpu" else array)


def on_device(values: np.ndarray[Any, np.dtype[Any]], like: Any) -> Any:
    """Numpy ``values`` as an array of the library and on the device of ``like``."""
    import array_api_compat

    xp = namespace(like)
    if array_api_compat.is_torch_array(like):
        # torch would warn of arrays that are not writable.
        values = np.array(values)
    return xp.asarray(values, device=array_api_compat.device(like))


def take(array: Any, rows: IntArray) -> Any:
    """Rows of a matrix, on its device."""
    return namespace(array).take(array, on_device(rows, array), axis=0)


def check_rows(block: Any, name: str, first_row: int) -> Any:
    """Norms of the rows, on the device; raises a ValueError that names the first row that is zero or not finite."""
    xp = namespace(block)
    norms = xp.sqrt(xp.sum(block * block, axis=1))
    bad = to_numpy(~(xp.isfinite(norms) & (norms > 0)))
    if bad.any():
        from nudge_rag.common.arrays import row_norms

        row = int(bad.argmax())
        row_norms(to_numpy(block[row : row + 1, :]), name, first_row=first_row + row)
    return norms


def top(scores: Any, depth: int) -> Any:
    """The ``depth`` largest of each row (fewer if there are fewer columns), in no order."""
    import array_api_compat

    xp = namespace(scores)
    depth = min(depth, scores.shape[1])
    if depth == 1:
        return xp.max(scores, axis=1, keepdims=True)
    if array_api_compat.is_torch_array(scores):
        return xp.topk(scores, depth, dim=1, sorted=False).values
    return xp.sort(scores, axis=1, descending=True)[:, :depth]


def replaced_rows(array: Any, rows: IntArray, vectors: Any) -> Any:
    """A copy of ``array`` with some rows replaced."""
    if not is_foreign(array):
        full: FloatArray = np.array(array)
        full[rows] = vectors
        return full
    xp = namespace(array)
    # No assignment to rows in the standard: each row is taken from the old matrix or from the new rows.
    source = np.arange(array.shape[0])
    source[rows] = array.shape[0] + np.arange(len(rows))
    return take(xp.concat([array, vectors], axis=0), source)
