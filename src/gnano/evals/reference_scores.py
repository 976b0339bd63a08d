"""Published scores of small models, as printed by their sources (data: reference_scores.json).

These are the reference rows of `gnano compare`: a model, its training tokens, and its accuracy per
task. Nothing was measured here. Percentages were converted to shares, JSON values rounded to four
places.

Every task has two columns, as in lm-evaluation-harness. `acc`: the answer with the highest
log-likelihood wins. `acc_norm`: the log-likelihood is first divided by the length of the answer, in
characters unless the note names tokens. The two can differ by ten points, and acc favors short
answers: on arc_challenge and openbookqa a weak model's acc falls below chance. Compare acc only
with acc and acc_norm only with acc_norm. The harness has no acc_norm for winogrande, boolq and
lambada.

Rows of that harness with the same shots are comparable to about a point across its versions: the
Pythia repository and the Mamba paper give Pythia-410M 0.521 and 0.521 on arc_easy, 0.243 and 0.246
on arc_challenge, 0.516 and 0.514 on lambada. Other differences matter more:

- Prompts: lighteval's tasks for SmolLM have their own, and normalize winogrande too. llm.c's
  HellaSwag omits the activity label and divides by tokens.
- The first token: a BOS changes the scores of a model that was trained with one. TinyLlama's
  authors suspect it to be the cause of their jump between 2T and 2.5T tokens.
- Few-shot: all rows here are zero-shot. Leaderboards use 10 examples for HellaSwag, 25 for ARC.
- Unfinished schedules: a checkpoint in the middle of a run (the Pythia steps, TinyLlama before 3T)
  scores below a run that was planned to end there, as Cerebras-GPT was.
- Data: the Pile and SlimPajama are not educational web text; SmolLM was trained on the corpus that
  the `1b` recipe uses.
- Token counts, which are in each model's own vocabulary.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ReferenceModel:
    """The scores of one model at one point of its training, from one source."""

    name: str
    parameters: int  # including embeddings; nominal where the source rounds
    tokens: int | None  # of pretraining; None: never published
    scores: Mapping[str, Sequence[float | None]]  # task: (acc, acc_norm); None: not given
    shots: int  # few-shot examples
    source: str  # URL of the scores
    note: str  # harness and training data


# sorted by parameters, then tokens; an unpublished count comes first
REFERENCE_MODELS = tuple(
    ReferenceModel(**row)
    for row in json.loads(Path(__file__).with_name("reference_scores.json").read_text("utf-8"))
)


def nearest_models(
    rows: Sequence[ReferenceModel], models: Sequence[tuple[int, int | None]], limit: int
) -> list[ReferenceModel]:
    """Return the `limit` rows nearest to one of the models, each given as (parameters, tokens).

    A factor of two in parameters counts as much as a factor of two in tokens; an unknown number of
    tokens adds no distance.
    """

    def distance(row: ReferenceModel) -> float:
        return min(
            abs(log(row.parameters / parameters))
            + (abs(log(row.tokens / tokens)) if row.tokens and tokens else 0.0)
            for parameters, tokens in models
        )

    return sorted(rows, key=distance)[:limit]
