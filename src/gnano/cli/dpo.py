"""`gnano dpo`: tune a model on which of two answers people prefer."""

from pathlib import Path

from gnano.cli.args import parse_finetune_recipe

DESCRIPTION = """\
Tune a model on preferences (DPO, https://arxiv.org/abs/2305.18290): of two answers to a question,
the chosen one becomes more likely and the rejected one less, as far as that stays near the base.

The base is a model that `gnano sft` has tuned. Stopped or killed, the same command goes on and
gives the same weights, on a CPU bit for bit.

examples:
  gnano dpo 1b-dpo --from runs/1b-sft
  gnano dpo 1b-dpo --from runs/1b-sft --files mine.jsonl --train.dpo_beta 0.2
  gnano dpo 1b-dpo --from runs/1b-sft --train.lora.rank 16 --train.schedule.peak 5e-6
"""


def main(argv: list[str]) -> int:
    recipe, own = parse_finetune_recipe("dpo", DESCRIPTION, argv)
    from gnano.reporting.finetune import finetune

    run = own.out or Path("runs") / Path(argv[0]).stem
    result, _ = finetune(recipe, run, own.allow)
    return 128 + result.stopped_by if result.stopped_by else 0
