"""The configuration of ``nudge-rag nightly``, from a TOML file."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nudge_rag.cli.outcome import UsageError
from nudge_rag.cli.resources import FORMATS

__all__ = ["NightConfig", "read_config"]

KINDS: dict[str, tuple[type, ...]] = {
    "store": (str,), "model": (str,), "pairs": (list,), "format": (str,), "recorder": (str,), "folder": (str,),
    "versions": (str,), "model_name": (str,), "solver": (str,), "metrics": (list,), "at_least": (int, float),
    "judge": (str,), "texts": (str,), "documents": (str,), "mode": (str,), "switch": (bool,), "keep": (int,),
    "force": (bool,),
}  # fmt: skip


@dataclass(frozen=True)
class NightConfig:
    """What a night works on.

    Attributes:
        root: folder of the configuration; relative paths start there.
        store: URL of the store, ``module:object`` or ``env:NAME``.
        model: a sentence-transformers folder or ``module:object``.
        folder: where state, log, nudges and reports are kept.
        pairs: patterns of files of labelled pairs.
        format: of these files, if their names do not tell.
        recorder: file of a `nudge_rag.feedback.Recorder`.
        versions: folder of the history of pushes, if not the store's own.
        model_name: name of the embedding model, for the record.
        solver: as `nudge_rag.tune`.
        metrics: the first one decides.
        judge: ``module:function`` from a store to the application's own retriever, whose answers decide.
        texts: a file of node ids and texts, or ``module:function``, by which labels are known under new ids.
        documents: ``module:function`` from node ids to those of their documents.
        at_least: the change from what is live that is needed for a push.
        mode: ``in-place`` or ``side-by-side``.
        switch: make a copy live at once.
        keep: how many nights' folders stay.
        force: push also what would forget queries that the live version was made from.
    """

    root: Path
    store: str
    model: str
    folder: Path
    pairs: tuple[str, ...] = ()
    format: str | None = None
    recorder: Path | None = None
    versions: Path | None = None
    model_name: str | None = None
    solver: str = "auto"
    metrics: tuple[str, ...] = ("nDCG@10", "Recall@10")
    judge: str | None = None
    texts: str | None = None
    documents: str | None = None
    at_least: float = 0.0
    mode: str = "in-place"
    switch: bool = False
    keep: int = 14
    force: bool = False

    def where(self) -> dict[str, Any]:
        """Return the keyword argument for the history's folder, if there is one."""
        return {} if self.versions is None else {"versions": self.versions}

    def pair_files(self) -> list[Path]:
        """Return the files that the patterns name now, in order.

        Raises:
            UsageError: a pattern without wildcards names no file.
        """
        found: list[Path] = []
        for pattern in self.pairs:
            absolute = Path(pattern).is_absolute()
            base = Path(pattern).anchor if absolute else self.root
            relative = str(Path(pattern).relative_to(base)) if absolute else pattern
            try:
                matches = sorted(Path(base).glob(relative))
            except (ValueError, IndexError, NotImplementedError) as error:
                raise UsageError(f"pairs: {pattern!r} is no pattern of files ({error})") from error
            if not matches and not any(sign in pattern for sign in "*?["):
                raise UsageError(f"there is no file {self.root / pattern}")
            found += matches
        return list(dict.fromkeys(found))


def read_config(path: str | Path) -> NightConfig:
    """Return the configuration in a TOML file.

    Raises:
        UsageError: no such file, no TOML, or a key or value that does not fit; names it.
    """
    file = Path(path)
    try:
        given = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not TOML: {error}") from error
    _check(file, given)
    root = file.resolve().parent
    for name in ("folder", "recorder", "versions"):
        if name in given:
            given[name] = root / given[name]
    for name in ("pairs", "metrics"):
        if name in given:
            given[name] = tuple(given[name])
    return NightConfig(root=root, **given)


def _check(file: Path, given: dict[str, Any]) -> None:
    known = [field.name for field in fields(NightConfig) if field.name != "root"]
    unknown = sorted(set(given) - set(known))
    missing = [name for name in ("store", "model", "folder") if name not in given]
    if unknown or missing:
        wrong = f"has unknown keys {', '.join(unknown)}" if unknown else f"lacks {', '.join(missing)}"
        raise UsageError(f"{file} {wrong}; its keys are {', '.join(known)}")
    for name, value in given.items():
        if not isinstance(value, KINDS[name]) or (isinstance(value, bool) and bool not in KINDS[name]):
            kinds = " or ".join(kind.__name__ for kind in KINDS[name])
            raise UsageError(f"{file}: {name} must be {kinds}, got {value!r}")
    _check_values(file, given)


def _check_values(file: Path, given: dict[str, Any]) -> None:
    """Refuse before the night what would end it at a later step, or be ignored."""
    from nudge_rag.evaluation.metrics import parse_metric
    from nudge_rag.solvers.registry import SOLVERS

    for name, value in given.items():
        texts = value if isinstance(value, list) else [value] if isinstance(value, str) else []
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise UsageError(f"{file}: {name} must hold text, got {value!r}")
    try:
        for metric in given.get("metrics", ()):
            parse_metric(metric)
    except ValueError as error:
        raise UsageError(f"{file}: metrics: {error}") from error
    if "metrics" in given and not given["metrics"]:
        raise UsageError(f"{file}: metrics must name at least one, such as 'nDCG@10'")
    for name, known in (("solver", tuple(SOLVERS)), ("format", FORMATS)):
        if name in given and given[name] not in known:
            raise UsageError(f"{file}: {name} must be one of {', '.join(known)}, got {given[name]!r}")
    if not math.isfinite(given.get("at_least", 0.0)):
        raise UsageError(f"{file}: at_least must be a finite number, got {given['at_least']!r}")
    if given.get("switch") and given.get("mode") != "side-by-side":
        raise UsageError(f"{file}: switch is for mode = 'side-by-side'; in place a push is live at once")
    if given.get("mode", "in-place") not in ("in-place", "side-by-side"):
        raise UsageError(f"{file}: mode must be 'in-place' or 'side-by-side', got {given['mode']!r}")
    if given.get("keep", 1) < 1:
        raise UsageError(f"{file}: keep must be at least 1, got {given['keep']}")
    if not given.get("pairs") and "recorder" not in given:
        raise UsageError(f"{file} names neither pairs nor a recorder: there would be no labels")
