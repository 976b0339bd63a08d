"""Evaluation tasks: their items, worded as lm-evaluation-harness words them, and their sources.

    record ──read_item──▶ Item: several texts, of which the model should find one the likeliest

    task           context                                     answers
    hellaswag      Canoeing: Two women … And they              four endings
    arc, piqa      Question: …\nAnswer:                        two to five
    openbookqa     a beginning                                 four endings
    boolq          a passage\nQuestion: …?\nAnswer:            no, yes
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

from gnano.config.data_config import InstructionSource
from gnano.config.eval_config import EvalConfig
from gnano.data.sft.record_loading import read_record_files
from gnano.data.source_files import resolve_source_files
from gnano.utils.text import expand_path

DEFAULT_CACHE_DIR = EvalConfig.cache_dir
Record = Mapping[str, Any]
Log = Callable[[str], None]


@dataclass(frozen=True)
class EvalItem:
    """One context with several answers, or several contexts of one answer."""

    contexts: tuple[str, ...]
    answers: tuple[str, ...]
    gold: int  # number of the right one

    @property
    def choices(self) -> list[tuple[str, str]]:
        """Context and continuation of each choice."""
        count = max(len(self.contexts), len(self.answers))
        contexts = self.contexts * (count // len(self.contexts))
        answers = self.answers * (count // len(self.answers))
        return [(context, f" {answer}") for context, answer in zip(contexts, answers, strict=True)]

    @property
    def solved_text(self) -> str:
        """The item with its right answer, as an example for others."""
        return "".join(self.choices[self.gold])

    @property
    def full_text(self) -> str:
        """The solved item and the wrong answers, to be searched for elsewhere."""
        choices = self.answers if len(self.answers) > 1 else self.contexts
        others = (text for number, text in enumerate(choices) if number != self.gold)
        return "\n".join((self.solved_text, *others))

    def with_prefix(self, prefix: str) -> "EvalItem":
        """Return the item with these examples before its contexts."""
        return EvalItem(tuple(prefix + c for c in self.contexts), self.answers, self.gold)


@dataclass(frozen=True)
class TaskSpec:
    """A known task: how its records are read, and where the Hub has them."""

    title: str
    repo: str  # on the Hub
    parse: Callable[[Record], EvalItem]
    config: str = ""
    split: str = "validation"
    fewshot_split: str = "train"  # the split that shots are taken from
    query_suffix: str = ""  # after a `query`
    has_acc_norm: bool = True  # whether accuracy by length means anything for it


@dataclass(frozen=True)
class TaskItems:
    """The items of a task, ready to be evaluated."""

    task: str
    items: tuple[EvalItem, ...]
    shots: int = 0  # solved examples before each

    @property
    def spec(self) -> TaskSpec | None:
        return TASKS.get(self.task)

    @property
    def has_acc_norm(self) -> bool:
        """Whether the length of an answer means anything."""
        choices = any(len(item.choices) > 1 for item in self.items)
        return choices and (self.spec is None or self.spec.has_acc_norm)

    @property
    def title(self) -> str:
        return self.spec.title if self.spec else self.task


def load_tasks(
    tasks: Sequence[str],
    files: Sequence[str] = (),
    limit: int = 0,
    shots: int = 0,
    cache_dir: Path = DEFAULT_CACHE_DIR,
    on_progress: Log = lambda _: None,
) -> list[TaskItems]:
    """Load the items of these tasks, and of those that the files belong to.

    `limit`: so many of each task, spread over all of them (0: all). `shots`: solved examples
    before each item, the first of the training split, or of the file itself. Raises ValueError or
    OSError, in a sentence, for what does not exist or is no item.
    """
    named = dict(map(parse_task_file, files))
    names = dict.fromkeys([*tasks, *named])
    return [
        _load_task(name, named.get(name), limit, shots, cache_dir, on_progress) for name in names
    ]


def parse_task_file(file: str) -> tuple[str, str]:
    """Split TASK=PATH, or a path whose name begins with its task, into task and path."""
    name, equals, path = file.partition("=")
    if equals and "/" not in name:
        return name, expand_path(path)
    found = [task for task in TASKS if Path(file).name.startswith(task)]
    if not found:
        raise ValueError(
            f"{file} does not say which task its items are of; write it as TASK={file}, with one "
            f"of {', '.join(TASKS)} or a name of your own."
        )
    return found[0], file


def _load_task(
    name: str, path: str | None, limit: int, shots: int, cache_dir: Path, on_progress: Log
) -> TaskItems:
    task = TASKS.get(name)
    if task is None and path is None:
        raise ValueError(
            f"There is no task {name!r}; there are {', '.join(TASKS)}, or name a file of your own "
            f"items: --files {name}=PATH."
        )

    def read_split(split: str) -> list[EvalItem]:
        if path is not None or task is None:
            paths = [path or ""]
        else:
            source = InstructionSource(kind="hub", repo=task.repo, config=task.config, split=split)
            paths = resolve_source_files(source, cache_dir, on_progress)
        items: list[EvalItem] = read_record_files(
            paths, partial(parse_item, task), max_bad_share=0
        ).records
        return items

    on_progress(f"reading {name}")
    items = read_split(task.split if task else "")
    if shots:
        own = path is not None or task is None or not task.fewshot_split
        examples = items if own or task is None else read_split(task.fewshot_split)
        if len(examples) < shots + own:
            raise ValueError(f"{name} has {len(examples):,} items, too few for {shots} shots.")
        items = [_add_fewshot_examples(item, examples, shots) for item in items]
    count = len(items)
    if limit and limit < count:
        items = [items[number * count // limit] for number in range(limit)]
    return TaskItems(name, tuple(items), shots)


def _add_fewshot_examples(item: EvalItem, examples: Sequence[EvalItem], shots: int) -> EvalItem:
    """Put the first examples before the item, the item itself not among them."""
    others = [example for example in examples[: shots + 1] if example != item][:shots]
    return item.with_prefix("".join(f"{example.solved_text}\n\n" for example in others))


def parse_item(task: TaskSpec | None, record: Any) -> EvalItem:
    """Return the item of a record; raises ValueError, saying what is wrong, where it is none.

    Without a task it is one of the user's own.
    """
    if not isinstance(record, dict):
        raise ValueError("it is no object with columns")
    try:
        item = _parse_record(task, record)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        wanted = "query, choices, gold" if task is None else f"those of {task.title}"
        has = ", ".join(map(repr, record)) or "none"
        why = f"{type(error).__name__} {error}".strip()
        raise ValueError(f"its columns are not {wanted} ({why}); it has {has}") from None
    if not all(isinstance(text, str) for text in item.contexts + item.answers):
        raise ValueError("context and answers must be texts")
    if not all(answer.strip() for answer in item.answers):
        raise ValueError("an answer is empty")
    if not 0 <= item.gold < len(item.choices):
        raise ValueError(f"the right answer is number {item.gold} of {len(item.choices)}, from 0")
    return item


def _parse_record(task: TaskSpec | None, record: Record) -> EvalItem:
    if "query" in record:
        query = record["query"]
        if task and task.query_suffix:
            query = query.rstrip() + task.query_suffix
        return _make_item(query, record["choices"], record["gold"])
    if "continuation" in record:
        return _make_item(record["context"], [record["continuation"].strip()], 0)
    if task is None:
        raise KeyError("query")
    return task.parse(record)


def _make_item(context: str, answers: Sequence[str], gold: Any) -> EvalItem:
    return EvalItem((context,), tuple(answers), int(gold))


def _parse_labeled_choices(context: str, record: Record) -> EvalItem:
    choices, key = record["choices"], record["answerKey"].strip()
    return _make_item(context, choices["text"], list(choices["label"]).index(key))


def _parse_hellaswag(record: Record) -> EvalItem:
    if "ctx_a" in record:
        context = f"{record['ctx_a']} {record['ctx_b'].capitalize()}"
    else:
        context = record["ctx"]
    context = _strip_wikihow_marks(f"{record['activity_label']}: {context}")
    return _make_item(context, list(map(_strip_wikihow_marks, record["endings"])), record["label"])


def _strip_wikihow_marks(text: str) -> str:
    """Remove the marks of WikiHow's pages, which a part of HellaSwag is from."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _parse_arc(record: Record) -> EvalItem:
    return _parse_labeled_choices(f"Question: {record['question']}\nAnswer:", record)


