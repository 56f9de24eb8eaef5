"""Both frameworks' language models ask questions."""

from __future__ import annotations

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel, FakeMessagesListChatModel
from langchain_core.messages import AIMessage
from llama_index.core.llms.mock import MockLLM

from nudge_rag.feedback.questions import generate_questions
from nudge_rag.stores.memory.mapping import MappingStore

STORE = MappingStore({"pay": [1.0, 0.0], "leave": [0.0, 1.0]})
MODELS = {
    "LangChain": lambda: FakeListChatModel(responses=["1. How do I pay?", "1. How do I leave?"]),
    "LangChain blocks": lambda: FakeMessagesListChatModel(
        responses=[AIMessage([{"type": "text", "text": text}]) for text in ("How do I pay?", "How do I leave?")]
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_langchain_models(name):
    made = generate_questions(
        {"pay": "By card.", "leave": "By letter."},
        MODELS[name](),
        STORE,
        lambda texts: [[1.0, 0.1] if "pay" in text else [0.1, 1.0] for text in texts],
    )
    assert {made.pairs.queries[query]: list(grades) for query, grades in made.pairs.qrels.items()} == {
        "How do I pay?": ["pay"],
        "How do I leave?": ["leave"],
    }


def test_llama_index_models():
    """MockLLM says the prompt again: each line of a node's text comes back as a question."""
    made = generate_questions(
        {"pay": "Can I pay by card?", "leave": "Can I leave by letter?"},
        MockLLM(),
        STORE,
        lambda texts: [[1.0, 0.1] if "pay" in text else [0.1, 1.0] for text in texts],
        prompt="{text}",
    )
    assert {made.pairs.queries[query]: list(grades) for query, grades in made.pairs.qrels.items()} == {
        "Can I pay by card?": ["pay"],
        "Can I leave by letter?": ["leave"],
    }
