"""Evaluation tasks: their items, worded as lm-evaluation-harness words them, and their sources.

    record ──read_item──▶ Item: several texts, of which the model should find one the likeliest

    task           context                                     answers
    hellaswag      Canoeing: Two women … And they              four endings
    arc, piqa      Question: …\\nAnswer:                        two to five
    openbookqa     a beginning                                 four endings
    boolq          a passage\\nQuestion: …?\\nAnswer:            no, yes
    winogrande     the sentence up to one of two names (each)  the rest of it
    lambada        a passage without its last word             that word: must be the likeliest

Beside each task's own columns on the Hub, any of them takes `query, choices, gold`, and a task of
one answer `context, continuation`. Items come from named files, else from the Hub, which is asked
once:

    --files evals/hellaswag_val.jsonl   a known task, by the beginning of the file's name
    --files mine=questions.jsonl        a task of your own
    --tasks hellaswag arc_easy          the Hub's, kept in data/hub
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gnano.data.instructions.config import InstructionSource
from gnano.data.instructions.files import files_of
from gnano.data.instructions.reading import read_records
from gnano.evals.asked import Asked
from gnano.utils.paths import expanded

DOWNLOADS = Asked.downloads
Record = Mapping[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Item:
    """One context with several answers, or several contexts of one answer."""

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
        """The item with its right answer, as an example for others."""
        return "".join(self.options[self.gold])

    @property
    def text(self) -> str:
        """The solved item and the wrong answers, to be searched for elsewhere."""
        choices = self.answers if len(self.answers) > 1 else self.contexts
        others = (text for number, text in enumerate(choices) if number != self.gold)
        return "\n".join((self.solved, *others))

    def after(self, examples: str) -> "Item":
        """Return the item with these examples before its contexts."""
        return Item(tuple(examples + c for c in self.contexts), self.answers, self.gold)


@dataclass(frozen=True)
class Task:
    """A known task: how its records are read, and where the Hub has them."""

    title: str
    repo: str  # on the Hub
    read: Callable[[Record], Item]
    config: str = ""
    split: str = "validation"
    examples: str = "train"  # the split that shots are taken from
    ending: str = ""  # after a `query`
    normalised: bool = True  # whether accuracy by length means anything for it


@dataclass(frozen=True)
class Sheet:
    """The items of a task, ready to be evaluated."""

    task: str
    items: tuple[Item, ...]
    shots: int = 0  # solved examples before each

    @property
    def known(self) -> Task | None:
        return TASKS.get(self.task)

    @property
    def normalised(self) -> bool:
        """Whether the length of an answer means anything."""
        choices = any(len(item.options) > 1 for item in self.items)
        return choices and (self.known is None or self.known.normalised)

    @property
    def title(self) -> str:
        return self.known.title if self.known else self.task


def gather(
    tasks: Sequence[str],
    files: Sequence[str] = (),
    limit: int = 0,
    shots: int = 0,
    downloads: Path = DOWNLOADS,
    say: Say = lambda _: None,
) -> list[Sheet]:
    """Load the items of these tasks, and of those that the files belong to.

    `limit`: so many of each task, spread over all of them (0: all). `shots`: solved examples
    before each item, the first of the training split, or of the file itself. Raises ValueError or
    OSError, in a sentence, for what does not exist or is no item.
    """
    named = dict(map(task_and_path, files))
    names = dict.fromkeys([*tasks, *named])
    return [_load_task(name, named.get(name), limit, shots, downloads, say) for name in names]


def task_and_path(file: str) -> tuple[str, str]:
    """Split TASK=PATH, or a path whose name begins with its task, into task and path."""
    name, equals, path = file.partition("=")
    if equals and "/" not in name:
        return name, expanded(path)
    found = [task for task in TASKS if Path(file).name.startswith(task)]
    if not found:
        raise ValueError(
            f"{file} does not say which task its items are of; write it as TASK={file}, with one "
            f"of {', '.join(TASKS)} or a name of your own."
        )
    return found[0], file


def _load_task(
    name: str, path: str | None, limit: int, shots: int, downloads: Path, say: Say
) -> Sheet:
    task = TASKS.get(name)
    if task is None and path is None:
        raise ValueError(
            f"There is no task {name!r}; there are {', '.join(TASKS)}, or name a file of your own "
            f"items: --files {name}=PATH."
        )

    def read_split(split: str) -> list[Item]:
        if path is not None or task is None:
            paths = [path or ""]
        else:
            source = InstructionSource(kind="hub", repo=task.repo, config=task.config, split=split)
            paths = files_of(source, downloads, say)
        items: list[Item] = read_records(paths, partial(read_item, task), max_bad_share=0).records
        return items

    say(f"reading {name}")
    items = read_split(task.split if task else "")
    if shots:
        own = path is not None or task is None or not task.examples
        examples = items if own or task is None else read_split(task.examples)
        if len(examples) < shots + own:
            raise ValueError(f"{name} has {len(examples):,} items, too few for {shots} shots.")
        items = [_with_examples(item, examples, shots) for item in items]
    count = len(items)
    if limit and limit < count:
        items = [items[number * count // limit] for number in range(limit)]
    return Sheet(name, tuple(items), shots)


def _with_examples(item: Item, examples: Sequence[Item], shots: int) -> Item:
    """Put the first examples before the item, the item itself not among them."""
    others = [example for example in examples[: shots + 1] if example != item][:shots]
    return item.after("".join(f"{example.solved}\n\n" for example in others))


def read_item(task: Task | None, record: Any) -> Item:
    """Return the item of a record; raises ValueError, saying what is wrong, where it is none.

    Without a task it is one of the user's own.
    """
    if not isinstance(record, dict):
        raise ValueError("it is no object with columns")
    try:
        item = _parse(task, record)
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


def _parse(task: Task | None, record: Record) -> Item:
    if "query" in record:
        query = record["query"]
        if task and task.ending:
            query = query.rstrip() + task.ending
        return _item(query, record["choices"], record["gold"])
    if "continuation" in record:
        return _item(record["context"], [record["continuation"].strip()], 0)
    if task is None:
        raise KeyError("query")
    return task.read(record)


def _item(context: str, answers: Sequence[str], gold: Any) -> Item:
    return Item((context,), tuple(answers), int(gold))


def _labeled_choices(context: str, record: Record) -> Item:
    choices, key = record["choices"], record["answerKey"].strip()
    return _item(context, choices["text"], list(choices["label"]).index(key))


def _hellaswag(record: Record) -> Item:
    if "ctx_a" in record:
        context = f"{record['ctx_a']} {record['ctx_b'].capitalize()}"
    else:
        context = record["ctx"]
    context = _without_marks(f"{record['activity_label']}: {context}")
    return _item(context, list(map(_without_marks, record["endings"])), record["label"])


def _without_marks(text: str) -> str:
    """Remove the marks of WikiHow's pages, which a part of HellaSwag is from."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _arc(record: Record) -> Item:
    return _labeled_choices(f"Question: {record['question']}\nAnswer:", record)


