"""Fine-tune a model on preferred and rejected answers (DPO, https://arxiv.org/abs/2305.18290).

Of two answers to a question, the chosen one becomes more likely and the rejected one less, close to
the base model.

The base is a model that `gnano sft` has tuned. Stopped or killed, the same command resumes and
gives the same weights, on a CPU bit for bit.

command examples:
  gnano dpo 1b-dpo --from runs/1b-sft
  gnano dpo 1b-dpo --from runs/1b-sft --files mine.jsonl --train.dpo-beta 0.2
  gnano dpo 1b-dpo --from runs/1b-sft --train.lora.rank 16 --train.schedule.peak 5e-6
"""

from gnano.cli.args import parse_finetune_recipe


def main(argv: list[str]) -> int | None:
    """Run the fine-tuning; return the signal that stopped it, if any."""
    recipe, options = parse_finetune_recipe("dpo", __doc__, argv)
    from gnano.reporting.run_report import finetune

    result, _ = finetune(recipe, options.out, options.allow)
    return result.stopped_by
