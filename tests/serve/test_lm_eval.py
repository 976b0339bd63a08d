"""lm-evaluation-harness's client of completions gets the scores of `gnano eval`."""

import json

import pytest
from tests.evals.conftest import made_items

from gnano.checkpoint.run_checkpoints import find_checkpoint
from gnano.config.inference_config import EvalConfig, LoadConfig
from gnano.evals.eval_tasks import load_tasks
from gnano.evals.harness import to_lm_eval_task
from gnano.evals.model_adapter import load_eval_model
from gnano.evals.runner import evaluate

lm_eval = pytest.importorskip("lm_eval")
pytest.importorskip("tenacity", reason="the harness needs it for models behind an API")


@pytest.mark.slow
def test_the_harness_gets_the_scores_of_gnano_eval(server, runs, tmp_path):
    path = tmp_path / "mine.jsonl"
    rows = [
        {"query": one.contexts[0], "choices": list(one.answers), "gold": one.gold}
        for one in made_items(12)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    config = EvalConfig(files=(f"mine={path}",), add_bos="no")
    model = load_eval_model(runs / "small", LoadConfig(dtype="fp32", device="cpu"), "no")
    [own] = evaluate(model, config).scores
    [items] = load_tasks((), config.files)
    arguments = {
        "model": "small",
        "base_url": f"{server.url}/v1/completions",
        "tokenizer": str(find_checkpoint(runs / "small")),
        "tokenizer_backend": "huggingface",
        "max_length": 128,
        "num_concurrent": 4,
    }
    found = lm_eval.simple_evaluate(
        model="local-completions",
        model_args=arguments,
        tasks=[to_lm_eval_task(items)],
        bootstrap_iters=0,
        log_samples=True,
    )
    [scores] = found["results"].values()
    # an item may have two answers of almost the same probability
    tolerance = 1.01 / own.items
    assert own.items == 12 and own.acc_norm is not None
    assert scores["acc,none"] == pytest.approx(own.acc.value, abs=tolerance)
    assert scores["acc_norm,none"] == pytest.approx(own.acc_norm.value, abs=tolerance)
