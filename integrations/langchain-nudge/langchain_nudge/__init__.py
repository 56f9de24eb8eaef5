"""Retrieve from, and tune, a LangChain vector store with nudge-rag."""

from langchain_nudge.recorder import RecorderCallback
from langchain_nudge.retriever import NudgeRetriever
from langchain_nudge.stores import embedding_store, texts_of
from langchain_nudge.tuning import tune

__all__ = ["NudgeRetriever", "RecorderCallback", "embedding_store", "texts_of", "tune"]
