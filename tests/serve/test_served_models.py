"""Every checkpoint of a run has a name, and memory is shared by those in use."""

import shutil
import time
from dataclasses import replace

import pytest
from tests.serve.server_process import ServerProcess, wait_for
from tests.small_models import with_train

from gnano.checkpoint.run_checkpoints import apply_retention, list_checkpoints
from gnano.serve.served_models import FOLLOW_SECONDS
from gnano.train.trainer import train

# memory for two of the three checkpoints
LITTLE_MEMORY = """
from gnano.serve import served_models
served_models.available_memory_bytes = lambda: {memory}
"""


@pytest.fixture(scope="module")
def small_server(runs, tmp_path_factory):
    """A server without memory for all checkpoints; its first run is a copy that may change."""
    folder = tmp_path_factory.mktemp("copies")
    shutil.copytree(runs / "small", folder / "small")
    program = LITTLE_MEMORY.format(memory=1_250_000)
    with ServerProcess(folder / "small", runs / "small-sft", "--cache-mb", 0, program=program) as s:
        s.folder = folder
        yield s


def listed(server):
    return {model["id"]: model["x_gnano"] for model in server.http.get("/v1/models").json()["data"]}


def ask(server, model):
    response = server.post("/v1/completions", model=model, prompt="a", max_tokens=3, seed=1)
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["text"]


@pytest.mark.slow
def test_checkpoints_are_named_loaded_on_demand_and_let_go(small_server):
    found = listed(small_server)
    assert list(found) == ["small", "small-sft", "small@4", "small@2", "small-sft@4"]
    assert [found[name]["step"] for name in ("small", "small@2")] == [4, 2]
    assert found["small"]["vocab_size"] == 300 and found["small"]["context"] == 128
    assert [found[n]["has_chat_template"] for n in ("small", "small-sft")] == [False, True]
    assert not found["small@2"]["is_loaded"] and found["small@2"]["dtype"] is None
    texts = {name: ask(small_server, name) for name in ("small@4", "small@2")}
    assert ask(small_server, "small") == ask(small_server, "") == texts["small@4"]
    assert len(set(texts.values())) == 2
    ask(small_server, "small@2")
    loaded = [name for name, model in listed(small_server).items() if model["is_loaded"]]
    assert loaded == ["small", "small@4", "small@2"]  # small-sft was used before them
    assert small_server.metric("gnano_models_loaded") == 2


@pytest.mark.slow
def test_a_checkpoint_that_appears_later_is_listed_and_a_damaged_one_is_an_error(small_server):
    checkpoints = small_server.folder / "small/checkpoints"
    shutil.copytree(checkpoints / "step-00000002", checkpoints / "step-00000006")
    assert ask(small_server, "small@6") == ask(small_server, "small@2")
    assert listed(small_server)["small"]["step"] == 4  # as at the start
    shutil.copytree(checkpoints / "step-00000002", checkpoints / "step-00000008")
    (checkpoints / "step-00000008/model.safetensors").write_bytes(b"damaged")
    response = small_server.post("/v1/completions", model="small@8", prompt="a")
    assert response.status_code == 500 and str(checkpoints) not in response.text
    wait_for(lambda: any("small@8 cannot be loaded" in line for line in small_server.log))
    assert ask(small_server, "small")


@pytest.mark.slow
def test_a_model_that_does_not_fit_is_refused_at_the_start_with_the_arithmetic(runs):
    with pytest.raises(RuntimeError, match=r"needs about .* GB .*--parallel, --context"):
        ServerProcess(runs / "small", program=LITTLE_MEMORY.format(memory=100_000))


@pytest.mark.slow
def test_following_what_is_no_run_is_refused(runs):
    with pytest.raises(RuntimeError, match="--follow needs a run"):
        ServerProcess(runs / "small/checkpoints/step-00000002", "--follow")


@pytest.mark.slow
def test_following_serves_the_newest_checkpoint_and_lets_training_remove_the_last(
    runs, recipe, tmp_path
):
    run = tmp_path / "small"
    shutil.copytree(runs / "small", run)
    shape = replace(recipe, model=replace(recipe.model, block_size=128))
    more = with_train(shape, steps=8, save_every=2, tokens_per_step=1_024)
    with ServerProcess(run, "--follow") as server:

        def complete():
            return server.openai.completions.create(model="small", prompt="a", max_tokens=3, seed=1)

        assert complete().system_fingerprint == "small@4"
        train(more, run, allowed=["train.steps"])
        wait_for(lambda: listed(server)["small"]["step"] == 8)
        after = complete()
        assert after.system_fingerprint == "small@8"
        assert after.choices[0].text == ask(server, "small@8")
        assert any("small is small@8 now" in line for line in server.log)
        wait_for(lambda: server.metric("gnano_models_loaded") == 1)
        apply_retention(run, keep_last=1, keep_best=False)
        assert [folder.name for folder in list_checkpoints(run)] == ["step-00000008"]
        # a damaged one is told once, and the last good one goes on
        damaged = run / "checkpoints/step-00000009"
        shutil.copytree(list_checkpoints(run)[0], damaged)
        (damaged / "model.safetensors").write_bytes(b"damaged")
        wait_for(lambda: any("cannot be loaded" in line for line in server.log))
        time.sleep(2 * FOLLOW_SECONDS)
        assert sum("cannot be loaded" in line for line in server.log) == 1
        assert complete().system_fingerprint == "small@8"
