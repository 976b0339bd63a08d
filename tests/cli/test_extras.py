"""A missing optional package is reported before the work, or only its feature is left out."""

import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import tomli_w
from tests.cli.runner import error_sentence, output
from tests.small_models import with_train


@pytest.fixture
def missing_package(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Make the package in the test's parameter fail to import."""
    package: str = request.param
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    return package


@pytest.mark.parametrize(
    ("missing_package", "arguments"),
    [
        ("pyarrow", ["prepare", "RECIPE", "--data.sources.left.files", "a.txt", "z.parquet"]),
        ("zstandard", ["prepare", "RECIPE", "--data.sources.left.files", "a.txt", "z.jsonl.zst"]),
        ("pyarrow", ["sft", "RECIPE", "--from", "RUN", "--files", "z.parquet"]),
        ("tensorboard", ["pretrain", "RECIPE", "--out", "out", "--train.trackers", "tensorboard"]),
        ("wandb", ["pretrain", "RECIPE", "--out", "out", "--train.trackers", "wandb"]),
        ("transformers", ["compare", "RUN", "foreign", "--tasks", "none", "--text", "a.txt"]),
        ("transformers", ["eval", "foreign", "--tasks", "none", "--text", "a.txt"]),
        ("lm_eval", ["eval", "RUN", "--harness", "hellaswag"]),
        ("matplotlib", ["compare", "RUN", "--tasks", "none", "--text", "a.txt", "--plot", "p.png"]),
        ("gguf", ["export", "RUN", "--to", "gguf", "--out", "out"]),
        ("onnxscript", ["export", "RUN", "--to", "onnx", "--out", "out"]),
        ("gguf", ["import", "m.gguf", "--out", "out"]),
        ("datatrove", ["data", "scale-out", "RECIPE", "--data.folder", "out"]),
        ("starlette", ["serve", "RUN"]),
        ("uvicorn", ["serve", "RUN"]),
        ("ray", ["data", "scale-out", "RECIPE", "--data.folder", "out", "--executor", "ray"]),
    ],
    indirect=["missing_package"],
)
def test_missing_packages_are_reported_before_the_work(
    missing_package, arguments, recipe, run, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "gnano.evals.comparison.evaluate", lambda *_: pytest.fail("the work started")
    )
    data = replace(
        recipe.pretraining_data,
        folder="data" if arguments[0] == "prepare" else recipe.pretraining_data.folder,
    )
    Path("recipe.toml").write_text(tomli_w.dumps(asdict(replace(recipe, data=data))))
    Path("a.txt").write_text("some text")
    for name in ("z.parquet", "z.jsonl.zst", "m.gguf"):
        Path(name).write_bytes(b"no such thing")
    Path("foreign").mkdir()
    Path("foreign/config.json").write_text(json.dumps({"model_type": "gpt2"}))
    names = {"RECIPE": "1b-sft" if arguments[0] == "sft" else "recipe.toml", "RUN": str(run)}
    error = error_sentence(capsys, *(names.get(word, word) for word in arguments))
    assert "pip install 'auto-g-nano[" in error
    written = {path.name for path in tmp_path.iterdir()} & {"out", "data", "p.png"}
    assert not [path for name in written for path in Path(name).rglob("*.safetensors")]
    assert not [path for name in written for path in Path(name).rglob("*.tokens")]


@pytest.mark.parametrize("missing_package", ["matplotlib"], indirect=True)
def test_a_run_without_matplotlib_has_a_report(missing_package, run, recipe, tmp_path, capsys):
    path = tmp_path / "recipe.toml"
    path.write_text(tomli_w.dumps(asdict(with_train(recipe, steps=4, save_every=2))))
    shutil.copytree(run, tmp_path / "run")
    output(capsys, "pretrain", path, "--out", tmp_path / "run")
    assert (tmp_path / "run" / "report.html").exists()
