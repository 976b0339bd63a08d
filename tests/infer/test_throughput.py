"""Measured generation speed, and `gnano bench`."""

import json
from contextlib import suppress

import pytest
import torch

from gnano.cli import main
from gnano.infer import throughput
from gnano.infer.throughput import count_weight_bytes, measure_throughput
from gnano.infer.weight_formats import quantize_model


@pytest.fixture(autouse=True)
def _short_reads(monkeypatch):
    monkeypatch.setattr(throughput, "READ_BYTES", 2**24)


def test_a_step_reads_all_weights_but_the_input_embedding(make_engine):
    engine = make_engine()
    stored = {name: t.numel() for name, t in engine.model.named_parameters()}
    rest = sum(stored.values()) - stored["model.embed_tokens.weight"]
    assert count_weight_bytes(engine.model) == 4 * rest
    matrices = sum(p.numel() for p in engine.model.parameters() if p.dim() == 2)
    matrices -= stored["model.embed_tokens.weight"]
    engine.model.bfloat16()
    assert count_weight_bytes(engine.model) == 2 * rest
    small = count_weight_bytes(quantize_model(engine.model, "int8"))
    assert matrices < small < 2 * rest - matrices / 2


def test_each_batch_size_is_measured(engine):
    speed = measure_throughput(engine, [1, 3], prompt_tokens=10, new_tokens=6)
    assert [one.batch_size for one in speed.steps] == [1, 3] and speed.prompt_tokens == 10
    assert speed.first_token_s > 0 and speed.read_bytes_per_s > 1e8
    config = engine.model.config
    each = 4 * 2 * config.n_layer * config.n_kv_head * config.head_size  # fp32 keys and values
    for one in speed.steps:
        assert one.bytes_per_step == speed.weight_bytes + one.batch_size * 13 * each
        expected = one.bytes_per_step * one.tokens_per_s / one.batch_size
        assert speed.bandwidth_share(one) == pytest.approx(expected / speed.read_bytes_per_s)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"prompt_tokens": 90, "new_tokens": 20},
            r"90 \+ 20 tokens do not fit in the model's context of 96",
        ),
        ({"batch_sizes": [0]}, "texts is 0; it must be at least 1"),
        ({"batch_sizes": [10**20]}, "at most 4,096"),
        ({"batch_sizes": []}, "No batch size is given"),
        ({"new_tokens": 1}, "tokens is 1; it must be at least 2"),
        ({"prompt_tokens": 0}, "prompt is 0; it must be at least 1"),
    ],
)
def test_invalid_sizes_are_refused(engine, options, reason):
    with pytest.raises(ValueError, match=reason):
        measure_throughput(engine, **options)


def test_the_command_prints_a_table_and_json(engine, save_engine, capsys):
    folder = save_engine(engine)

    def run(*options: str) -> str:
        with suppress(SystemExit):
            arguments = ["--texts", "1", "2", "--prompt", "8", "--tokens", "4"]
            main(["bench", str(folder), *arguments, *options])
        return str(capsys.readouterr().out)

    table = run()
    assert table.count("tokens/s") == 3 and "GB/s" in table
    found = json.loads(run("--json", "--dtype", "bf16"))
    assert [step["batch_size"] for step in found["steps"]] == [1, 2]
    assert found["weight_bytes"] == count_weight_bytes(engine.model.to(torch.bfloat16))
    assert found["peak_gb"] > 0 and found["load_s"] > 0
