"""Evaluation tasks: their items, worded as in lm-evaluation-harness, and their sources.

    record ──parse_item──▶ EvalItem: several choices, of which the gold one should be the likeliest

`tasks.toml` describes the known tasks. Besides its own columns on the Hub, every task accepts
`query, choices, gold`, and a task with one answer `context, continuation`. Items come from files,
or from the Hub, downloaded once:

    --files evals/hellaswag_val.jsonl   a known task, recognized by the start of the file name
    --files mine=questions.jsonl        a custom task
    --tasks hellaswag arc_easy          from the Hub, cached in data/hub
"""

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, Undefined

from gnano.config.data_config import InstructionSource
from gnano.config.inference_config import EvalConfig
from gnano.data.sft.record_loading import read_record_files
from gnano.data.source_files import resolve_source_files
from gnano.utils.files import expand_path


@dataclass(frozen=True)
class EvalItem:
    """One context with several answers, or several contexts with one answer."""

    contexts: tuple[str, ...]
    answers: tuple[str, ...]
    gold: int  # index of the right choice

    @property
    def choices(self) -> list[tuple[str, str]]:
        """Context and continuation of each choice."""
        count = max(len(self.contexts), len(self.answers))
        contexts = self.contexts * (count // len(self.contexts))
        answers = self.answers * (count // len(self.answers))
        return [(context, f" {answer}") for context, answer in zip(contexts, answers, strict=True)]

    @property
    def solved_text(self) -> str:
        """The item with its right answer, used as a few-shot example."""
        return "".join(self.choices[self.gold])

    @property
    def full_text(self) -> str:
        """The solved item and the wrong answers, used to search for contamination."""
        choices = self.answers if len(self.answers) > 1 else self.contexts
        wrong = (text for number, text in enumerate(choices) if number != self.gold)
        return "\n".join((self.solved_text, *wrong))


@dataclass(frozen=True)
class TaskSpec:
    """A known task: its parser and its location on the Hub."""

    title: str
    repo: str
    contexts: str  # Jinja expressions of the columns of a record
    answers: str
    gold: str
    config: str = ""
    split: str = "validation"
    fewshot_split: str = "train"  # split of the few-shot examples
    query_suffix: str = ""  # appended to a `query`
    has_acc_norm: bool = True  # whether normalizing by answer length is meaningful

    def parse(self, record: dict[str, Any]) -> EvalItem:
        """Return the item of a record with the task's own columns."""
        contexts, answers, gold = (
            _compile_expression(text)(record, record=record)
            for text in (self.contexts, self.answers, self.gold)
        )
        return EvalItem(tuple(contexts), tuple(answers), int(gold))


@dataclass(frozen=True)
class TaskItems:
    """The items of a task, ready to be evaluated."""

    task: str
    items: tuple[EvalItem, ...]
    shots: int = 0  # solved examples before each item

    @property
    def spec(self) -> TaskSpec | None:
        """The known task of this name; None for a custom task."""
        return TASKS.get(self.task)

    @property
    def has_acc_norm(self) -> bool:
        """Whether normalizing by answer length is meaningful."""
        has_choices = any(len(item.choices) > 1 for item in self.items)
        return has_choices and (self.spec is None or self.spec.has_acc_norm)

    @property
    def title(self) -> str:
        """Display name."""
        return self.spec.title if self.spec else self.task


def load_tasks(
    tasks: Sequence[str],
    files: Sequence[str] = (),
    limit: int = 0,
    shots: int = 0,
    cache_dir: Path = EvalConfig.cache_dir,
    on_progress: Callable[[str], None] = lambda _: None,
) -> list[TaskItems]:
    """Load the items of the named tasks and of the tasks of the files.

    `limit` items (0: all) are taken from each task, evenly spaced. `shots` solved examples precede
    each item: the first of the training split, or of the file itself. Raises ValueError or OSError
    if a task or file does not exist or a record is not a valid item.
    """
    paths = dict(map(parse_task_file, files))
    loaded = []
    for name in dict.fromkeys([*tasks, *paths]):
        task, path = TASKS.get(name), paths.get(name)
        if task is None and path is None:
            raise ValueError(
                f"There is no task {name!r}; there are {', '.join(TASKS)}. For a custom task name "
                f"the file of its items: --files {name}=PATH."
            )
        on_progress(f"reading {name}")
        read = partial(_read_items, task, path, cache_dir, on_progress)
        items = read(task.split if task else "")
        if shots:
            is_own_split = path is not None or task is None or not task.fewshot_split
            examples = items if is_own_split or task is None else read(task.fewshot_split)
            if len(examples) < shots + is_own_split:
                raise ValueError(f"{name} has {len(examples):,} items, too few for {shots} shots.")
            items = [_add_fewshot_examples(item, examples, shots) for item in items]
        count = len(items)
        if limit and limit < count:
            items = [items[number * count // limit] for number in range(limit)]
        loaded.append(TaskItems(name, tuple(items), shots))
    return loaded


def _read_items(
    task: TaskSpec | None,
    path: str | None,
    cache_dir: Path,
    on_progress: Callable[[str], None],
    split: str,
) -> list[EvalItem]:
    """Read the items of a file, or of a known task's split on the Hub."""
    if path is not None or task is None:
        paths = [path or ""]
    else:
        source = InstructionSource(kind="hub", repo=task.repo, config=task.config, split=split)
        paths = resolve_source_files(source, cache_dir, on_progress)
    return read_record_files(paths, partial(parse_item, task), max_bad_share=0).records


def _add_fewshot_examples(item: EvalItem, examples: Sequence[EvalItem], shots: int) -> EvalItem:
    """Prepend the first examples, skipping the item itself."""
    others = [example for example in examples[: shots + 1] if example != item][:shots]
    prefix = "".join(f"{example.solved_text}\n\n" for example in others)
    return replace(item, contexts=tuple(prefix + context for context in item.contexts))


def parse_task_file(file: str) -> tuple[str, str]:
    """Split TASK=PATH, or a path whose file name begins with its task, into task and path."""
    name, equals, path = file.partition("=")
    if equals and "/" not in name:
        return name, expand_path(path)
    known = [task for task in TASKS if Path(file).name.startswith(task)]
    if not known:
        raise ValueError(
            f"{file} does not begin with the name of its task; write it as TASK={file}, with one "
            f"of {', '.join(TASKS)} or the name of a custom task."
        )
    return known[0], file


def parse_item(task: TaskSpec | None, record: Any) -> EvalItem:
    """Return the item of a record; `task` is None for a custom task.

    Raises ValueError with the reason if the record is not a valid item.
    """
    if not isinstance(record, dict):
        raise ValueError("it is not an object with columns")
    try:
        if "query" in record:
            query = record["query"]
            if task and task.query_suffix:
                query = query.rstrip() + task.query_suffix
            item = _make_item(query, record["choices"], record["gold"])
        elif "continuation" in record:
            item = _make_item(record["context"], [record["continuation"].strip()], 0)
        elif task is None:
            raise KeyError("query")
        else:
            item = task.parse(record)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        expected = "query, choices, gold" if task is None else f"those of {task.title}"
        present = ", ".join(map(repr, record)) or "none"
        reason = f"{type(error).__name__} {error}".strip()
        raise ValueError(f"its columns are not {expected} ({reason}); it has {present}") from None
    if not all(isinstance(text, str) for text in item.contexts + item.answers):
        raise ValueError("context and answers must be strings")
    if not (item.answers and all(answer.strip() for answer in item.answers)):
        raise ValueError("an answer is empty")
    if not 0 <= item.gold < len(item.choices):
        raise ValueError(f"the right answer is number {item.gold} of {len(item.choices)}, from 0")
    return item


def _make_item(context: str, answers: Sequence[str], gold: Any) -> EvalItem:
    return EvalItem((context,), tuple(answers), int(gold))


def _strip_marks(text: str, before: str = "") -> str:
    """Remove the marks of WikiHow pages, the source of a part of HellaSwag, from a joined text."""
    text = re.sub(r"\[.*?\]", "", f"{before}{text}".strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


class _MissingColumn(Undefined):
    def __init__(self, name: str, obj: Any = MappingProxyType({})) -> None:
        if isinstance(obj, Mapping):
            raise KeyError(name)
        raise AttributeError(f"{type(obj).__name__!r} object has no attribute {name!r}")


_ENVIRONMENT = Environment(undefined=_MissingColumn)
_ENVIRONMENT.globals |= {"int": int, "list": list, "map": map, "strip_marks": _strip_marks}
_compile_expression: Callable[[str], Callable[..., Any]] = cache(_ENVIRONMENT.compile_expression)
_SPECS = tomllib.loads(Path(__file__).with_name("tasks.toml").read_text("utf-8"))
TASKS = {name: TaskSpec(**spec) for name, spec in _SPECS.items()}
