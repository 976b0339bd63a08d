"""Supervised fine-tuning: starts from its base, trains on the answers, counts epochs."""

import json
import shutil
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.conftest import write_questions
from tests.processes import fingerprint
from tests.small_models import with_train
from transformers import AutoModelForCausalLM, AutoTokenizer

from gnano.config.recipe import Recipe, load_recipe
from gnano.data.sft.chat_template import ALPACA, ChatTemplate, read_template
from gnano.data.sft.conversations import Conversation, Turn
from gnano.data.sft.encoding import encode_conversation
from gnano.data.sft.record_loading import load_conversations
from gnano.model.hf_io import load_model
from gnano.tokenizer.hf_tokenizer import load_tokenizer
from gnano.train.distributed.context import DistContext
from gnano.train.trainer import RunResult, build_task, train
from gnano.train.training_task import Notify
from gnano.train.tuning_task import SFTTask
from gnano.utils.jsonl_log import read_metrics

SINGLE = DistContext(torch.device("cpu"))


def ignore_message(text: str, waiting: bool = False) -> None:
    """Do not print the message."""


def open_task(recipe: Recipe, run: Path, notify: Notify = ignore_message) -> tuple[Recipe, SFTTask]:
    task = build_task(recipe, run, SINGLE, notify)
    assert isinstance(task, SFTTask)
    return task.resolve(recipe), task


