"""The questions are reproducible, of all kinds, and fit a small model's context."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import islice
from statistics import median

import pytest

from gnano.data.manifest import text_position
from gnano.data.sft.chat_template import NAMED_TEMPLATES, ChatTemplate
from gnano.data.sft.conversations import Conversation
from gnano.data.sft.encoding import encode_conversation
from gnano.demo.python_corpus import iter_python_code, iter_python_prose
from gnano.demo.python_questions import build_python_questions
from gnano.tokenizer.train_bpe import train_bpe

pytestmark = pytest.mark.slow
KINDS = {"what it does", "which module", "signature", "complete", "name"}
KINDS |= {"arguments", "default", "base", "import", "raises"}
PROGRAM = """
import json, sys
from gnano.demo.python_questions import build_python_questions
before = set(sys.modules)
found = build_python_questions()
print(json.dumps([[c.turns, c.category, c.topic] for c in found], default=vars))
print(json.dumps([sorted(set(sys.modules) - before), "torch" in sys.modules]))
"""


@pytest.fixture(scope="module")
def all_pairs() -> tuple[Conversation, ...]:
    return build_python_questions()


def question_text(pair: Conversation) -> str:
    return f"{pair.turns[0].content}\n{pair.turns[0].context}"


def context(pair: Conversation) -> str:
    return pair.turns[0].context


def answer(pair: Conversation) -> str:
    return pair.turns[1].content


def test_two_processes_build_the_same_questions_without_imports(
    all_pairs: tuple[Conversation, ...],
) -> None:
    env = os.environ | {"PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"}
    other = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True
    )
    questions, imports = other.stdout.splitlines()
    here = [[pair.turns, pair.category, pair.topic] for pair in all_pairs]
    assert questions == json.dumps(here, default=vars)
    modules, torch = json.loads(imports)
    assert not torch
    assert {"tkinter", "turtle", "antigravity", "unittest", "xml"}.isdisjoint(modules)


def test_there_are_thousands_of_questions_of_all_kinds(
    all_pairs: tuple[Conversation, ...],
) -> None:
    assert 4_000 <= len(all_pairs) <= 12_000
    for part in all_pairs, all_pairs[: len(all_pairs) // 4]:  # any part of them has all kinds
        counts = Counter(pair.category for pair in part)
        assert counts.keys() == KINDS
        assert min(counts.values()) > len(part) / 50


def test_questions_are_unique_and_complete(all_pairs: tuple[Conversation, ...]) -> None:
    assert len({question_text(pair) for pair in all_pairs}) == len(all_pairs)
    for pair in all_pairs:
        question, given = pair.turns
        assert [question.role, given.role] == ["user", "assistant"]
        assert question.content and given.content and pair.topic
        for text in question.content, question.context, given.content:
            assert text == text.strip()


def test_questions_fit_a_context_of_256_tokens(all_pairs: tuple[Conversation, ...]) -> None:
    texts = [
        document.text
        for read in (iter_python_code, iter_python_prose)
        for document in islice(read(), 150)
    ]
    tokenizer = train_bpe(texts, 4_096)
    by_length = sorted(all_pairs, key=lambda pair: len(question_text(pair) + answer(pair)))
    longest, sample = by_length[-500:], by_length[::20]
    for template in NAMED_TEMPLATES.values():

        def size(pair: Conversation, template: ChatTemplate = template) -> int:
            return encode_conversation(pair, template, tokenizer).num_positions

        assert max(map(size, longest)) <= 256
        assert median(map(size, sample)) <= 128
    texts = [question_text(pair) + answer(pair) for pair in sample]
    assert median(len(tokenizer.encode(text)) for text in texts) < 60


def test_most_answers_consist_of_words_of_the_question(all_pairs: tuple[Conversation, ...]) -> None:
    def words(text: str) -> set[str]:
        return set(re.findall(r"\w+", text))

    seen = [words(answer(pair)) <= words(question_text(pair)) for pair in all_pairs]
    assert sum(seen) > len(seen) / 2


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_no_object_is_both_learned_and_held_out(
    all_pairs: tuple[Conversation, ...], share: float
) -> None:
    heldout = [pair for pair in all_pairs if text_position(pair.split_key) < share * 2**64]
    learned = [pair for pair in all_pairs if text_position(pair.split_key) >= share * 2**64]
    assert {p.topic for p in heldout}.isdisjoint(p.topic for p in learned)
    assert {p.category for p in heldout} == KINDS
    assert 0.7 * share < len(heldout) / len(all_pairs) < 1.3 * share
    # the same code in two classes would be known by heart
    code = {context(pair) for pair in learned if pair.category == "complete"}
    assert code.isdisjoint(context(p) for p in heldout if p.category == "complete")
