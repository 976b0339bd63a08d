"""Recipes of the package are valid, and an error in a recipe names its file and key."""

from dataclasses import asdict
from pathlib import Path

import pytest
import tomli_w

from gnano.config.model_config import PRESETS
from gnano.config.recipe import flatten_recipe, list_recipes, load_recipe
from gnano.model.flops import num_parameters

PRETRAINING = [name for name in list_recipes() if not name.endswith(("-sft", "-dpo"))]


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_of_the_package_is_valid(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.train.accumulation_steps(recipe.model.block_size) >= 1
    assert recipe.train.schedule.warmup < recipe.train.steps


@pytest.mark.parametrize("name", PRETRAINING)
def test_every_model_is_pretrained_on_the_published_mix(name: str) -> None:
    data = load_recipe(name).pretraining_data
    assert data.folder == f"data/{name.removesuffix('-fast')}"
    assert [source.weight for source in data.sources.values()] == [0.40, 0.25, 0.35]


def test_the_fine_tuning_recipe_is_the_published_one() -> None:
    recipe = load_recipe("1b-sft")
    data, train = recipe.tuning_data, recipe.train
    assert data.sources["dolly"].repo == "databricks/databricks-dolly-15k"
    assert (data.template, data.epochs, data.kind) == ("alpaca", 3.0, "instructions")
    schedule = train.schedule
    assert (train.optimizer.kind, schedule.kind, schedule.peak) == ("adamw", "cosine", 5e-5)
    assert 0 < data.heldout_fraction < 0.1 and train.keep_best
    assert train.save_every % train.eval_every == 0, "every evaluated step must be saved"


def test_the_reference_recipe_is_the_published_one() -> None:
    recipe = load_recipe("1b")
    assert num_parameters(recipe.model) == 1_050_002_688
    assert recipe.train.steps * recipe.train.tokens_per_step == 13_107_200_000
    adamw, schedule = recipe.train.optimizer, recipe.train.schedule
    assert (adamw.beta1, adamw.beta2, adamw.weight_decay) == (0.9, 0.95, 0.1)
    assert (schedule.peak, schedule.floor, recipe.train.grad_clip) == (3e-4, 0.1, 1.0)


def test_a_recipe_survives_writing_and_reading(tmp_path: Path) -> None:
    recipe = load_recipe("demo")
    file = tmp_path / "again.toml"
    file.write_text(tomli_w.dumps(asdict(recipe)))
    assert load_recipe(str(file)) == recipe


def test_a_preset_can_be_changed(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text('[model]\nshape = "124m"\nn_layer = 3\n')
    model = load_recipe(str(file)).model
    assert (model.n_layer, model.n_embd) == (3, PRESETS["124m"].n_embd)


def test_flatten_recipe_names_every_value() -> None:
    flat = flatten_recipe(load_recipe("demo"))
    assert flat["train.schedule.warmup"] == load_recipe("demo").train.schedule.warmup
    assert flat["data.sources.code.generator"] == "gnano.demo.python_corpus:CODE"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nstepz = 3", r"unknown key train\.stepz \(did you mean 'steps'\?\)"),
        ("[trian]\nsteps = 3", r"unknown key trian \(did you mean 'train'\?\)"),
        ("[data.sources.web]\ncolum = 'x'", r"unknown key data\.sources\.web\.colum"),
        ("[train]\nsteps = 'many'", r"train\.steps is 'many'; it must be a whole number"),
        ("[train]\nsteps = true", r"train\.steps is True; it must be a whole number"),
        ("[train]\ngrad_clip = 'x'", r"train\.grad_clip is 'x'; it must be a number"),
        ("[train]\nprecision = 'fp7'", r"train\.precision is 'fp7'; it must be 'auto' or"),
        ("[data.sources.web]\nfiles = 'x'", r"files is 'x'; it must be a list of texts"),
        ("train = 3", r"train must be a table"),
        ("[model]\nshape = '2b'", r"model\.shape '2b' is none of demo"),
        ("[model]\nn_embd = 100\nn_head = 3", r"does not split into 3 heads"),
        ("[model]\nn_head = ", r"is not valid TOML"),
        ("[data]\nheldout_fraction = 2.0", r"data\.heldout_fraction is 2\.0"),
        ("[data.sources.web]\nweight = -1.0", r"weight is -1\.0"),
        ("[train.schedule]\npeak = 0.0", r"peak is 0\.0"),
    ],
)
def test_an_error_names_file_and_key(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        load_recipe(str(file))
    assert "mine.toml" in str(error.value)


def test_an_unknown_recipe_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ValueError, match=r"No recipe is called '125m' \(did you mean '124m'\?\)"):
        load_recipe("125m")
