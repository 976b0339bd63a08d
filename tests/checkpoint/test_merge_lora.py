"""Base and adapter are merged to the fine-tuned model, complete and loadable, or not at all."""

import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from tests.small_models import with_train
from transformers import AutoModelForCausalLM, AutoTokenizer

from gnano.checkpoint.export_weights import export_weights, merge_adapter
from gnano.checkpoint.run_checkpoints import find_checkpoint, verify_checksums
from gnano.config.hf_config import write_hf_config
from gnano.config.model_config import LoraConfig, ModelConfig
from gnano.config.recipe import Recipe
from gnano.infer.engine import Engine
from gnano.model.hf_io import load_model, save_model
from gnano.model.lora import add_lora, save_adapter
from gnano.train.trainer import train

CONFIG = LoraConfig(rank=3, alpha=7.0)
BASE_FILES = {"config.json", "generation_config.json", "model.safetensors"}
TOKENIZER_FILES = {"tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def runs(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and a run that trained an adapter of it."""
    folder = tmp_path_factory.mktemp("runs")
    train(with_train(recipe, steps=4, save_every=4), folder / "base")
    lora = LoraConfig(rank=2, alpha=8.0)
    tuning = with_train(recipe, steps=4, save_every=2, init_from=str(folder / "base"), lora=lora)
    train(tuning, folder / "tuned")
    return folder


@pytest.fixture
def base(runs: Path, tmp_path: Path) -> Path:
    """An exported model that a test may change."""
    return export_weights(runs / "base", tmp_path / "base")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """A folder with only an adapter, whose B is neither zero nor small compared with W."""
    model = load_model(base)
    torch.manual_seed(1)
    add_lora(model, CONFIG)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B.weight"):
            parameter.data.normal_(std=0.2)
    save_adapter(dict(model.named_parameters()), CONFIG, str(base), tmp_path / "adapter")
    return tmp_path / "adapter"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_adapter_and_base_of_a_run_merge_to_its_model_bit_for_bit(
    runs: Path, tmp_path: Path
) -> None:
    out = merge_adapter(runs / "base", runs / "tuned", tmp_path / "a" / "merged")
    tuned = load_file(find_checkpoint(runs / "tuned") / "model.safetensors")
    merged, before = (
        load_file(folder / "model.safetensors") for folder in (out, find_checkpoint(runs / "base"))
    )
    assert merged.keys() == tuned.keys()
    assert all(torch.equal(merged[name], tuned[name]) for name in tuned)
    changed = {name for name in merged if not torch.equal(merged[name], before[name])}
    assert len(changed) == 2 * 7
    assert [p.name for p in out.parent.iterdir()] == ["merged"]


def test_an_adapter_is_given_by_its_checkpoint_or_its_folder(runs: Path, tmp_path: Path) -> None:
    steps = runs / "tuned" / "checkpoints"
    first, second = (
        merge_adapter(runs / "base", steps / "step-00000002", tmp_path / "a"),
        merge_adapter(runs / "base", steps / "step-00000002" / "adapter", tmp_path / "b"),
    )
    newest = merge_adapter(find_checkpoint(runs / "base"), runs / "tuned", tmp_path / "c")
    weights = {
        folder: (folder / "model.safetensors").read_bytes() for folder in (first, second, newest)
    }
    assert weights[first] == weights[second] != weights[newest]


def test_transformers_peft_and_the_engine_agree_on_the_merged_model(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    out = merge_adapter(base, adapter, tmp_path / "merged")
    verify_checksums(out)
    assert names(out) == {*BASE_FILES, *TOKENIZER_FILES, "files.json"}
    ids = torch.randint(0, 300, (2, 20))
    merged = AutoModelForCausalLM.from_pretrained(out)
    plain = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        before = plain(ids).logits
        theirs = peft.PeftModel.from_pretrained(plain, adapter)(ids).logits
        torch.testing.assert_close(merged(ids).logits, theirs, atol=1e-4, rtol=0)
        torch.testing.assert_close(load_model(out).eval()(ids), theirs, atol=1e-4, rtol=0)
    assert (theirs - before).abs().max() > 0.1
    assert AutoTokenizer.from_pretrained(out)("the river")["input_ids"]
    assert Engine.load(out).generate("the river", max_new_tokens=5)


def test_the_merged_model_has_dtype_and_config_of_the_base(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    half = Path(shutil.copytree(base, tmp_path / "half"))
    save_model(load_model(base).bfloat16(), half, eos_token_id=7)
    out = merge_adapter(half, adapter, tmp_path / "merged")
    weights = load_file(out / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    for name in ("config.json", "generation_config.json"):
        assert (out / name).read_bytes() == (half / name).read_bytes()


def test_base_and_adapter_are_unchanged(base: Path, adapter: Path, tmp_path: Path) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for part in (base, adapter) for path in part.iterdir()}

    before = content()
    out = merge_adapter(base, adapter, tmp_path / "merged")
    shutil.copytree(out, tmp_path / "kept")
    assert content() == before
    for part in (base, adapter):
        shutil.rmtree(part)
    verify_checksums(out)


def write_files(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_the_template_of_the_base_is_copied(base: Path, adapter: Path, tmp_path: Path) -> None:
    write_files(base, chat_template__jinja="of base", template__json="{}")
    out = merge_adapter(base, adapter, tmp_path / "merged")
    assert (out / "chat_template.jinja").read_text() == "of base"
    assert (out / "template.json").read_text() == "{}"


def test_a_template_of_the_adapter_replaces_that_of_the_base(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    write_files(base, chat_template__jinja="of base", template__json="{}")
    write_files(adapter, chat_template__jinja="of adapter")
    out = merge_adapter(base, adapter, tmp_path / "merged")
    assert (out / "chat_template.jinja").read_text() == "of adapter"
    assert not (out / "template.json").exists()  # it would give gnano another template
    assert (out / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_a_tokenizer_of_the_adapter_comes_with_its_template_or_none(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    write_files(base, chat_template__jinja="of base", special_tokens_map__json="{}")
    for name in TOKENIZER_FILES:
        shutil.copyfile(base / name, adapter / name)
    write_files(adapter, tokenizer_config__json='{"chat_template": "of adapter"}')
    out = merge_adapter(base, adapter, tmp_path / "merged")
    assert names(out) == {*BASE_FILES, *TOKENIZER_FILES, "files.json"}
    assert "of adapter" in (out / "tokenizer_config.json").read_text()


def test_the_template_of_the_adapter_s_checkpoint_is_used(
    runs: Path, base: Path, tmp_path: Path
) -> None:
    tuned = Path(shutil.copytree(find_checkpoint(runs / "tuned"), tmp_path / "tuned"))
    write_files(base, chat_template__jinja="of base")
    write_files(tuned, chat_template__jinja="of tuned")
    out = merge_adapter(base, tuned, tmp_path / "merged")
    assert (out / "chat_template.jinja").read_text() == "of tuned"


def test_an_adapter_is_not_merged_twice(runs: Path, tmp_path: Path) -> None:
    tuned = runs / "tuned"
    checkpoint = find_checkpoint(tuned)
    older = tuned / "checkpoints" / "step-00000002"
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    for base, adapter in (
        (tuned, tuned),
        (older, checkpoint / "adapter"),
        (copy, copy),
        (copy, copy / "adapter"),
    ):
        with pytest.raises(ValueError, match=r"would be merged twice.*gnano weights"):
            merge_adapter(base, adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_a_merged_model_can_be_merged(
    runs: Path, adapter: Path, tmp_path: Path
) -> None:
    verify_checksums(merge_adapter(runs / "tuned", adapter, tmp_path / "merged"))


def test_a_failure_leaves_no_folder(base: Path, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    other = ModelConfig(vocab_size=300, n_embd=32, n_layer=1, n_head=4, n_kv_head=2, ffn_hidden=48)
    path = base / "config.json"
    config = path.read_bytes()
    path.write_text(json.dumps(write_hf_config(other)))
    with pytest.raises(ValueError, match=r"model\.safetensors does not have the shape"):
        merge_adapter(base, adapter, tmp_path / "b" / "merged")
    path.write_bytes(config)
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match="damaged or "):
        merge_adapter(base, adapter, tmp_path / "b" / "merged")
    assert list((tmp_path / "b").iterdir()) == []


@pytest.mark.parametrize("existing", ["folder", "file", "dangling link"])
def test_an_existing_output_is_unchanged(
    base: Path, adapter: Path, tmp_path: Path, existing: str
) -> None:
    out = tmp_path / "out"
    match existing:
        case "folder":
            out.mkdir()
        case "file":
            out.write_text("mine")
        case _:
            out.symlink_to("nowhere")
    with pytest.raises(FileExistsError, match="already exists"):
        merge_adapter(base, adapter, out)
    assert not (out.is_dir() and names(out))
    assert out.is_symlink() or out.exists()


def test_an_output_inside_a_run_is_refused(runs: Path, adapter: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs / "base", tmp_path / "run"))
    with pytest.raises(ValueError, match="which is a run"):
        merge_adapter(run, adapter, run / "checkpoints" / "step-00000009")
    assert names(run / "checkpoints") == {"step-00000004"}
