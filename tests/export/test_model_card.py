"""A model card states the facts of the run exactly, and nothing that is unknown."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.small_models import with_train

from gnano.checkpoint.run_checkpoints import find_checkpoint
from gnano.config.data_config import DataConfig, InstructionConfig, InstructionSource, SourceConfig
from gnano.config.inference_config import EvalConfig, SamplingParams
from gnano.config.recipe import Recipe
from gnano.evals.model_adapter import load_eval_model
from gnano.evals.result_store import default_result_path, write_result
from gnano.evals.runner import evaluate
from gnano.export.model_card import build_model_card
from gnano.infer.engine import Engine
from gnano.model.flops import num_parameters
from gnano.train.lineage import training_stages
from gnano.train.run_dir import read_run_metadata, write_run_metadata
from gnano.train.trainer import train


@pytest.fixture(scope="module")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe, tmp_path_factory.mktemp("pretrained") / "small").run


@pytest.fixture(scope="module")
def tuned(sft_recipe: Recipe, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuning run of the one above."""
    sft_recipe = replace(sft_recipe, data=replace(sft_recipe.tuning_data, epochs=1))
    short = with_train(sft_recipe, init_from=str(run), tokens_per_step=32 * 8, micro_batch_size=8)
    return train(short, tmp_path_factory.mktemp("tuned") / "small-sft").run


@pytest.fixture(scope="module")
def text(run: Path) -> str:
    return build_model_card(run, "me/small", prompts=["the river"])


def front(text: str) -> dict[str, Any]:
    parts = text.split("---\n")
    found: dict[str, Any] = yaml.safe_load(parts[1])
    return found


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def edited(run: Path, to: Path, data: DataConfig | InstructionConfig) -> Path:
    """Return a copy of the run, as if it had trained on other data."""

    copy = Path(shutil.copytree(run, to))
    metadata = read_run_metadata(copy / "recipe.toml")
    write_run_metadata(replace(metadata.recipe, data=data), metadata.facts, copy / "recipe.toml")
    return copy


def test_the_front_matter_is_valid_for_the_hub(text):
    assert front(text) == {
        "license": "apache-2.0",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["llama", "gnano"],
    }


def test_the_figures_match_the_log(text, run, recipe):
    logged = rows(run)
    assert f"| parameters | {num_parameters(recipe.model):,} |" in section(text, "Architecture")
    training = section(text, "Training")
    assert "| run | small, step 40 of 40 |" in training
    assert f"| tokens | {40 * 512:,} |" in training
    assert f"| time | {logged[-1]['seconds'] / 60:.1f} minutes" in training
    assert "0.003 after 5 steps of warm-up, then cosine to 10%" in training
    late = sum(row["loss"] for row in logged[-2:]) / 2
    results = section(text, "Results")
    assert f"Training loss: {late:.3f} nats per token over the last 2 steps." in results
    heldout = logged[-1]["heldout"]
    for name, bits in {**heldout["sources"], "all": heldout["bits_per_byte"]}.items():
        assert f"| {name} | {bits:.3f} |" in results
    assert "| left | files of the author | 60.0% |" in section(text, "Data")


def test_an_earlier_checkpoint_has_its_own_figures(run):
    early = run / "checkpoints/step-00000030"
    text = build_model_card(early, "me/small", prompts=["the"])
    assert "| run | small, step 30 of 40 |" in text
    assert f"| tokens | {30 * 512:,} |" in text
    measured = next(row["heldout"] for row in rows(run) if row["step"] == 16)
    assert "Held-out text, a part of it, at step 16:" in text
    assert f"| all | {measured['bits_per_byte']:.3f} |" in text


def test_the_samples_are_reproducible(text, run):
    sampling = SamplingParams(temperature=0.7, top_k=40, seed=1)
    written = Engine.load(run).generate("the river", 80, sampling)
    assert f"the river{written}".rstrip() in section(text, "Samples")


def test_no_local_path_is_published(text, tuned, tmp_path):
    for card in (text, build_model_card(tuned, "me/small-sft")):
        assert str(tmp_path.parent.parent) not in card
        assert ".txt" not in card and ".jsonl" not in card and ".toml" not in card


def test_a_bare_folder_has_no_training_sections(base):
    text = build_model_card(base, "me/base", prompts=["the"])
    for title in ("Data", "Training", "Results", "Format", "License"):
        assert f"## {title}" not in text
    assert "## Architecture" in text and "## Samples" in text
    assert "license" not in front(text) and "from scratch" not in text and "None" not in text
    licensed = build_model_card(base, "me/base", license_id="mit", prompts=["the"])
    assert front(licensed)["license"] == "mit"


def test_a_tuned_model_names_its_base_and_format(tuned, run):
    text = build_model_card(tuned, "me/small-sft")
    assert "| base | small, step 40 |" in section(text, "Training: instructions")
    assert "| run | small, step 40 of 40 |" in section(text, "Training: pretraining")
    assert "Q: Where is the key?" in section(text, "Format")
    assert "tuned from small, step 40 with auto-g-nano. It answers questions." in text
    assert "apply_chat_template" in text and "gnano chat small-sft" in text
    logged = rows(tuned)[-1]["heldout"]
    assert f"| all | {logged['bits_per_byte']:.3f} | {logged['loss']:.3f} |" in text
    assert front(text)["license"] == "apache-2.0"


