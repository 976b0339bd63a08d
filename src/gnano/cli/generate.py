"""`gnano generate`: let a checkpoint continue texts."""

import sys
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gnano.cli.args import LoadArgs, SamplingArgs
from gnano.config.inference_config import LoadConfig, SamplingParams
from gnano.utils.terminal import echo
from gnano.utils.text import dump_json, read_stdin, read_text

if TYPE_CHECKING:
    from gnano.infer.engine import Completion, Engine


def generate(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    prompt: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    tokens: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 128,
    sampling: SamplingArgs = SamplingParams(),  # noqa: B008 frozen
    stop: tuple[str, ...] = (),
    samples: int = 1,
    file: Path | None = None,
    lines: bool = False,
    context_shift: bool = False,
    json_: Annotated[
        bool, tyro.conf.arg(name="json", help="One JSON document, with ids, reasons and speeds.")
    ] = False,
    logprobs: int | None = None,
    load_config: LoadArgs = LoadConfig(),  # noqa: B008 frozen
) -> None:
    """Continue texts with a run's newest checkpoint, or with any Llama folder like it.

    examples:
      gnano generate runs/demo "Once upon a time"
      gnano generate runs/demo "def main(" -n 200 --temperature 0.6 --top-k 40 --seed 1
      gnano generate runs/demo "Question:" --stop Question: --temperature 0
      gnano generate runs/demo "Once" "It was" --samples 4        several, side by side
      gnano generate runs/demo --file prompts.txt --lines --json  a prompt a line, for programs
      echo "The function returns" | gnano generate runs/demo

    Args:
        checkpoint: A run, a checkpoint, or a Hugging Face folder of a Llama model.
        prompt: The texts to continue; "" begins a new one. None: what comes through a pipe.
        tokens: Tokens to write at most.
        sampling: How tokens are drawn.
        stop: End before any of these strings.
        samples: Continuations of each prompt.
        file: A file with the prompt; - is standard input.
        lines: Each line of the file or pipe is a prompt of its own.
        slide: Where the context is full, forget the older half of it and go on.
        log_probs: With --json: each token's log-probability, and so many alternatives.
        loading: How the weights are kept.
    """
    from gnano.infer.continuous_batching import Request
    from gnano.infer.engine import Engine
    from gnano.utils.progress import StatusLine
    from gnano.utils.validation import Range, check_number

    check_number("samples", samples, Range(1))
    Request(
        prompt_ids=(), max_new_tokens=tokens, sampling=sampling, logprobs=logprobs
    )  # before the model
    if logprobs is not None and not json_:
        raise ValueError("Log-probabilities are told with --json: add it, or leave them out.")
    prompts = _read_prompts(prompt, file, lines)
    engine = Engine.load(checkpoint, **asdict(load_config))
    if json_ or samples > 1 or len(prompts) > 1:
        started, total = time.perf_counter(), len(prompts) * samples
        with closing(StatusLine()) as line:

            def show(done: int) -> None:
                if line.is_terminal:
                    line.update(f"{done} of {total} texts")

            found = engine.generate_batch(
                prompts, tokens, sampling, stop, samples, logprobs, context_shift, show
            )
        seconds = time.perf_counter() - started
        if json_:
            echo(
                dump_json(_completions_as_dict(engine, prompts, found, seconds), ensure_ascii=False)
            )
        else:
            _print_completions(prompts, found)
        return
    pieces = engine.stream_text(prompts[0], tokens, sampling, stop, context_shift)
    # after the first of them: a prompt that is refused is not to stand there like a text
    echo(prompts[0] + next(pieces, ""), end="")
    for piece in pieces:
        echo(piece, end="")
    echo("")


def _read_prompts(given: tuple[str, ...], file: Path | None, lines: bool) -> list[str]:
    if given:
        if file or lines:
            raise ValueError("Prompts come as arguments or from a file, not both: leave one out.")
        return list(given)
    if file and str(file) != "-":
        text, name = read_text(file), str(file)
    elif file or not sys.stdin.isatty():
        text, name = read_stdin(), "standard input"
    else:
        raise ValueError('There is no prompt: give one ("" begins a new text), a file, or a pipe.')
    if not lines and text:
        return [text.removesuffix("\n")]
    if not (found := [line for line in text.split("\n") if line.strip()]):
        raise ValueError(f"There is no prompt in {name}: it has no line with text.")
    return found


def _print_completions(prompts: list[str], found: "list[list[Completion]]") -> None:
    texts = [f"{p}{one.text}" for p, group in zip(prompts, found, strict=True) for one in group]
    for number, text in enumerate(texts, 1):
        echo(f"── {number} of {len(texts)} " + "─" * 40)
        echo(text)


def _completions_as_dict(
    engine: "Engine", prompts: list[str], found: "list[list[Completion]]", seconds: float
) -> dict[str, Any]:
    def text_of(token: int) -> str:
        return engine.tokenizer.decode([token])

    completions: list[dict[str, Any]] = []
    for prompt, one in ((p, one) for p, group in zip(prompts, found, strict=True) for one in group):
        entry: dict[str, Any] = {
            "prompt": prompt,
            "text": one.text,
            "reason": one.finish_reason,
            "prompt_tokens": one.prompt_tokens,
            "ids": one.token_ids,
        }
        if one.logprobs:
            entry["log_probs"] = [
                {
                    "token": text_of(item.token_id),
                    "logprob": item.logprob,
                    "top": [[text_of(token), value] for token, value in item.top_logprobs],
                }
                for item in one.logprobs
            ]
        completions.append(entry)
    tokens = sum(len(one["ids"]) for one in completions)
    return {
        "completions": completions,
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "tokens_per_s": round(tokens / seconds, 1),
    }
