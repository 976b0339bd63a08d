"""What does the standard harness say of the same checkpoint, or of the same items?

A checkpoint is a Hugging Face model, so that lm-evaluation-harness runs on it as it is:

    lm-eval run --model hf --tasks hellaswag --batch_size 32 \\
        --model_args pretrained=runs/1b/checkpoints/step-00050000,add_bos_token=True

Here it is called for you, with its own tasks, which it downloads, or with the items of `--files`.
"""

import importlib
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from gnano.evals.asked import Asked
from gnano.evals.evaluation import Evaluation
from gnano.evals.gathering import Sheet, gather
from gnano.evals.items import TASKS
from gnano.evals.scores import Accuracy, Score
from gnano.evals.subject import DTYPES, is_ours, trained_on
from gnano.infer import Loading
from gnano.model.devices import device_called
from gnano.train import find_checkpoint
from gnano.utils.openmp import use_threads

NEEDED = "lm-evaluation-harness is asked by --harness: pip install 'auto-g-nano[eval]'."


def measure_by_harness(
    path: Path,
    tasks: Sequence[str],
    asked: Asked,
    loading: Loading,
    show: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Its scores. Raises ValueError where it is not installed, or does not know a task."""
    harness = _module("lm_eval")
    folder = find_checkpoint(path)
    use_threads(loading.threads)
    began = time.monotonic()
    show(f"lm-evaluation-harness: {', '.join(tasks)}")
    sheets = {sheet.task: sheet for sheet in gather((), asked.files, asked.limit, asked.shots)}
    known = known_tasks()
    for name in tasks:
        if name not in sheets and name not in known.all_tasks:
            raise ValueError(f"lm-evaluation-harness has no task {name!r}: lm-eval ls tasks.")
    try:
        found = harness.simple_evaluate(
            model="hf",
            model_args=_model_arguments(folder, asked, loading),
            tasks=[task_of(sheets[name]) if name in sheets else name for name in tasks],
            task_manager=known,
            num_fewshot=asked.shots or None,  # of its own tasks; ours bring their examples along
            limit=asked.limit or None,
            batch_size=asked.batch,
            device=device_called(loading.device),
            log_samples=False,
            bootstrap_iters=100,  # of means the error is computed, else it is not told at all
        )
    except AssertionError as error:  # its way to refuse, mostly without a word
        why = str(error) or "an answer is longer than the context of the model"
        raise ValueError(f"lm-evaluation-harness cannot ask {folder.name}: {why}.") from None
    counts = found["n-samples"]
    return Evaluation(
        name=f"{path.name} by lm-evaluation-harness {harness.__version__}",
        folder=str(folder),
        parameters=int(found["config"]["model_num_parameters"]),
        tokens=trained_on(folder),
        scores=tuple(
            _score(name, found["results"][name], counts[name]["effective"], asked.shots)
            for name in counts
        ),
        settings={"harness": harness.__version__, "tasks": list(tasks)},
        seconds=time.monotonic() - began,
    )


@cache
def known_tasks() -> Any:
    """The harness's own; it takes some seconds to find them all."""
    return _module("lm_eval.tasks").TaskManager()


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError(NEEDED) from None


def _model_arguments(folder: Path, asked: Asked, loading: Loading) -> dict[str, Any]:
    arguments: dict[str, Any] = {"pretrained": str(folder), "dtype": DTYPES[loading.dtype]}
    if asked.start != "auto":
        arguments["add_bos_token"] = asked.start == "yes"
    elif is_ours(folder):
        arguments["add_bos_token"] = True
    return arguments


def task_of(sheet: Sheet) -> Any:
    """One of the harness's, of our items."""
    rows = [
        {"contexts": list(item.contexts), "answers": list(item.answers), "gold": item.gold}
        for item in sheet.items
    ]
    data = {"test": _module("datasets").Dataset.from_list(rows)}
    config: dict[str, Any] = {
        "task": sheet.task,
        "custom_dataset": lambda **_: data,
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": lambda row: row["contexts"][0],
        "doc_to_choice": lambda row: row["answers"],
        "doc_to_target": lambda row: row["gold"],
        "metric_list": [_mean("acc"), _mean("acc_norm")],
        "num_fewshot": 0,
    }
    if len(sheet.items[0].options) == 1:
        config |= {
            "output_type": "loglikelihood",
            "doc_to_choice": None,
            "doc_to_target": lambda row: f" {row['answers'][0]}",
            "metric_list": [
                _mean("acc"),
                {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            ],
        }
    elif len(sheet.items[0].contexts) > 1:  # its form of it: the contexts are what is chosen from
        config |= {
            "doc_to_text": lambda row: row["gold"],
            "doc_to_choice": lambda row: row["contexts"],
            "doc_to_target": lambda row: row["answers"][0],
            "metric_list": [_mean("acc")],
        }
    return _module("lm_eval.api.task").ConfigurableTask(config=config)


def _mean(metric: str) -> dict[str, Any]:
    return {"metric": metric, "aggregation": "mean", "higher_is_better": True}


def _score(name: str, found: dict[str, Any], items: int, shots: int) -> Score:
    """What it tells of a task; other figures than ours stay out."""

    def accuracy(metric: str) -> Accuracy | None:
        if f"{metric},none" not in found:
            return None
        return Accuracy(float(found[f"{metric},none"]), float(found[f"{metric}_stderr,none"]))

    plain = accuracy("acc")
    if plain is None:
        raise ValueError(f"lm-evaluation-harness tells no accuracy of {name}; call it directly.")
    return Score(
        task=name,
        title=TASKS[name].title if name in TASKS else name,
        items=items,
        shots=shots,
        chance=None,
        acc=plain,
        acc_norm=accuracy("acc_norm"),
        perplexity=found.get("perplexity,none"),
    )