@pytest.mark.slow
def test_a_dpo_model_has_all_three_stages(dpo_recipe, tuned, tmp_path):
    short = with_train(
        dpo_recipe, init_from=str(tuned), steps=2, tokens_per_step=192, micro_batch_size=2
    )
    run = train(short, tmp_path / "dpo").run
    text = build_model_card(run, "me/small-dpo")
    assert text.count("\n## Training: ") == 3
    assert "| base | small-sft, step " in section(text, "Training: preferences")
    results, heldout = section(text, "Results: preferences"), rows(run)[-1]["heldout"]
    assert "nats per pair" in results and "nats per token" not in results
    assert f"| all | {heldout['loss']:.3f} |" in results
    assert f"the same answer as the data in {heldout['accuracy']:.1%} of the pairs" in results


def test_a_base_with_other_weights_is_ignored(tuned, run, tmp_path):
    copy = Path(shutil.copytree(tuned, tmp_path / "copy"))
    recipe_text = (copy / "recipe.toml").read_text()
    changed = re.sub('base_sha256 = ".{64}"', 'base_sha256 = "0"', recipe_text)
    (copy / "recipe.toml").write_text(changed)
    assert [stage.run_name for stage in training_stages(find_checkpoint(copy))] == ["copy"]
    text = build_model_card(copy, "me/copy")
    assert "license" not in front(text), "weights of someone else are not ours to license"
    assert "from scratch" not in text and "| base | small, step 40 |" in text


def test_the_training_hardware_is_named(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    metadata = read_run_metadata(copy / "recipe.toml")
    recipe = with_train(metadata.recipe, device="cuda")
    write_run_metadata(
        recipe, {**metadata.facts, "ranks": 2, "gpu": "NVIDIA H200"}, copy / "recipe.toml"
    )
    assert "| hardware | 2 × NVIDIA H200 |" in build_model_card(copy, "me/small", prompts=["the"])
    assert "| hardware | 1 × CPU |" in build_model_card(run, "me/small", prompts=["the"])


def test_hub_data_sets_are_linked(run, recipe, tmp_path):
    sources = {
        "web": SourceConfig(weight=3, kind="hub", repo="HuggingFaceTB/smollm-corpus", config="edu"),
        "code": SourceConfig(weight=1, kind="hub", repo="bigcode/starcoderdata", config="python"),
    }
    copy = edited(run, tmp_path / "copy", replace(recipe.pretraining_data, sources=sources))
    text = build_model_card(copy, "me/small", prompts=["the"])
    assert front(text)["datasets"] == ["HuggingFaceTB/smollm-corpus", "bigcode/starcoderdata"]
    assert front(text)["language"] == ["en"]
    link = "[HuggingFaceTB/smollm-corpus](https://huggingface.co/datasets/HuggingFaceTB/smollm-cor"
    assert link in section(text, "Data") and "| 75.0% |" in section(text, "Data")
    assert "bigcode/starcoderdata" in section(text, "License")


def test_source_names_are_escaped(tuned, sft_recipe, tmp_path):
    sources = {"a|b\n## Bold <b>": InstructionSource(files=("x.jsonl",))}
    copy = edited(tuned, tmp_path / "copy", replace(sft_recipe.tuning_data, sources=sources))
    text = build_model_card(copy, "me/small")
    assert "| a\\|b ## Bold &lt;b> | files of the author | 1 |" in text


def test_a_sample_cannot_close_its_fence(base):
    text = build_model_card(base, "me/base", prompts=["```\n# Not a title\n````"])
    assert "\n`````text\n```\n# Not a title\n````" in text


def test_a_missing_log_leaves_out_only_its_figures(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    (copy / "metrics.jsonl").unlink()
    text = build_model_card(copy, "me/small", prompts=["the"])
    assert "## Results" not in text and "| run | copy, step 40 of 40 |" in text
    assert "None" not in text and "tokens/s" not in text


def test_each_tool_has_a_command_and_llama_cpp_only_with_gguf(run):
    text = build_model_card(run, "me/small", ["small.gguf", "model.safetensors"], prompts=["the"])
    use = section(text, "How to use it")
    assert "llama-cli --hf-repo me/small --hf-file small.gguf" in use
    assert "vllm serve me/small" in use and "mlx_lm.generate --model me/small" in use
    assert "llama-cli" not in build_model_card(run, "me/small", prompts=["the"])


@pytest.mark.parametrize("which", ["run", "tuned"])
@pytest.mark.slow
def test_the_transformers_snippet_runs(which, request, capsys):
    pytest.importorskip("transformers")
    run = request.getfixturevalue(which)
    use = section(build_model_card(run, "me/small", prompts=["the"]), "How to use it")
    code = re.findall("```python\n(.*?)```", use, re.DOTALL)[0]
    code = code.replace("me/small", str(find_checkpoint(run))).replace("=60", "=2")
    exec(code, {})
    assert "<|endoftext|>" in capsys.readouterr().out


@pytest.mark.slow
def test_saved_eval_scores_are_included(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    items = tmp_path / "piqa.jsonl"
    rows = [{"query": f"the {n}?", "choices": ["river", "bird"], "gold": 0} for n in range(8)]
    items.write_text("\n".join(map(json.dumps, rows)))
    found = evaluate(load_eval_model(copy), EvalConfig(files=(str(items),)))
    write_result(found, default_result_path(found))
    scores = section(build_model_card(copy, "me/small", prompts=["the"]), "Evaluation")
    (score,) = found.scores
    assert f"| PIQA | 8 | 0 | {score.acc} | {score.acc_norm} | 0.500 |" in scores
    (copy / "evals" / f"{find_checkpoint(copy).name}.json").write_text('{"scores": 3}')
    assert "## Evaluation" not in build_model_card(copy, "me/small", prompts=["the"])
