"""`gnano eval`: how good a checkpoint is."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import tyro

from gnano.cli.arguments import Asking, Keeping
from gnano.evals.asked import Asked
from gnano.infer.loading import Loading
from gnano.utils.terminal import echo, note


def eval(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    asked: Asking = Asked(),  # noqa: B008 frozen
    harness: tuple[str, ...] = (),
    out: Path | None = None,
    json_: Annotated[bool, tyro.conf.arg(name="json", help="Print JSON, no table.")] = False,
    loading: Keeping = Loading(),  # noqa: B008 frozen
) -> None:
    """Measure a checkpoint: bits per byte of held-out text, and the accuracy of known tasks.

    examples:
      gnano eval runs/1b                                     all eight tasks, from the Hub
      gnano eval runs/1b --tasks hellaswag arc_easy --limit 1000
      gnano eval runs/demo --tasks none                      held-out text alone, no download
      gnano eval runs/1b --files evals/*.jsonl               local items: TASK….jsonl, or TASK=PATH
      gnano eval runs/1b --tasks arc_challenge --shots 25
      gnano eval runs/1b --tasks hellaswag --overlap         which items were in the training data?
      gnano eval ~/SmolLM2-1.7B --tasks none --text book.txt
      gnano eval runs/1b --harness hellaswag winogrande      by lm-evaluation-harness

    tasks: hellaswag, arc_easy, arc_challenge, piqa, winogrande, lambada, openbookqa, boolq, as
    lm-evaluation-harness words them; of your own with --files mine=PATH, a line each
    {"query": …, "choices": […], "gold": 0}.

    Args:
        checkpoint: A run, a checkpoint, or the Hugging Face folder of any causal model.
        asked: What is measured.
        harness: Tasks that lm-evaluation-harness measures instead, on --files' items if any.
        out: The JSON file; by default in the run, or below evals/.
        loading: How the weights are kept.
    """
    from gnano.evals.evaluation import evaluate, write_evaluation
    from gnano.evals.harness import measure_by_harness
    from gnano.evals.saved import result_path
    from gnano.evals.subject import open_subject
    from gnano.live import LiveLine

    with closing(LiveLine()) as line:
        if harness:
            found = measure_by_harness(checkpoint, harness, asked, loading, line.show)
        else:
            subject = open_subject(checkpoint, loading, asked.start)
            found = evaluate(subject, asked, line.show, line.note)
    path = out or result_path(found)
    try:
        write_evaluation(found, path)
    finally:  # where the file cannot be written, the result is not lost
        echo(found.json() if json_ else found.table())
    note(f"\n{path}")
