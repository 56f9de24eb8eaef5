"""Retrieve from, and tune, a LlamaIndex vector store with nudge-rag."""

from llama_index.retrievers.nudge.base import NudgeRetriever
from llama_index.retrievers.nudge.embedding import NudgeEmbedding
from llama_index.retrievers.nudge.recorder import record_retrievals
from llama_index.retrievers.nudge.stores import embedding_store, texts_of
from llama_index.retrievers.nudge.tuning import tune
from llama_index.retrievers.nudge.verbs import (
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
    "NudgeEmbedding",
    "NudgeRetriever",
    "TuningState",
    "embedding_store",
    "evaluate",
    "live_version",
    "load_nudge",
    "prune",
    "reapply",
    "record_retrievals",
    "rollback",
    "status",
    "switch",
    "texts_of",
    "tune",
    "versions",
]
