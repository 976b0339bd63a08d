"""The command `gnano import`: converts a model of another format into a folder for gnano."""

from pathlib import Path

from gnano.cli.args import PathArg, model_folder
from gnano.utils.terminal import echo


def import_(
    path: PathArg,
    out: Path,
    tokenizer: Path | None = None,
    n_head: int | None = None,
    block_size: int | None = None,
    rope_theta: float | None = None,
    norm_eps: float | None = None,
) -> None:
    """Make a checkpoint folder from another program's model file or folder.

    command examples:
      gnano import downloads/model_bf16.pt --out models/1b          the published names
      gnano import downloads/SmolLlama --out models/smol            a Hugging Face folder
      gnano import downloads/model-BF16.gguf --out models/1b        F32, F16 or BF16
      gnano import weights.safetensors --out models/mine --n-head 12 --tokenizer data/mine

    Code in a file is never run, and errors name what does not fit. The shape is read from the
    tensors; the options state what a bare tensor file does not.

    Args:
        path: A .pt, .safetensors or .gguf file, or a Hugging Face folder.
        out: The folder to make; it must not exist yet.
        tokenizer: A folder with tokenizer.json; by default GPT-2's, for 50,257 tokens.
        n_head: Query heads.
        block_size: Context, in tokens.
        rope_theta: Base of the rotary frequencies.
        norm_eps: Added to the mean square in the norms.
    """
    from gnano.export.importing import import_model
    from gnano.export.tensor_file import TensorFileHints
    from gnano.model.flops import num_parameters

    hints = TensorFileHints(
        n_head=n_head, block_size=block_size, rope_theta=rope_theta, norm_eps=norm_eps
    )
    path = path if path.exists() else model_folder(path)
    config = import_model(path, out, hints, tokenizer)
    echo(
        f"{out}: {num_parameters(config):,} parameters, {config.n_layer} layers, width "
        f"{config.n_embd:,}, {config.n_head} heads on {config.n_kv_head}, context "
        f"{config.block_size:,}, RoPE θ {config.rope_theta:,.0f}"
    )