def with_data(recipe: Recipe, **changes: object) -> Recipe:
    return replace(recipe, data=replace(recipe.tuning_data, **changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tuned(sft_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return train(sft_recipe, tmp_path_factory.mktemp("tuned") / "run")


def test_steps_follow_from_epochs(sft_recipe: Recipe, tmp_path: Path) -> None:
    one, task = open_task(with_data(sft_recipe, epochs=1), tmp_path)
    three, _ = open_task(with_data(sft_recipe, epochs=3), tmp_path)
    rows = len(task.dataset.rows)
    assert one.train.steps == -(-rows // 4) and three.train.steps == -(-3 * rows // 4)
    as_given, _ = open_task(with_data(sft_recipe, epochs=0), tmp_path)
    assert as_given.train.steps == sft_recipe.train.steps


def test_epoch_has_every_training_answer_once(sft_recipe: Recipe, tmp_path: Path) -> None:
    _, task = open_task(sft_recipe, tmp_path)
    records = load_conversations(sft_recipe.tuning_data)
    train_records = [c for found in records.train.values() for c in found]
    heldout_records = [c for found in records.heldout.values() for c in found]
    assert len(train_records) + len(heldout_records) == 60 and 4 < len(heldout_records) < 25
    seen = Counter(
        index
        for sample in range(task.dataset.sampler.epoch_size)
        for index in task.dataset.rows[task.dataset.locate(sample)[1]]
    )
    assert seen == Counter(range(len(train_records)))
    questions = {one.turns[0].content for one in heldout_records}
    text = " ".join(task.tokenizer.decode(example.ids) for example in task.dataset.items)
    assert not any(f"{question}\n" in text for question in questions)


@pytest.mark.slow
def test_run_starts_with_the_weights_of_its_base(
    sft_recipe: Recipe, base: Path, tmp_path: Path
) -> None:
    frozen = with_train(sft_recipe, schedule=replace(sft_recipe.train.schedule, peak=1e-12))
    result = train(frozen, tmp_path / "run")
    ours, theirs = load_model(result.checkpoint), load_model(base)
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(
            dict(ours.named_parameters())[name], parameter, rtol=0, atol=1e-9
        )
    rows = read_metrics(result.run / "metrics.jsonl")
    assert rows[0]["step"] == 0, "the base is evaluated before the first step"
    assert rows[0]["heldout"] == rows[-1]["heldout"]


def test_heldout_loss_matches_transformers(
    sft_recipe: Recipe, base: Path, tuned: RunResult
) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).requires_grad_(False)
    template = read_template(tuned.checkpoint)
    assert template is not None
    nats, count = 0.0, 0
    for found in load_conversations(sft_recipe.tuning_data).heldout.values():
        for one in found:
            example = encode_conversation(one, template, load_tokenizer(base))
            assert len(example.ids) <= 97
            ids = torch.from_numpy(example.ids.astype("int64"))[None]
            labels = torch.where(torch.from_numpy(example.loss_mask)[None], ids, -100)
            counted = int(example.loss_mask[1:].sum())
            nats += float(model(ids, labels=labels).loss) * counted
            count += counted
    first = read_metrics(tuned.run / "metrics.jsonl")[0]["heldout"]
    assert first["loss"] == pytest.approx(nats / count, abs=2e-5)
    assert first["losses"].keys() == {"even", "odd"} == first["sources"].keys()


def test_loss_falls_and_checkpoint_has_the_chat_template(tuned: RunResult, base: Path) -> None:
    rows = read_metrics(tuned.run / "metrics.jsonl")
    assert rows[-1]["final"] and rows[-1]["heldout"]["loss"] < rows[0]["heldout"]["loss"] - 0.5
    template, tokenizer = read_template(tuned.checkpoint), load_tokenizer(tuned.checkpoint)
    assert isinstance(template, ChatTemplate) and template.user == "Q: {content}\n"
    theirs = AutoTokenizer.from_pretrained(tuned.checkpoint)
    turns = (Turn("user", "Say bird 3"), Turn("assistant", "bird"))
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    ids = theirs.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert ids == encode_conversation(Conversation(turns), template, tokenizer).ids.tolist()
    config = json.loads((tuned.checkpoint / "tokenizer_config.json").read_text())
    assert config["chat_template"] == (tuned.checkpoint / "chat_template.jinja").read_text()


def test_run_records_its_base(tuned: RunResult, base: Path, sft_recipe: Recipe) -> None:
    text = (tuned.run / "recipe.toml").read_text()
    assert str(base) in text and "base_sha256" in text
    again = load_recipe(str(tuned.run / "recipe.toml"))
    assert again.data == sft_recipe.data and again.model.block_size == 96


def test_finished_run_is_unchanged(sft_recipe: Recipe, tuned: RunResult) -> None:
    before = fingerprint(tuned.run)
    again = train(sft_recipe, tuned.run)
    assert again.is_finished and again.start_step == again.total_steps == tuned.total_steps
    assert fingerprint(tuned.run) == before


def test_template_is_read_from_the_base(
    sft_recipe: Recipe, tuned: RunResult, tmp_path: Path
) -> None:
    requested = with_train(with_data(sft_recipe, template=""), init_from=str(tuned.run))
    _, task = open_task(requested, tmp_path)
    assert task.chat_template == read_template(tuned.checkpoint) != ALPACA
    assert task.base.folder == tuned.checkpoint.absolute()


def test_missing_base_is_reported(sft_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Tuning needs a base model.*--from"):
        train(with_train(sft_recipe, init_from=""), tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        train(with_train(sft_recipe, init_from=str(tmp_path / "nowhere")), tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.toml").exists()


@pytest.mark.slow
def test_run_resumes_without_its_base_but_not_from_another(
    sft_recipe: Recipe, base: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(base, tmp_path / "copy"))
    mine = with_train(sft_recipe, init_from=str(copy))
    complete = train(mine, tmp_path / "complete")

    def stop(row: dict[str, object]) -> None:
        if row["step"] == 5:
            signal.raise_signal(signal.SIGTERM)

    assert train(mine, tmp_path / "run", stop).step == 5
    weights = copy / "model.safetensors"
    other = weights.read_bytes()
    weights.write_bytes(other[:-4] + b"\0\0\0\1")
    started = tmp_path / "started"
    started.mkdir()
    for name in ("recipe.toml", "metrics.jsonl"):
        shutil.copy(tmp_path / "run" / name, started)
    with pytest.raises(ValueError, match=r"have changed since the run was started"):
        train(mine, started)  # killed before its first checkpoint
    shutil.rmtree(copy)
    result = train(mine, tmp_path / "run")
    assert result.start_step == 5 and fingerprint(result.run) == fingerprint(complete.run)
    with pytest.raises(ValueError, match=r"is missing, and the run cannot resume"):
        train(mine, started)


def test_fingerprint_depends_on_records_and_template(sft_recipe: Recipe, tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    write_questions(mine)
    sources = {"mine": replace(sft_recipe.tuning_data.sources["mine"], files=(str(mine),))}
    task = open_task(with_data(sft_recipe, sources=sources), tmp_path)[1]
    assert task.fingerprint == open_task(sft_recipe, tmp_path)[1].fingerprint, (
        "the records are the same"
    )
    chatml = open_task(with_data(sft_recipe, template="chatml"), tmp_path)[1]
    write_questions(mine, 61)
    more = open_task(with_data(sft_recipe, sources=sources), tmp_path)[1]
    assert len({task.fingerprint, chatml.fingerprint, more.fingerprint}) == 3


@pytest.mark.slow
def test_bad_records_are_reported_or_refused(sft_recipe: Recipe, tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    write_questions(mine)
    mine.write_text(mine.read_text() + '{"instruction": "Say", "response": ""}\nno json\n')
    sources = {"mine": replace(sft_recipe.tuning_data.sources["mine"], files=(str(mine),))}
    requested = with_data(sft_recipe, sources=sources)
    messages: list[str] = []
    train(requested, tmp_path / "run", notify=lambda text, waiting=False: messages.append(text))
    output = "\n".join(messages)
    assert (
        "2 of 62 records cannot be used" in output
        and "mine.jsonl, line 61: response is empty" in output
    )
    assert "padding" in output and "examples cut" in output and "held out" in output
    with pytest.raises(ValueError, match="2 of 62 records"):
        train(with_data(requested, max_bad_share=0.01), tmp_path / "other")


@pytest.mark.slow
def test_early_stopping(sft_recipe: Recipe, tmp_path: Path) -> None:
    worse = with_train(
        with_data(sft_recipe, epochs=20),
        early_stopping_patience=2,
        eval_every=2,
        save_every=2,
        schedule=replace(sft_recipe.train.schedule, peak=0.3),
    )
    result = train(worse, tmp_path / "run")
    rows = read_metrics(result.run / "metrics.jsonl")
    losses = [row["heldout"]["bits_per_byte"] for row in rows if "heldout" in row]
    assert result.is_finished and result.step < result.total_steps and rows[-1]["final"]
    best = losses.index(min(losses))
    assert len(losses) - 1 - best == 2, "it stops two evaluations after its best"
    again = train(worse, tmp_path / "run")
    assert again.is_finished and again.step == result.step


def test_pretraining_can_start_from_a_base(recipe: Recipe, base: Path, tmp_path: Path) -> None:
    short = with_train(
        recipe, init_from=str(base), steps=2, tokens_per_step=4 * 96, micro_batch_size=4
    )
    result = train(short, tmp_path / "run")
    assert (
        result.is_finished and load_recipe(str(result.run / "recipe.toml")).model.block_size == 96
    )
