"""Scores that others published of small models, as their sources print them (JSON file beside).

Rows of reference for `gnano compare`: a model, the tokens it had seen, a share of right answers
per task. Nothing was measured here. Percentages became shares, JSON was rounded to four places.

Every task has two columns, as in lm-evaluation-harness. `acc`: the answer with the highest
log-likelihood wins. `acc_norm`: the log-likelihood is divided by the answer's length first, in
characters unless the note says tokens. They can be ten points apart, and acc alone favors short
answers: on arc_challenge and openbookqa a weak model's acc falls below chance. So compare acc with
acc and acc_norm with acc_norm, never one with the other. Winogrande, boolq and lambada have no
acc_norm in that harness.

Rows of that harness with the same shots are comparable to about a point, whatever its version: the
Pythia repository and the Mamba paper give Pythia-410M 0.521 and 0.521 on arc_easy, 0.243 and 0.246
on arc_challenge, 0.516 and 0.514 on lambada. Beyond that, beware of differences in

- prompts: lighteval's tasks for SmolLM have their own, and normalize winogrande too. llm.c's
  HellaSwag leaves out the activity label and divides by tokens.
- the first token: with or without a BOS moves a model that was trained with one. TinyLlama's
  authors suspect it behind their jump between 2T and 2.5T tokens.
- few-shot: all rows here are zero-shot. Leaderboards use 10 examples for HellaSwag, 25 for ARC.
- unfinished schedules: a checkpoint in the middle of a run (the Pythia steps, TinyLlama before 3T)
  scores below a run that was planned to end there, as Cerebras-GPT was.
- data: the Pile and SlimPajama are not educational web text; SmolLM learned from the corpus that
  our `1b` recipe draws on.
- token counts, which are in each model's own vocabulary.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ReferenceModel:
    """The scores of one model at one moment of its training, as one source gives them."""

    name: str
    parameters: int  # all of them, embeddings included; nominal where the source rounds
    tokens: int | None  # seen in pretraining; None: never published
    scores: Mapping[str, Sequence[float | None]]  # by task: acc, acc_norm; None: not given
    shots: int  # solved examples in the prompt
    source: str  # the page that carries the scores
    note: str  # harness and training data


# by parameters, then tokens; an unpublished count comes first
REFERENCE_MODELS = tuple(
    ReferenceModel(**row)
    for row in json.loads(Path(__file__).with_name("reference_scores.json").read_text("utf-8"))
)


def nearest_models(
    rows: Sequence[ReferenceModel], models: Sequence[tuple[int, int | None]], limit: int
) -> list[ReferenceModel]:
    """Return the `most` rows nearest in size and tokens to one of the models (parameters, tokens).

    A factor of two in parameters is as far as one in tokens; an unknown count adds no distance.
    """

    def distance(row: ReferenceModel) -> float:
        return min(
            abs(log(row.parameters / parameters))
            + (abs(log(row.tokens / tokens)) if row.tokens and tokens else 0.0)
            for parameters, tokens in models
        )

    return sorted(rows, key=distance)[:limit]
