r"""Adapter to lm-evaluation-harness: evaluates a checkpoint on the harness's tasks or on `--files`.

A checkpoint is a Hugging Face model, so the harness also runs on it directly:

    lm-eval run --model hf --tasks hellaswag --batch_size 32 \
        --model_args pretrained=runs/1b/checkpoints/step-00050000,add_bos_token=True

The harness downloads its own tasks.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from gnano.checkpoint.run_checkpoints import find_checkpoint
from gnano.config.inference_config import EvalConfig, LoadConfig
from gnano.evals.eval_tasks import TASKS, TaskItems, load_tasks
from gnano.evals.model_adapter import TORCH_DTYPE_NAMES, is_gnano_model, training_tokens
from gnano.evals.result_store import Accuracy, ModelResult, TaskScore
from gnano.utils.platform_support import require, resolve_device


def evaluate_with_lm_eval(
    path: Path,
    tasks: Sequence[str],
    config: EvalConfig,
    loading: LoadConfig,
    on_progress: Callable[[str], None] = lambda _: None,
) -> ModelResult:
    """Return the harness's scores.

    Raises ValueError if the harness is not installed or does not know a task.
    """
    require("lm_eval", "eval", "--harness needs lm-evaluation-harness")
    import lm_eval
    from lm_eval.tasks import TaskManager

    folder = find_checkpoint(path)
    if loading.threads:  # 0 keeps PyTorch's default, one per core
        torch.set_num_threads(loading.threads)
    started_at = time.monotonic()
    on_progress(f"lm-evaluation-harness: {', '.join(tasks)}")
    own = {one.task: one for one in load_tasks((), config.files, config.limit, config.shots)}
    foreign = [name for name in tasks if name not in own]
    manager = TaskManager(include_defaults=bool(foreign))  # finding them all takes seconds
    for name in foreign:
        if name not in manager.all_tasks:
            raise ValueError(
                f"lm-evaluation-harness has no task {name!r}; `lm-eval ls tasks` lists them."
            )
    arguments: dict[str, Any] = {
        "pretrained": str(folder),
        "dtype": TORCH_DTYPE_NAMES[loading.dtype],
    }
    if config.add_bos != "auto" or is_gnano_model(folder):
        arguments["add_bos_token"] = config.add_bos != "no"
    try:
        output = lm_eval.simple_evaluate(
            model="hf",
            model_args=arguments,
            tasks=[to_lm_eval_task(own[name]) if name in own else name for name in tasks],
            task_manager=manager,
            num_fewshot=config.shots or None,  # only for its own tasks
            limit=config.limit or None,
            batch_size=config.batch_size,
            device=resolve_device(loading.device),
            log_samples=False,
            bootstrap_iters=100,  # 0 would also disable the closed-form error of means
        )
    except AssertionError as error:  # how the harness rejects input, mostly without a message
        reason = str(error) or "an answer is longer than the context of the model"
        raise ValueError(
            f"lm-evaluation-harness cannot evaluate {folder.name}: {reason}."
        ) from None
    scores = []
    for name, count in output["n-samples"].items():
        found = output["results"][name]
        acc, acc_norm = (
            Accuracy(float(found[f"{metric},none"]), float(found[f"{metric}_stderr,none"]))
            if f"{metric},none" in found
            else None
            for metric in ("acc", "acc_norm")
        )
        if acc is None:
            raise ValueError(
                f"lm-evaluation-harness reports no accuracy for {name}; call lm-eval directly."
            )
        score = TaskScore(
            task=name,
            title=TASKS[name].title if name in TASKS else name,
            items=count["effective"],
            shots=config.shots,
            chance=None,
            acc=acc,
            acc_norm=acc_norm,
            perplexity=found.get("perplexity,none"),
        )
        scores.append(score)
    return ModelResult(
        name=f"{path.name} by lm-evaluation-harness {lm_eval.__version__}",
        folder=str(folder),
        parameters=int(output["config"]["model_num_parameters"]),
        tokens=training_tokens(folder),
        scores=tuple(scores),
        settings={"harness": lm_eval.__version__, "tasks": list(tasks)},
        seconds=time.monotonic() - started_at,
    )


def to_lm_eval_task(task: TaskItems) -> Any:
    """Return gnano's items as a task of the harness."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    rows = [
        {"contexts": list(item.contexts), "answers": list(item.answers), "gold": item.gold}
        for item in task.items
    ]
    data = {"test": Dataset.from_list(rows)}
    acc, acc_norm = (
        {"metric": metric, "aggregation": "mean", "higher_is_better": True}
        for metric in ("acc", "acc_norm")
    )
    config: dict[str, Any] = {
        "task": task.task,
        "custom_dataset": lambda **_: data,
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": lambda row: row["contexts"][0],
        "doc_to_choice": lambda row: row["answers"],
        "doc_to_target": lambda row: row["gold"],
        "metric_list": [acc, acc_norm],
        "num_fewshot": 0,
    }
    if len(task.items[0].choices) == 1:
        perplexity = dict.fromkeys(("metric", "aggregation"), "perplexity")
        config |= {
            "output_type": "loglikelihood",
            "doc_to_choice": None,
            "doc_to_target": lambda row: f" {row['answers'][0]}",
            "metric_list": [acc, {**perplexity, "higher_is_better": False}],
        }
    elif len(task.items[0].contexts) > 1:  # in the harness's form the contexts are the choices
        config |= {
            "doc_to_text": lambda row: row["gold"],
            "doc_to_choice": lambda row: row["contexts"],
            "doc_to_target": lambda row: row["answers"][0],
            "metric_list": [acc],
        }
    return ConfigurableTask(config=config)
