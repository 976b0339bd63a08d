"""What is asked? Items of the known tasks, worded as lm-evaluation-harness words them.

    a record ──read_item──▶ Item: several texts, of which the model should find one the likeliest

    task           context                                     answers
    hellaswag      Canoeing: Two women … And they              four endings
    arc, piqa      Question: …\\nAnswer:                        two to five
    openbookqa     a beginning                                 four endings
    boolq          a passage\\nQuestion: …?\\nAnswer:            no, yes
    winogrande     the sentence up to one of two names (each)  the rest of it
    lambada        a passage without its last word             that word: must be the likeliest

Beside each task's own columns on the Hub, any of them takes `query, choices, gold`, and a task of
one answer `context, continuation`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Item:
    """Either one context and several answers, or several contexts of one answer."""

    contexts: tuple[str, ...]
    answers: tuple[str, ...]
    gold: int  # number of the right one

    @property
    def options(self) -> list[tuple[str, str]]:
        """Context and continuation of each choice."""
        count = max(len(self.contexts), len(self.answers))
        contexts = self.contexts * (count // len(self.contexts))
        answers = self.answers * (count // len(self.answers))
        return [(context, f" {answer}") for context, answer in zip(contexts, answers, strict=True)]

    @property
    def solved(self) -> str:
        """With its right answer, as an example for others."""
        return "".join(self.options[self.gold])

    @property
    def text(self) -> str:
        """All of it, the right answer where it belongs, to look for elsewhere."""
        choices = self.answers if len(self.answers) > 1 else self.contexts
        others = (text for number, text in enumerate(choices) if number != self.gold)
        return "\n".join((self.solved, *others))

    def after(self, examples: str) -> "Item":
        return Item(tuple(examples + c for c in self.contexts), self.answers, self.gold)


@dataclass(frozen=True)
class Task:
    title: str
    repo: str  # on the Hub
    config: str
    split: str
    examples: str  # the split that shots are taken from
    read: Callable[[Record], Item]
    ending: str = ""  # after a `query`
    normalised: bool = True  # does accuracy by length mean anything for it?


def read_item(task: Task | None, record: Any) -> Item:
    """The item of a record; raises ValueError, saying what is wrong, where it is none.

    Without a task it is one of the user's own.
    """
    if not isinstance(record, dict):
        raise ValueError("it is no object with columns")
    try:
        item = _read(task, record)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        wanted = "query, choices, gold" if task is None else f"those of {task.title}"
        has = ", ".join(map(repr, record)) or "none"
        why = f"{type(error).__name__} {error}".strip()
        raise ValueError(f"its columns are not {wanted} ({why}); it has {has}") from None
    if not all(isinstance(text, str) for text in item.contexts + item.answers):
        raise ValueError("context and answers must be texts")
    if not all(answer.strip() for answer in item.answers):
        raise ValueError("an answer is empty")
    if not 0 <= item.gold < len(item.options):
        raise ValueError(f"the right answer is number {item.gold} of {len(item.options)}, from 0")
    return item


def _read(task: Task | None, record: Record) -> Item:
    if "query" in record:
        query = record["query"]
        if task and task.ending:
            query = query.rstrip() + task.ending
        return _item(query, record["choices"], int(record["gold"]))
    if "continuation" in record:
        return _item(record["context"], [record["continuation"].strip()], 0)
    if task is None:
        raise KeyError("query")
    return task.read(record)


def _item(context: str, answers: list[str], gold: int) -> Item:
    return Item((context,), tuple(answers), gold)


def _hellaswag(record: Record) -> Item:
    if "ctx_a" in record:
        context = f"{record['ctx_a']} {record['ctx_b'].capitalize()}"
    else:
        context = record["ctx"]
    context = _without_marks(f"{record['activity_label']}: {context}")
    return _item(context, list(map(_without_marks, record["endings"])), int(record["label"]))


def _without_marks(text: str) -> str:
    """Of WikiHow's pages, which a part of HellaSwag is from."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _arc(record: Record) -> Item:
    choices = record["choices"]
    gold = list(choices["label"]).index(record["answerKey"].strip())
    return _item(f"Question: {record['question']}\nAnswer:", list(choices["text"]), gold)


def _piqa(record: Record) -> Item:
    answers = [record["sol1"], record["sol2"]]
    return _item(f"Question: {record['goal']}\nAnswer:", answers, int(record["label"]))


def _openbookqa(record: Record) -> Item:
    choices = record["choices"]
    gold = list(choices["label"]).index(record["answerKey"].strip())
    return _item(record["question_stem"], list(choices["text"]), gold)


def _boolq(record: Record) -> Item:
    gold = record["label"] if "label" in record else record["answer"]
    context = f"{record['passage']}\nQuestion: {record['question']}?\nAnswer:"
    return _item(context, ["no", "yes"], int(gold))


def _winogrande(record: Record) -> Item:
    before, _, rest = record["sentence"].partition("_")
    names = record["option1"], record["option2"]
    return Item(tuple(before + n for n in names), (rest.strip(),), int(record["answer"]) - 1)


def _lambada(record: Record) -> Item:
    context, _, word = record["text"].rpartition(" ")
    return _item(context, [word], 0)


ANSWER = "\nAnswer:"
TASKS = {
    "hellaswag": Task("HellaSwag", "Rowan/hellaswag", "", "validation", "train", _hellaswag),
    "arc_easy": Task(
        "ARC-Easy", "allenai/ai2_arc", "ARC-Easy", "test", "train", _arc, ending=ANSWER
    ),
    "arc_challenge": Task(
        "ARC-Challenge", "allenai/ai2_arc", "ARC-Challenge", "test", "train", _arc, ending=ANSWER
    ),
    "piqa": Task("PIQA", "baber/piqa", "", "validation", "train", _piqa, ending=ANSWER),
    "winogrande": Task(
        "WinoGrande",
        "allenai/winogrande",
        "winogrande_xl",
        "validation",
        "train",
        _winogrande,
        normalised=False,
    ),
    "lambada": Task(
        "LAMBADA", "EleutherAI/lambada_openai", "default", "test", "", _lambada, normalised=False
    ),
    "openbookqa": Task("OpenBookQA", "allenai/openbookqa", "main", "test", "train", _openbookqa),
    "boolq": Task(
        "BoolQ", "aps/super_glue", "boolq", "validation", "train", _boolq, normalised=False
    ),
}
