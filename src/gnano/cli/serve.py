"""The command `gnano serve`: serves models over HTTP."""

from gnano.cli.args import LoadArgs, ModelArgs, ServeArgs, model_folder
from gnano.config.inference_config import LoadConfig
from gnano.config.serve_config import ServeConfig


def serve(
    models: ModelArgs,
    load_config: LoadArgs = LoadConfig(),
    serve_config: ServeArgs = ServeConfig(),
) -> int:
    """Serve models to OpenAI's clients, and a web page to talk to them.

    command examples:
      gnano serve runs/demo-sft
      gnano serve runs/demo-sft runs/demo --preferences preferences.jsonl
      gnano serve runs/demo-sft --host 0.0.0.0 --api-key-file keys.txt --allow-host gpu.example.com
      gnano serve runs/mine --follow    # while it trains
      gnano serve HuggingFaceTB/SmolLM2-135M-Instruct --port 0

    The address is printed when the server is ready. Of a run, every checkpoint can be used, as
    NAME@STEP. Ctrl-C lets open requests finish; a second one stops at once.
    """
    from gnano.utils.platform_support import require

    for package in ("starlette", "uvicorn"):
        require(package, "serve", f"gnano serve needs the package {package}")
    from gnano.serve.app import run_server

    return run_server([model_folder(name) for name in models], load_config, serve_config)
