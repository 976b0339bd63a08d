"""`gnano sft`: tune a base model to follow instructions."""

from pathlib import Path

from gnano.cli.args import parse_finetune_recipe

DESCRIPTION = """\
Tune a model on instructions: from one that continues texts to one that answers.

The base is a run (its newest checkpoint), a checkpoint, or a Hugging Face folder of a Llama; the
model has its shape and its tokenizer, whatever the recipe's [model] says, but for the dropout.
At the end both answer questions that were held out, side by side in OUT/answers.md.

Stopped or killed, the same command goes on and gives the same weights, on a CPU bit for bit.

examples:
  gnano sft 1b-sft --from runs/1b                        Dolly-15k, three epochs
  gnano sft 1b-sft --from runs/1b --files mine.jsonl     records of yours, of any known form
  gnano sft 1b-sft --from runs/1b --train.lora.rank 16 --train.schedule.peak 2e-4
  gnano sft 1b-sft --from runs/1b --train.early_stopping_patience 3     end early, when it gets no better
  torchrun --standalone --nproc-per-node 2 -m gnano sft 1b-sft --from runs/1b
"""


def main(argv: list[str]) -> int:
    answers = (int, 24, "held-out questions that base and tuned model answer; 0: none")
    tokens = (int, 128, "tokens of each such answer at most")
    recipe, own = parse_finetune_recipe(
        "sft", DESCRIPTION, argv, answers=answers, answer_tokens=tokens
    )
    from gnano.reporting.finetune import finetune

    run = own.out or Path("runs") / Path(argv[0]).stem
    result, _ = finetune(recipe, run, own.allow, own.answers, own.answer_tokens)
    return 128 + result.stopped_by if result.stopped_by else 0
