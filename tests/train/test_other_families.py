"""Models of other families are fine-tuned and evaluated, and stay what they were."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.data.sft.test_jinja_template import CHATML
from tests.model.families import build_model
from tests.small_models import with_train
from tests.tokenizer.families import save_family

from gnano.chat.repl import ChatSession
from gnano.checkpoint.run_checkpoints import find_checkpoint
from gnano.config.inference_config import LoadConfig, SamplingParams
from gnano.data.sft.chat_template import ALPACA, read_template
from gnano.data.sft.jinja_template import JinjaTemplate
from gnano.evals.model_adapter import load_eval_model
from gnano.evals.runner import measure_file
from gnano.export.formats import export_model
from gnano.infer.engine import Engine
from gnano.train.trainer import train

# model, tokenizer
PAIRS = {
    "tinyllama": ("llama", "llama2"),
    "smollm2": ("llama, tied", "smollm2"),
    "llama3": ("llama, scaled", "llama3"),
    "mistral": ("mistral", "mistral"),
    "qwen2": ("qwen2", "qwen2"),
    "qwen3": ("qwen3", "qwen2"),
}
PROMPT = "The naïve river 東京 and 12 houses"


@pytest.fixture(scope="module", params=PAIRS)
def foreign(request, tmp_path_factory):
    """A folder as on the Hub: a random model of a family with a tokenizer of its kind."""
    family, tokenizer_kind = PAIRS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    backend = save_family(tokenizer_kind, folder)
    size = -(-backend.get_vocab_size() // 64) * 64  # rows of padding, as in public models
    end = json.loads((folder / "tokenizer_config.json").read_text())["eos_token"]
    ends = {"bos_token_id": None, "eos_token_id": backend.token_to_id(end)}
    model = build_model(family, vocab_size=size, initializer_range=0.1, **ends)
    with torch.no_grad():  # which transformers would sample, too
        model.get_output_embeddings().weight[backend.get_vocab_size() :] = 0
    model.save_pretrained(folder)
    return folder, model


@pytest.fixture(scope="module")
def theirs(foreign):
    from transformers import AutoTokenizer

    return foreign[1], AutoTokenizer.from_pretrained(str(foreign[0]))


@torch.no_grad()
def test_greedy_text_is_that_of_transformers(foreign, theirs):
    model, tokenizer = theirs
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    options = {"max_new_tokens": 30, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    expected = model.generate(ids, **options)[0]
    engine = Engine.load(foreign[0], "cpu", dtype="fp32")
    *_, (_, sequence) = engine.stream(PROMPT, 30, SamplingParams(temperature=0))
    new = expected[ids.shape[1] :].tolist()
    assert sequence.output_ids == new[: len(sequence.output_ids)]
    assert new[len(sequence.output_ids) :] in ([], list(engine.tokenizer.eos_ids))


def test_bits_per_byte_are_those_of_transformers(foreign, theirs, tmp_path):
    model, tokenizer = theirs
    file = tmp_path / "text.txt"
    file.write_text(PROMPT, encoding="utf-8")
    found = measure_file(load_eval_model(foreign[0], LoadConfig(device="cpu", dtype="fp32")), file)
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    if tokenizer.bos_token is None:  # a document starts with the end of the last one
        ids = torch.cat([torch.tensor([[model.config.eos_token_id]]), ids], 1)
    with torch.no_grad():
        loss = model(ids, labels=ids).loss
    bits = loss.item() * (ids.shape[1] - 1) / torch.tensor(2.0).log().item()
    assert found.bits_per_byte == pytest.approx(bits / len(PROMPT.encode()), rel=1e-4)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_tuned_model_is_of_the_same_family(foreign, sft_recipe, tmp_path, rank):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, model = foreign
    changes: dict[str, Any] = {
        "init_from": str(folder),
        "steps": 3,
        "save_every": 3,
        "eval_every": 3,
    }
    changes["tokens_per_step"] = 512
    recipe = with_train(sft_recipe, **changes)
    recipe = replace(recipe, data=replace(recipe.tuning_data, epochs=0.0))
    if rank:
        recipe = with_train(recipe, lora=replace(recipe.train.lora, rank=rank))
    result = train(recipe, tmp_path / "run")
    tuned = find_checkpoint(tmp_path / "run")
    again = AutoModelForCausalLM.from_pretrained(tuned).eval()
    assert type(again) is type(model) and again.config.eos_token_id == model.config.eos_token_id
    names = ("tokenizer.json", "tokenizer_config.json")
    assert all(name in {file.name for file in tuned.iterdir()} for name in names)
    assert (tuned / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    ids = torch.tensor([AutoTokenizer.from_pretrained(tuned)(PROMPT)["input_ids"]])
    with torch.no_grad():
        ours = Engine.load(tuned, "cpu", dtype="fp32").model(ids)
        assert torch.allclose(ours, again(ids).logits, atol=1e-3)
        assert not torch.allclose(again(ids).logits, model(ids).logits, atol=1e-3)
    assert result.is_finished
    if rank:  # the adapter is PEFT's, on the base that it was trained on
        adapted: Any = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(folder), str(tuned / "adapter")
        ).eval()
        with torch.no_grad():
            assert torch.allclose(adapted(ids).logits, again(ids).logits, atol=1e-3)
    if not rank:  # as a folder every family can be exported
        exported = export_model(tuned, "folder", "fp32", tmp_path / "exported").path
        copy = AutoModelForCausalLM.from_pretrained(exported).eval()
        with torch.no_grad():
            assert torch.equal(copy(ids).logits, again(ids).logits)


def test_a_foreign_chat_template_is_learned_kept_and_used(sft_recipe, tmp_path):
    from transformers import AutoTokenizer

    folder = tmp_path / "base"
    backend = save_family("smollm2", folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": CHATML}))
    size = -(-backend.get_vocab_size() // 64) * 64
    build_model("llama, tied", vocab_size=size, initializer_range=0.02).save_pretrained(folder)
    recipe = with_train(
        sft_recipe, init_from=str(folder), steps=2, save_every=2, eval_every=2, tokens_per_step=512
    )
    data = replace(recipe.tuning_data, epochs=0.0, template="")
    train(replace(recipe, data=data), tmp_path / "run")
    tuned = find_checkpoint(tmp_path / "run")
    assert isinstance(read_template(tuned), JinjaTemplate)
    assert read_template(tuned) == read_template(folder)
    session = ChatSession(Engine.load(tuned, "cpu"), read_template(tuned) or ALPACA)
    encoded: Any = AutoTokenizer.from_pretrained(tuned).apply_chat_template(
        [{"role": "user", "content": "Where?"}], add_generation_prompt=True, return_dict=True
    )
    list(session.ask("Where?"))
    assert session.answer_stats[-1].prompt_tokens == len(encoded["input_ids"])
