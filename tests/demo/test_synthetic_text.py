"""The generated passages are reproducible, correct and unique."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from fractions import Fraction
from functools import cache
from pathlib import Path

import pytest

from gnano.demo import synthetic_text
from gnano.demo.synthetic_text import FORM_WEIGHTS, hash_generator, write_passage

pytestmark = pytest.mark.slow
NUMBER = r"-?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?"
EQUATION = re.compile(rf"({NUMBER}(?: [-+×÷] {NUMBER})*) = ({NUMBER})")


@cache
def sample(many: int = 4_000, seed: int = 0) -> list[str]:
    return [write_passage(seed, index) for index in range(many)]


def sentences(text: str) -> list[str]:
    """Return the sentences of a passage without headings and list numbers."""
    lines = [line for line in text.split("\n") if re.search(r'[.!?]"?$', line)]
    split = re.compile(r'(?:(?<=[.!?])|(?<=[.!?]")) (?=["A-Z])')
    return [sentence for line in lines for sentence in split.split(line)]


def value(expression: str) -> Fraction:
    """Evaluate 'a + b × c' independently of the library."""
    first, *rest = re.split(r" ([-+×÷]) ", expression.replace(",", ""))
    terms = [Fraction(first)]
    for sign, text in zip(rest[::2], rest[1::2], strict=True):
        number = Fraction(text)
        if sign in "+-":
            terms.append(number if sign == "+" else -number)
        else:
            terms[-1] = terms[-1] * number if sign == "×" else terms[-1] / number
    return sum(terms, Fraction())


def test_a_passage_depends_only_on_its_index() -> None:
    assert [write_passage(0, k) for k in (7, 3, 3_999)] == [sample()[k] for k in (7, 3, 3_999)]


def test_another_process_writes_the_same_text() -> None:
    code = (
        "import hashlib; from gnano.demo.synthetic_text import write_passage;"
        "text = ''.join(write_passage(3, k) for k in range(200));"
        "print(hashlib.sha256(text.encode()).hexdigest())"
    )
    here = hashlib.sha256("".join(sample(200, seed=3)).encode()).hexdigest()
    hash_seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    path = os.pathsep.join(folder for folder in sys.path if folder)
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": path}
    there = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == here


def test_the_identity_changes_with_code_and_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hash_generator()
    copy = shutil.copytree(synthetic_text.CODE_FOLDER, tmp_path / "copy")
    monkeypatch.setattr(synthetic_text, "CODE_FOLDER", copy)
    assert hash_generator() == before  # in any folder
    found = {before}
    for name in ("text_grammar.py", "corpus/cast.toml"):
        with (copy / name).open("a") as file:
            file.write("# another\n")
        found.add(hash_generator())
    assert len(found) == 3


def test_another_seed_gives_other_passages() -> None:
    assert not set(sample(300, seed=1)) & set(sample(300, seed=2))


def test_passages_are_unique() -> None:
    seen = {hash(text) for text in sample()}
    seen.update(hash(write_passage(0, k)) for k in range(4_000, 8_000))
    assert len(seen) == 8_000


def test_every_passage_has_the_right_length() -> None:
    assert all(400 <= len(text) <= 1_500 for text in sample())


def test_most_sentences_are_unique() -> None:
    all_sentences = [sentence for text in sample() for sentence in sentences(text)]
    assert len(set(all_sentences)) / len(all_sentences) > 0.6


def test_no_two_passages_share_most_of_their_phrases() -> None:
    grams = []
    for text in sample()[:500]:
        words = re.findall(r"\w+", text.lower())
        grams.append({tuple(words[n : n + 5]) for n in range(len(words) - 4)})
    where = defaultdict(list)
    for passage_number, own in enumerate(grams):
        for gram in own:
            where[gram].append(passage_number)
    shared: Counter[tuple[int, int]] = Counter()
    for holders in where.values():
        shared.update((a, b) for n, b in enumerate(holders) for a in holders[:n])
    # Jaccard similarity: what both have over what either has
    alike = max(n / (len(grams[a]) + len(grams[b]) - n) for (a, b), n in shared.items())
    assert alike < 0.6


def test_every_equation_is_correct() -> None:
    checked = 0
    for text in sample():
        equations = EQUATION.findall(text) if " = " in text else []
        assert len(equations) == text.count(" = "), text
        assert all(value(left) == value(right) for left, right in equations), text
        checked += len(equations)
    assert checked > 2_000


def test_answers_contain_a_computed_number() -> None:
    for text in sample():
        if " = " not in text:
            continue
        for problem in re.split(r"\n\n(?:Problem|Example|Question) \d+\n", text):
            answer = re.search(r"\nAnswer: |\. Answer: ", problem)
            results = {value(right) for _, right in EQUATION.findall(problem)}
            if answer is None or not results:
                continue
            numbers = re.findall(NUMBER, problem[answer.end() :])
            # 13.50 dollars may have been worked out as 1350 cents
            assert any({value(n), value(n) * 100} & results for n in numbers), problem


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("an unfilled hole", r"[{}<>\[\]|]"),
        ("two spaces, or one before a full stop", r"  | [.,!?;:]"),
        ("a space at the end of a line", r"\s$|[ \t]\n"),
        ("three line breaks", r"\n\n\n"),
        ("'a' before a vowel", r"\b[Aa] (?!one\b|once\b|uni|use|eu)[aeiouAEIOU]\w*"),
        (
            "'an' before a consonant",
            r"\b[Aa]n (?!hour|honest|heir)[b-df-hj-np-tv-zB-DF-HJ-NP-TV-Z]\w*",
        ),
        ("a repeated word", r"\b(?!had had|that that)([A-Za-z]+) \1\b"),
        ("a stop after a stop", r"[.!?,;:][.!?,;:]|[.!?]\",?[.!?]"),
        ("a sentence that starts small", r"[a-z]{3}[.] [a-z]"),
    ],
)
def test_the_english_is_clean(what: str, pattern: str) -> None:
    for text in sample():
        found = re.search(pattern, text)
        assert found is None, f"{what}: {text[max(0, found.start() - 60) : found.end() + 20]!r}"


def test_quotation_marks_are_balanced() -> None:
    for text in sample():
        for paragraph in text.split("\n"):
            assert paragraph.count('"') % 2 == 0, paragraph


def test_half_are_stories_and_half_are_lessons() -> None:
    assert FORM_WEIGHTS["story"] * 2 == sum(FORM_WEIGHTS.values())


def test_the_vocabulary_has_thousands_of_words() -> None:
    words = Counter(word for text in sample() for word in re.findall(r"[a-z]+", text))
    often = [word for word, count in words.items() if count >= 5]
    assert 1_000 < len(often) < 5_000
