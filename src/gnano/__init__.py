"""auto-g-nano: from raw text to a trained Llama-style language model.

Example:
    model = load("runs/demo")
    print(model.generate("Once upon a time", max_new_tokens=60))
"""

import os
import sys
from os import PathLike
from typing import TYPE_CHECKING

from gnano.utils.platform_support import WAIT_POLICY_VARIABLES, WINDOWS_ERROR

if TYPE_CHECKING:
    from gnano.config.inference_config import InferenceDtype, Quantization
    from gnano.infer.engine import Engine

__version__ = "0.1.0"
# before anything imports torch: idle OpenMP threads sleep, unless the user has set how they wait
if not any(name in os.environ for name in WAIT_POLICY_VARIABLES):
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def load(
    path: str | PathLike[str],
    device: str = "auto",
    dtype: "InferenceDtype" = "auto",
    quant: "Quantization" = "",
    compile: bool = False,
) -> "Engine":
    """Load a model for text generation: a run, a checkpoint, a folder, or owner/name on the Hub.

    `device` is cpu, cuda, mps or auto; `dtype` fp32, bf16, fp16 or auto; `quant` int8 or int4
    reduces the matrices to that many bits; `compile` takes some seconds and makes each token
    faster. Raises OSError or ValueError where the folder is not such a model.
    """
    if sys.platform == "win32":
        raise OSError(WINDOWS_ERROR)
    from gnano.export.model_resolver import resolve_model
    from gnano.infer.engine import Engine

    return Engine.load(resolve_model(str(path)), device, dtype, quant, compile)
