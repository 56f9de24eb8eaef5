"""Retrieve from, and tune, a LlamaIndex vector store with nudge-rag."""

from llama_index.retrievers.nudge.base import NudgeRetriever
from llama_index.retrievers.nudge.recorder import record_retrievals
from llama_index.retrievers.nudge.stores import embedding_store, texts_of
from llama_index.retrievers.nudge.tuning import tune

__all__ = ["NudgeRetriever", "embedding_store", "record_retrievals", "texts_of", "tune"]
