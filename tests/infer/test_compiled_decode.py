"""Compiled decoding steps generate the same texts."""

import pytest
import torch
from tests.infer.conftest import generate_ids

from gnano.config.inference_config import SamplingParams
from gnano.infer import compiled_decode as steps
from gnano.infer.compiled_decode import CompiledDecoder, DecodeRunner
from gnano.infer.engine import INFERENCE_DTYPES, Engine
from gnano.infer.prefix_cache import PrefixCache
from gnano.infer.request import Request
from gnano.infer.weight_formats import fuse_projections, quantize_model
from gnano.utils.platform_support import compile_unsupported_reason

needs_compiler = pytest.mark.skipif(
    compile_unsupported_reason(torch.device("cpu")) is not None,
    reason="no C++ compiler or no headers",
)
GREEDY = SamplingParams(temperature=0)
PROMPTS = ["", "Once upon a time", "Once upon a time there was a small engine", "東京 and 🙂"]


@needs_compiler
@pytest.mark.slow
@pytest.mark.compile
def test_a_compiled_model_generates_the_same_texts(make_engine, save_engine, monkeypatch):
    """For single texts, a conversation, and beyond the end of the context."""
    monkeypatch.setattr(steps, "CACHE_LENGTH_STEP", 32)  # so that a text passes several
    plain = make_engine()
    compiled = Engine.load(save_engine(plain), "cpu", "fp32", compile=True)
    stepped = []
    step = DecodeRunner.step

    def counted(*args):
        stepped.append(1)
        return step(*args)

    monkeypatch.setattr(DecodeRunner, "step", counted)
    for prompt in PROMPTS:
        assert compiled.generate(prompt, 24, GREEDY) == plain.generate(prompt, 24, GREEDY)
    assert len(stepped) > 23 * len(PROMPTS) // 2, "else nothing was compiled"
    sampling = SamplingParams(seed=3, top_p=0.9, repetition_penalty=1.1)
    ids = generate_ids(plain, "Once", 200, sampling, context_shift=True)
    assert generate_ids(compiled, "Once", 200, sampling, context_shift=True) == ids
    text, batch = (
        compiled.encode_prompt("Once upon a time"),
        compiled.new_batch(prefix_cache=PrefixCache()),
    )
    for more in range(1, 4):
        output = generate_ids(compiled, text, 9, GREEDY, batch=batch)
        assert output == generate_ids(plain, text, 9, GREEDY)
        text = (*text, *output, more)
    found, expected = (one.generate_batch(PROMPTS, 9, GREEDY) for one in (compiled, plain))
    assert [one[0].token_ids for one in found] == [one[0].token_ids for one in expected]


@pytest.mark.slow
@pytest.mark.compile
@pytest.mark.parametrize(
    ("dtype", "quant", "code"),
    [
        pytest.param("bf16", "int8", True, marks=needs_compiler),
        ("fp32", "int4", False),
    ],
)
def test_quantized_logits_are_nearly_the_same_compiled(make_engine, dtype, quant, code, request):
    if not code:
        request.getfixturevalue("graphs_only")
    engine = make_engine()
    model = fuse_projections(engine.model.to(INFERENCE_DTYPES[dtype]))
    if quant:
        quantize_model(model, quant)
    batch = engine.new_batch(1, 60)
    batch.decode_runner = DecodeRunner(CompiledDecoder(model), batch.cache)
    ids = engine.encode_prompt("Once upon a time there was a small engine")
    batch.add(Request(prompt_ids=ids, max_new_tokens=8, sampling=GREEDY))
    batch.step()
    row = batch.active[0]
    while batch.active:
        with torch.inference_mode():
            all_ids = torch.tensor([[*ids, *row.output_ids]])
            expected = model.logits(model.hidden_states(all_ids)[:, -1])
            found = batch.decode_runner.step([row.output_ids[-1]])
            batch.cache.lengths -= 1  # undone: the batch computes this step again
        near = 0.05 if dtype == "bf16" else 1e-3
        assert (found - expected).norm() < near * expected.norm()
        batch.step()


def test_a_missing_compiler_is_reported_at_loading(make_engine, save_engine, monkeypatch):
    folder = save_engine(make_engine())
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ValueError, match=r"^torch\.compile needs .* Or load the model without"):
        Engine.load(folder, "cpu", compile=True)
