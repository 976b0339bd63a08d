"""Adapter to lm-evaluation-harness: the same checkpoint, or the same items, measured by it.

A checkpoint is a Hugging Face model, so that lm-evaluation-harness runs on it as it is:

    lm-eval run --model hf --tasks hellaswag --batch_size 32 \\
        --model_args pretrained=runs/1b/checkpoints/step-00050000,add_bos_token=True

Here it is called with its own tasks, which it downloads, or with the items of `--files`.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gnano.evals.asked import Asked
from gnano.evals.evaluation import Accuracy, Evaluation, Score
from gnano.evals.gathering import TASKS, Sheet, gather
from gnano.evals.subject import DTYPES, is_ours, trained_on
from gnano.infer.loading import Loading
from gnano.model.devices import device_called
from gnano.train.saving.folders import find_checkpoint
from gnano.utils.openmp import use_threads

NEEDED = "lm-evaluation-harness is asked by --harness: pip install 'auto-g-nano[eval]'."


def measure_by_harness(
    path: Path,
    tasks: Sequence[str],
    asked: Asked,
    loading: Loading,
    show: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Return the harness's scores.

    Raises ValueError where it is not installed, or does not know a task.
    """
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise ValueError(NEEDED) from None
    folder = find_checkpoint(path)
    use_threads(loading.threads)
    began = time.monotonic()
    show(f"lm-evaluation-harness: {', '.join(tasks)}")
    sheets = {sheet.task: sheet for sheet in gather((), asked.files, asked.limit, asked.shots)}
    unknown = [name for name in tasks if name not in sheets]
    manager = TaskManager(include_defaults=bool(unknown))  # which takes seconds to find them all
    for name in unknown:
        if name not in manager.all_tasks:
            raise ValueError(f"lm-evaluation-harness has no task {name!r}: lm-eval ls tasks.")
    try:
        found = lm_eval.simple_evaluate(
            model="hf",
            model_args=_model_arguments(folder, asked, loading),
            tasks=[task_of(sheets[name]) if name in sheets else name for name in tasks],
            task_manager=manager,
            num_fewshot=asked.shots or None,  # of its own tasks; ours bring their examples along
            limit=asked.limit or None,
            batch_size=asked.batch,
            device=device_called(loading.device),
            log_samples=False,
            bootstrap_iters=100,  # of means the error is computed, else there is none
        )
    except AssertionError as error:  # its way to refuse, mostly without a message
        why = str(error) or "an answer is longer than the context of the model"
        raise ValueError(f"lm-evaluation-harness cannot ask {folder.name}: {why}.") from None
    counts = found["n-samples"]
    return Evaluation(
        name=f"{path.name} by lm-evaluation-harness {lm_eval.__version__}",
        folder=str(folder),
        parameters=int(found["config"]["model_num_parameters"]),
        tokens=trained_on(folder),
        scores=tuple(
            _score(name, found["results"][name], counts[name]["effective"], asked.shots)
            for name in counts
        ),
        settings={"harness": lm_eval.__version__, "tasks": list(tasks)},
        seconds=time.monotonic() - began,
    )


def _model_arguments(folder: Path, asked: Asked, loading: Loading) -> dict[str, Any]:
    arguments: dict[str, Any] = {"pretrained": str(folder), "dtype": DTYPES[loading.dtype]}
    if asked.start != "auto":
        arguments["add_bos_token"] = asked.start == "yes"
    elif is_ours(folder):
        arguments["add_bos_token"] = True
    return arguments


def task_of(sheet: Sheet) -> Any:
    """Return our items as a task of the harness."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    rows = [
        {"contexts": list(item.contexts), "answers": list(item.answers), "gold": item.gold}
        for item in sheet.items
    ]
    data = {"test": Dataset.from_list(rows)}
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
    elif len(sheet.items[0].contexts) > 1:  # its form of it: the choices are the contexts
        config |= {
            "doc_to_text": lambda row: row["gold"],
            "doc_to_choice": lambda row: row["contexts"],
            "doc_to_target": lambda row: row["answers"][0],
            "metric_list": [_mean("acc")],
        }
    return ConfigurableTask(config=config)


def _mean(metric: str) -> dict[str, Any]:
    return {"metric": metric, "aggregation": "mean", "higher_is_better": True}


def _score(name: str, found: dict[str, Any], items: int, shots: int) -> Score:
    """Return the accuracies and the perplexity of its result of a task."""

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
