"""Generated questions: parsed, checked by retrieval, without near-duplicates, and never used to judge."""

from __future__ import annotations

import pytest

from nudge_rag import LabeledPairs
from nudge_rag.feedback.questions import _without_duplicates, generate_questions, parse_questions
from nudge_rag.stores.memory.mapping import MappingStore

STORE = MappingStore({"pay": [1.0, 0.0, 0.0], "leave": [0.0, 1.0, 0.0], "log": [0.0, 0.0, 1.0]})
TEXTS = {"pay": "Pay by card.", "leave": "Leave by letter.", "log": "Log in here.", "empty": " ", "none": None}
VECTORS = {
    "How can I pay my bill?": [0.9, 0.1, 0.0],
    "how can I pay my bill": [0.9, 0.1, 0.0],
    "What about ending it?": [0.6, 0.5, 0.0],
    "Do I have to write a letter?": [0.2, 0.9, 0.0],
    "Where do I log in?": [0.0, 0.0, 1.0],
}
ANSWERS = {
    "Pay by card.": "1. How can I pay my bill?\n2) how can I pay my bill\n3. Never asked for",
    "Leave by letter.": "- What about ending it?\n\n* Do I have to write a letter?",
    "Log in here.": "Where do I log in?",
}


def embed(texts):
    return [VECTORS[text] for text in texts]


def model(prompt):
    return next(answer for text, answer in ANSWERS.items() if text in prompt)


def test_questions_that_find_their_node_are_kept():
    made = generate_questions(TEXTS, model, STORE, embed)
    kept = {made.pairs.queries[query]: dict(grades) for query, grades in made.pairs.qrels.items()}
    assert kept == {
        "How can I pay my bill?": {"pay": 1},
        "Do I have to write a letter?": {"leave": 1},
        "Where do I log in?": {"log": 1},
    }
    assert (made.n_generated, made.not_retrieved, made.duplicates) == (5, 1, 1)
    within = generate_questions(TEXTS, model, STORE, embed, within=2)
    assert "What about ending it?" in within.pairs.queries.values()


def test_they_never_judge():
    made = generate_questions(TEXTS, model, STORE, embed).pairs
    asked = LabeledPairs.from_pairs([(f"a question {n}", "pay") for n in range(20)])
    parts = (asked + made).split(0.4, 0.3, 0.3)
    assert len(parts.train.synthetic) == 3
    assert not parts.val.synthetic and not parts.test.synthetic


def test_a_model_that_fails_is_named_or_skipped():
    def failing(prompt):
        if "card" in prompt:
            raise ConnectionError("no network")
        return model(prompt)

    with pytest.raises(ValueError, match=r"node 'pay': the model failed \(ConnectionError: no network\)"):
        generate_questions(TEXTS, failing, STORE, embed)
    with pytest.warns(UserWarning, match="1 of 3 rows were skipped"):
        made = generate_questions(TEXTS, failing, STORE, embed, errors="skip")
    assert len(made.pairs) == 2 and len(made.report.skipped) == 1
    with pytest.raises(ValueError, match="no question was kept of 0 that the model wrote for 3 nodes"):
        generate_questions(TEXTS, lambda prompt: "", STORE, embed)
    with pytest.raises(TypeError, match="model must be a function"):
        generate_questions(TEXTS, "gpt", STORE, embed)
    with pytest.raises(ValueError, match="k and within must be at least 1"):
        generate_questions(TEXTS, model, STORE, embed, k=0)


def test_braces_in_a_text_are_no_placeholders():
    prompts = []

    def record(prompt):
        prompts.append(prompt)
        return "How can I pay my bill?"

    generate_questions({"pay": "Write {k} {0} {name}"}, record, STORE, embed)
    assert "Write {k} {0} {name}" in prompts[0] and "Write 2 different questions" in prompts[0]


def test_near_duplicates_by_brute_force():
    base = ["how", "do", "I", "cancel", "the", "plan", "that", "I", "bought", "last", "year", "in", "your", "shop"]
    questions = [" ".join(base[:length] + [f"w{n}"] * (n % 3)) for n, length in enumerate(range(3, 14))] * 2
    kept = []
    for question in questions:
        words = set(question.lower().split())
        others = [set(other.lower().split()) for other in kept]
        if not any(len(words & other) / len(words | other) >= 0.8 for other in others):
            kept.append(question)
    assert [question for question, _ in _without_duplicates([(question, "n") for question in questions])] == kept


def test_answers_in_many_forms():
    answer = 'Sure, here are two questions:\n(1) "How do I pay?"\nQ2: When is it due?\n\nok\n'
    assert parse_questions(answer) == ["How do I pay?", "When is it due?"]