def _parse_piqa(record: Record) -> EvalItem:
    answers = record["sol1"], record["sol2"]
    return _make_item(f"Question: {record['goal']}\nAnswer:", answers, record["label"])


def _parse_openbookqa(record: Record) -> EvalItem:
    return _parse_labeled_choices(record["question_stem"], record)


def _parse_boolq(record: Record) -> EvalItem:
    gold = record["label"] if "label" in record else record["answer"]
    context = f"{record['passage']}\nQuestion: {record['question']}?\nAnswer:"
    return _make_item(context, ("no", "yes"), gold)


def _parse_winogrande(record: Record) -> EvalItem:
    before, _, rest = record["sentence"].partition("_")
    names = record["option1"], record["option2"]
    return EvalItem(tuple(before + n for n in names), (rest.strip(),), int(record["answer"]) - 1)


def _parse_lambada(record: Record) -> EvalItem:
    context, _, word = record["text"].rpartition(" ")
    return _make_item(context, (word,), 0)


_make_arc_task = partial(
    TaskSpec, repo="allenai/ai2_arc", parse=_parse_arc, split="test", query_suffix="\nAnswer:"
)
TASKS = {
    "hellaswag": TaskSpec("HellaSwag", "Rowan/hellaswag", _parse_hellaswag),
    "arc_easy": _make_arc_task("ARC-Easy", config="ARC-Easy"),
    "arc_challenge": _make_arc_task("ARC-Challenge", config="ARC-Challenge"),
    "piqa": TaskSpec("PIQA", "baber/piqa", _parse_piqa, query_suffix="\nAnswer:"),
    "winogrande": TaskSpec(
        "WinoGrande", "allenai/winogrande", _parse_winogrande, "winogrande_xl", has_acc_norm=False
    ),
    "lambada": TaskSpec(
        "LAMBADA",
        "EleutherAI/lambada_openai",
        _parse_lambada,
        "default",
        "test",
        "",
        has_acc_norm=False,
    ),
    "openbookqa": TaskSpec("OpenBookQA", "allenai/openbookqa", _parse_openbookqa, "main", "test"),
    "boolq": TaskSpec("BoolQ", "aps/super_glue", _parse_boolq, "boolq", has_acc_norm=False),
}
