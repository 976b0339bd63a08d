"""auto-g-nano: from raw text to a language model that you trained yourself.



model = load("runs/demo")
print(model.generate("Once upon a time", tokens=60))
"""

from os import PathLike
from typing import TYPE_CHECKING

from gnano.utils.platform_support import reject_windows, set_passive_wait

if TYPE_CHECKING:
    from gnano.config.inference_config import InferenceDtype, Quantization
    from gnano.infer.engine import Engine

__version__ = "0.1.0"
set_passive_wait()  # before anything imports torch


def load(
    path: str | PathLike[str],
    device: str = "auto",
    dtype: "InferenceDtype" = "auto",
    quant: "Quantization" = "",
    compile: bool = False,
) -> "Engine":
    """A model that continues text: from a run (its newest checkpoint), a checkpoint, or any
    Hugging Face folder of a Llama. `device` is cpu, cuda, mps …; `dtype` fp32, bf16 or fp16;
    `quant` int8 or int4 keeps the matrices in so many bits; `compile` takes some seconds and saves
    some of each token.

    Raises OSError or ValueError, in a sentence, for what is no such folder.
    """
    reject_windows()
    from gnano.infer.engine import Engine

    return Engine.load(path, device, dtype, quant, compile)
