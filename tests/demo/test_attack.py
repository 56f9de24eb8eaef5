"""MITRE ATT&CK as the package ships it: sizes, clean texts, labels, samples."""

from __future__ import annotations

import pytest

from nudge_rag.demo.attack import load_attack, plain_text


@pytest.fixture(scope="module")
def attack():
    return load_attack()


def test_sizes(attack):
    assert len(attack.nodes) == 691
    assert 15_800 < attack.pairs.n_queries < 16_000
    assert set(attack.pairs.node_ids) <= set(attack.nodes)
    assert attack.names["T1059.001"] == "PowerShell"
    assert attack.nodes["T1059.001"].startswith("PowerShell. Adversaries may abuse PowerShell")


def test_no_markup_is_left(attack):
    for text in (*attack.nodes.values(), *attack.pairs.queries.values()):
        assert "(Citation" not in text
        assert "](" not in text
        assert text == " ".join(text.split())


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("[A](https://b.org/c) uses [D E](https://f.org).(Citation: G H 2020)(Citation: I)", "A uses D E."),
        ("cut off in a citation(Citation: Some Rep...", "cut off in a citation"),
        ("cut off in a [link](https://attack.m...", "cut off in a link"),
        ("cut off in [the text of a li...", "cut off in the text of a li..."),
        ("a (plain) remark [sic]", "a (plain) remark [sic]"),
    ],
)
def test_plain_text(markdown, text):
    assert plain_text(markdown) == text


def test_samples_are_seeded_and_nested(attack):
    small, large = attack.sample(50), attack.sample(100)
    assert small == attack.sample(50)
    assert set(small.queries) < set(large.queries)
    assert set(attack.sample(50, seed=1).queries) != set(small.queries)
    assert attack.sample(10**6) == attack.pairs
    with pytest.raises(ValueError, match="at least 1"):
        attack.sample(0)
