"""Fine-tune a model on instructions: from one that continues texts to one that answers.

The base is a run (its newest checkpoint), a checkpoint, or a Hugging Face folder of a Llama. The
model takes its shape and its tokenizer from the base; of the recipe's [model] only the dropout
counts. At the end both models answer held-out questions, side by side in OUT/answers.md.

Stopped or killed, the same command resumes and gives the same weights, on a CPU bit for bit.

command examples:
  gnano sft 1b-sft --from runs/1b                        Dolly-15k, three epochs
  gnano sft 1b-sft --from runs/1b --files mine.jsonl     your records, in any known format
  gnano sft 1b-sft --from runs/1b --train.lora.rank 16 --train.schedule.peak 2e-4
  gnano sft 1b-sft --from runs/1b --train.early-stopping-patience 3     stop when it stops improving
  torchrun --standalone --nproc-per-node 2 -m gnano sft 1b-sft --from runs/1b
"""

from gnano.cli.args import parse_finetune_recipe


def main(argv: list[str]) -> int | None:
    """Run the fine-tuning, and compare the model with its base."""
    recipe, options = parse_finetune_recipe(
        "sft",
        __doc__,
        argv,
        answers=(int, 24, "held-out questions that base and tuned model answer; 0: none"),
        answer_tokens=(int, 128, "maximum tokens per answer"),
    )
    from gnano.reporting.run_report import finetune

    result, _ = finetune(recipe, options.out, options.allow, options.answers, options.answer_tokens)
    return result.stopped_by
