"""The command `gnano dpo`: fine-tunes a model on preferred and rejected answers."""

from gnano.cli.args import default_run_dir, exit_code, parse_finetune_recipe

DESCRIPTION = """\
Fine-tune a model on preferences (DPO, https://arxiv.org/abs/2305.18290): of two answers to a
question, the chosen one becomes more likely and the rejected one less, close to the base model.

The base is a model that `gnano sft` has tuned. Stopped or killed, the same command resumes and
gives the same weights, on a CPU bit for bit.

command examples:
  gnano dpo 1b-dpo --from runs/1b-sft
  gnano dpo 1b-dpo --from runs/1b-sft --files mine.jsonl --train.dpo-beta 0.2
  gnano dpo 1b-dpo --from runs/1b-sft --train.lora.rank 16 --train.schedule.peak 5e-6
"""


def main(argv: list[str]) -> int:
    """Run the fine-tuning."""
    recipe, options = parse_finetune_recipe("dpo", DESCRIPTION, argv)
    from gnano.reporting.run_report import finetune

    run = options.out or default_run_dir(argv)
    result, _ = finetune(recipe, run, options.allow)
    return exit_code(result.stopped_by)
