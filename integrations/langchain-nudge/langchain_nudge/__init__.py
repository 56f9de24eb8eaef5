"""Retrieve from, and tune, a LangChain vector store with nudge-rag."""

from langchain_nudge.embeddings import NudgeEmbeddings
from langchain_nudge.recorder import RecorderCallback
from langchain_nudge.retriever import NudgeRetriever
from langchain_nudge.stores import embedding_store, texts_of
from langchain_nudge.tuning import tune
from langchain_nudge.verbs import (
    TuningState,
    evaluate,
    live_version,
    load_nudge,
    prune,
    reapply,
    rollback,
    status,
    switch,
    versions,
)

__all__ = [
    "NudgeEmbeddings",
    "NudgeRetriever",
    "RecorderCallback",
    "TuningState",
    "embedding_store",
    "evaluate",
    "live_version",
    "load_nudge",
    "prune",
    "reapply",
    "rollback",
    "status",
    "switch",
    "texts_of",
    "tune",
    "versions",
]