def _piqa(record: Record) -> Item:
    answers = record["sol1"], record["sol2"]
    return _item(f"Question: {record['goal']}\nAnswer:", answers, record["label"])


def _openbookqa(record: Record) -> Item:
    return _labeled_choices(record["question_stem"], record)


def _boolq(record: Record) -> Item:
    gold = record["label"] if "label" in record else record["answer"]
    context = f"{record['passage']}\nQuestion: {record['question']}?\nAnswer:"
    return _item(context, ("no", "yes"), gold)


def _winogrande(record: Record) -> Item:
    before, _, rest = record["sentence"].partition("_")
    names = record["option1"], record["option2"]
    return Item(tuple(before + n for n in names), (rest.strip(),), int(record["answer"]) - 1)


def _lambada(record: Record) -> Item:
    context, _, word = record["text"].rpartition(" ")
    return _item(context, (word,), 0)


_arc_task = partial(Task, repo="allenai/ai2_arc", read=_arc, split="test", ending="\nAnswer:")
TASKS = {
    "hellaswag": Task("HellaSwag", "Rowan/hellaswag", _hellaswag),
    "arc_easy": _arc_task("ARC-Easy", config="ARC-Easy"),
    "arc_challenge": _arc_task("ARC-Challenge", config="ARC-Challenge"),
    "piqa": Task("PIQA", "baber/piqa", _piqa, ending="\nAnswer:"),
    "winogrande": Task(
        "WinoGrande", "allenai/winogrande", _winogrande, "winogrande_xl", normalised=False
    ),
    "lambada": Task(
        "LAMBADA", "EleutherAI/lambada_openai", _lambada, "default", "test", "", normalised=False
    ),
    "openbookqa": Task("OpenBookQA", "allenai/openbookqa", _openbookqa, "main", "test"),
    "boolq": Task("BoolQ", "aps/super_glue", _boolq, "boolq", normalised=False),
}
