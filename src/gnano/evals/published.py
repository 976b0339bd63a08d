"""What did other small models score, after how many tokens? Numbers as their sources print them.

Rows of reference for `gnano compare`: a model, the tokens it had seen, a share of right answers
per task. Nothing was measured here. Each score is the one that `source` carries, kept as it stands
there (percent made a share, JSON rounded to four places).

Every task has two columns, as in lm-evaluation-harness. `acc`: the answer with the highest
log-likelihood wins. `acc_norm`: the log-likelihood is divided by the answer's length first,
in characters unless the note says tokens. They can lie ten points apart, and acc alone favours
short answers: on arc_challenge and openbookqa a weak model's acc falls below chance. So compare
acc with acc and acc_norm with acc_norm, never one with the other. Winogrande, boolq and
lambada have no acc_norm in that harness.

Comparable to about a point, whatever its version: rows of that harness with the same shots. The
Pythia repository and the Mamba paper give Pythia-410M 0.521 and 0.521 on arc_easy, 0.243 and 0.246
on arc_challenge, 0.516 and 0.514 on lambada. Take care beyond that:

- prompts: lighteval's tasks for SmolLM have their own, and normalise winogrande too. llm.c's
  HellaSwag leaves out the activity label and divides by tokens.
- the first token: with or without a BOS moves a model that was trained with one. TinyLlama's
  authors suspect it behind their jump between 2T and 2.5T tokens.
- few-shot: all rows here are zero-shot. Leaderboards ask HellaSwag with 10 examples, ARC with 25.
- an unfinished schedule: a checkpoint in the middle of a run (the Pythia steps, TinyLlama
  before 3T) scores below a run that was planned to end there. Cerebras-GPT was so planned.
- data: the Pile and SlimPajama are not educational web text; SmolLM learned from the corpus that
  our `1b` recipe draws on.
- tokens are counted in each model's own vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

TASKS = (
    "hellaswag",
    "arc_easy",
    "arc_challenge",
    "piqa",
    "winogrande",
    "lambada",
    "openbookqa",
    "boolq",
)

Score = tuple[float | None, float | None]  # acc, acc_norm; None: the source does not give it


@dataclass(frozen=True, kw_only=True)
class Published:
    """One model at one moment of its training, and what a source says that it scored."""

    name: str
    parameters: int  # all of them, embeddings included; nominal where the source rounds
    tokens: int | None  # seen in pretraining; None: never published
    scores: Mapping[str, Score]  # by task
    shots: int  # solved examples in the prompt
    source: str  # the page that carries the scores
    note: str = ""


PYTHIA = "https://github.com/EleutherAI/pythia/blob/main/evals/pythia-v1/"
PYTHIA_STEP = 2_097_152  # tokens
PYTHIA_ALL = 143_000 * PYTHIA_STEP
MAMBA = "https://arxiv.org/abs/2312.00752"
MAMBA_NOTE = "lm-evaluation-harness, table 3 of the Mamba paper; the Pile"
CEREBRAS = "https://huggingface.co/cerebras/Cerebras-GPT-1.3B"
CEREBRAS_NOTE = (
    "lm-evaluation-harness; the Pile, 20 tokens a parameter, schedule ended here; "
    "the card names no column: acc, because openbookqa lies far below chance"
)
TINYLLAMA = "https://github.com/jzhang38/TinyLlama/blob/main/EVAL.md"
TINYLLAMA_NOTE = "lm-evaluation-harness; SlimPajama and StarCoder"
SMOLLM = "https://huggingface.co/HuggingFaceTB/SmolLM2-"
SMOLLM_NOTE = "lighteval, its own prompts; as given by SmolLM2's card"
LLM_C = "https://github.com/karpathy/llm.c/blob/master/dev/data/hellaswag.py"
GPT2_NOTE = "lm-evaluation-harness, quoted by llm.c; WebText, token count never published"

PUBLISHED = (
    Published(
        name="Cerebras-GPT-111M",
        parameters=111_000_000,
        tokens=2_220_000_000,
        scores={
            "hellaswag": (0.268, None),
            "arc_easy": (0.380, None),
            "arc_challenge": (0.166, None),
            "piqa": (0.594, None),
            "winogrande": (0.488, None),
            "lambada": (0.194, None),
            "openbookqa": (0.118, None),
        },
        shots=0,
        source=CEREBRAS,
        note=CEREBRAS_NOTE,
    ),
    Published(
        name="GPT-2 124M",
        parameters=124_000_000,
        tokens=None,
        scores={"hellaswag": (0.2892, 0.3114)},
        shots=0,
        source=LLM_C,
        note=f"{GPT2_NOTE}; llm.c's own count, by tokens: acc 0.2859, acc_norm 0.2955",
    ),
    Published(
        name="SmolLM-135M",
        parameters=135_000_000,
        tokens=600_000_000_000,
        scores={
            "hellaswag": (None, 0.412),
            "piqa": (None, 0.684),
            "winogrande": (None, 0.513),
            "openbookqa": (None, 0.340),
        },
        shots=0,
        source=f"{SMOLLM}135M",
        note=f"{SMOLLM_NOTE}; SmolLM-Corpus",
    ),
    Published(
        name="Pythia-160M",
        parameters=162_322_944,
        tokens=PYTHIA_ALL,
        scores={
            "hellaswag": (None, 0.302),
            "arc_easy": (0.432, None),
            "arc_challenge": (None, 0.241),
            "piqa": (0.614, None),
            "winogrande": (0.519, None),
            "lambada": (0.330, None),
        },
        shots=0,
        source=MAMBA,
        note=MAMBA_NOTE,
    ),
    Published(
        name="Pythia-410M step 13,000",
        parameters=405_334_016,
        tokens=13_000 * PYTHIA_STEP,
        scores={
            "arc_easy": (0.4558, 0.4268),
            "arc_challenge": (0.1817, 0.2253),
            "piqa": (0.6289, 0.6338),
            "winogrande": (0.5154, None),
            "lambada": (0.4161, None),
        },
        shots=0,
        source=f"{PYTHIA}pythia-410m/zero-shot/410m_step13000.json",
        note="lm-evaluation-harness; the Pile; 9 % into its schedule",
    ),
    Published(
        name="Pythia-410M",
        parameters=405_334_016,
        tokens=PYTHIA_ALL,
        scores={
            "hellaswag": (None, 0.406),
            "arc_easy": (0.521, None),
            "arc_challenge": (None, 0.246),
            "piqa": (0.669, None),
            "winogrande": (0.538, None),
            "lambada": (0.514, None),
        },
        shots=0,
        source=MAMBA,
        note=MAMBA_NOTE,
    ),
    Published(
        name="Cerebras-GPT-590M",
        parameters=590_000_000,
        tokens=11_800_000_000,
        scores={
            "hellaswag": (0.291, None),
            "arc_easy": (0.464, None),
            "arc_challenge": (0.190, None),
            "piqa": (0.627, None),
            "winogrande": (0.498, None),
            "lambada": (0.366, None),
            "openbookqa": (0.158, None),
        },
        shots=0,
        source=CEREBRAS,
        note=CEREBRAS_NOTE,
    ),
    Published(
        name="Pythia-1B-deduped step 33,000",
        parameters=1_011_781_632,
        tokens=33_000 * PYTHIA_STEP,
        scores={
            "arc_easy": (0.5286, 0.4613),
            "arc_challenge": (0.2295, 0.2560),
            "piqa": (0.6812, 0.6801),
            "winogrande": (0.5249, None),
            "lambada": (0.5038, None),
        },
        shots=0,
        source=f"{PYTHIA}pythia-1b-deduped/zero-shot/1b-deduped_step33000.json",
        note="lm-evaluation-harness; the Pile without duplicates; 23 % into its schedule",
    ),
    Published(
        name="Pythia-1B step 50,000",
        parameters=1_011_781_632,
        tokens=50_000 * PYTHIA_STEP,
        scores={"hellaswag": (None, 0.4204)},
        shots=0,
        source="https://github.com/jzhang38/TinyLlama/blob/"
        "026587c0fbc5cf756eba92e0220566550df66ca7/README.md",
        note="measured by TinyLlama's authors; the Pile; 35 % into its schedule",
    ),
    Published(
        name="Pythia-1B",
        parameters=1_011_781_632,
        tokens=PYTHIA_ALL,
        scores={
            "hellaswag": (None, 0.4716),
            "arc_easy": (None, 0.4899),
            "arc_challenge": (None, 0.2705),
            "piqa": (None, 0.6921),
            "winogrande": (0.5343, None),
            "openbookqa": (None, 0.3140),
            "boolq": (0.6083, None),
        },
        shots=0,
        source=TINYLLAMA,
        note="lm-evaluation-harness, measured by TinyLlama's authors; the Pile",
    ),
    Published(
        name="TinyLlama-1.1B step 50,000",
        parameters=1_100_000_000,
        tokens=105_000_000_000,
        scores={
            "hellaswag": (None, 0.4350),
            "arc_easy": (None, 0.4491),
            "arc_challenge": (None, 0.2432),
            "piqa": (None, 0.6730),
            "winogrande": (0.5328, None),
            "openbookqa": (None, 0.2980),
            "boolq": (0.5966, None),
        },
        shots=0,
        source=TINYLLAMA,
        note=f"{TINYLLAMA_NOTE}; 3.5 % into its schedule; tokens: README",
    ),
    Published(
        name="TinyLlama-1.1B",
        parameters=1_100_000_000,
        tokens=3_000_000_000_000,
        scores={
            "hellaswag": (None, 0.5920),
            "arc_easy": (None, 0.5525),
            "arc_challenge": (None, 0.3012),
            "piqa": (None, 0.7329),
            "winogrande": (0.5912, None),
            "openbookqa": (None, 0.3600),
            "boolq": (0.5783, None),
        },
        shots=0,
        source=TINYLLAMA,
        note=TINYLLAMA_NOTE,
    ),
    Published(
        name="Llama-3.2-1B",
        parameters=1_230_000_000,
        tokens=9_000_000_000_000,
        scores={
            "hellaswag": (None, 0.612),
            "piqa": (None, 0.748),
            "winogrande": (None, 0.578),
            "openbookqa": (None, 0.384),
        },
        shots=0,
        source=f"{SMOLLM}1.7B",
        note=f"{SMOLLM_NOTE}; its tokens are a limit (its card: up to 9T); learned from the "
        "logits of larger models too",
    ),
    Published(
        name="Cerebras-GPT-1.3B",
        parameters=1_300_000_000,
        tokens=26_300_000_000,
        scores={
            "hellaswag": (0.325, None),
            "arc_easy": (0.508, None),
            "arc_challenge": (0.224, None),
            "piqa": (0.664, None),
            "winogrande": (0.521, None),
            "lambada": (0.462, None),
            "openbookqa": (0.166, None),
        },
        shots=0,
        source=CEREBRAS,
        note=CEREBRAS_NOTE,
    ),
    Published(
        name="Pythia-1.4B-deduped step 3,000",
        parameters=1_414_647_808,
        tokens=3_000 * PYTHIA_STEP,
        scores={
            "arc_easy": (0.4339, 0.3998),
            "arc_challenge": (0.1903, 0.2193),
            "piqa": (0.6143, 0.6110),
            "winogrande": (0.5288, None),
            "lambada": (0.3301, None),
        },
        shots=0,
        source=f"{PYTHIA}pythia-1.4b-deduped/zero-shot/1.4b-deduped_step3000.json",
        note="lm-evaluation-harness; the Pile without duplicates; 2 % into its schedule",
    ),
    Published(
        name="Pythia-1.4B step 23,000",
        parameters=1_414_647_808,
        tokens=23_000 * PYTHIA_STEP,
        scores={
            "arc_easy": (0.5282, 0.4651),
            "arc_challenge": (0.2355, 0.2543),
            "piqa": (0.6774, 0.6801),
            "winogrande": (0.5241, None),
            "lambada": (0.5152, None),
        },
        shots=0,
        source=f"{PYTHIA}pythia-1.4b/zero-shot/1.4b_step23000.json",
        note="lm-evaluation-harness; the Pile; 16 % into its schedule",
    ),
    Published(
        name="Pythia-1.4B",
        parameters=1_414_647_808,
        tokens=PYTHIA_ALL,
        scores={
            "hellaswag": (None, 0.521),
            "arc_easy": (0.605, None),
            "arc_challenge": (None, 0.285),
            "piqa": (0.710, None),
            "winogrande": (0.572, None),
            "lambada": (0.617, None),
        },
        shots=0,
        source=MAMBA,
        note=MAMBA_NOTE,
    ),
    Published(
        name="GPT-2 XL",
        parameters=1_558_000_000,
        tokens=None,
        scores={"hellaswag": (0.4004, 0.5089)},
        shots=0,
        source=LLM_C,
        note=f"{GPT2_NOTE}; llm.c's own count, by tokens: acc 0.3842, acc_norm 0.4893",
    ),
    Published(
        name="SmolLM-1.7B",
        parameters=1_700_000_000,
        tokens=1_000_000_000_000,
        scores={
            "hellaswag": (None, 0.629),
            "piqa": (None, 0.760),
            "winogrande": (None, 0.547),
            "openbookqa": (None, 0.424),
        },
        shots=0,
        source=f"{SMOLLM}1.7B",
        note=f"{SMOLLM_NOTE}; SmolLM-Corpus",
    ),
    Published(
        name="SmolLM2-1.7B",
        parameters=1_700_000_000,
        tokens=11_000_000_000_000,
        scores={
            "hellaswag": (None, 0.687),
            "piqa": (None, 0.776),
            "winogrande": (None, 0.594),
            "openbookqa": (None, 0.422),
        },
        shots=0,
        source=f"{SMOLLM}1.7B",
        note=SMOLLM_NOTE,
    ),
)  # by parameters, then tokens; an unpublished count comes first


def comparable(tasks: Sequence[str]) -> list[Published]:
    """The rows that have a score in at least one of these tasks, in the table's order."""
    return [row for row in PUBLISHED if not row.scores.keys().isdisjoint(tasks)]


def nearest(
    rows: Sequence[Published], models: Sequence[tuple[int, int | None]], most: int
) -> list[Published]:
    """The rows whose size and tokens are nearest, as factors, to those of one of the models.

    Twice the parameters are as far away as twice the tokens; a count that is not known is no
    distance.
    """

    def distance(row: Published) -> float:
        return min(
            abs(log(row.parameters / parameters))
            + (abs(log(row.tokens / tokens)) if row.tokens and tokens else 0.0)
            for parameters, tokens in models
        )

    return sorted(rows, key=distance)[:most]
