"""Shared fixtures: a small prepared corpus, a base model, and recipes for each kind of training."""

import os

# the models have a few thousand weights, for which several threads are slower than one;
# set before torch is imported, and inherited by the processes that tests start
os.environ["OMP_NUM_THREADS"] = "1"

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from gnano.config.data_config import DataConfig, InstructionConfig, InstructionSource, SourceConfig
from gnano.config.model_config import ModelConfig
from gnano.config.recipe import Recipe
from gnano.config.train_config import LRSchedule, TrainConfig
from gnano.data.prepare.pipeline import prepare

WORDS = (
    "the a one every no some river stone bird house winter road name letter song light day "
    "sees finds keeps leaves makes takes calls knows holds turns under over near before after "
    "slowly again never often alone together café naïve 日本 🌍"
).split()


# slow files and folders: started first, so that they do not run alone at the end
SLOW_PATHS = (
    "train/distributed/test_parallel.py",
    "train/distributed/test_context.py",
    "checkpoint/test_master_weights.py",
    "train/test_trainer.py",
    "demo/test_demo_run.py",
    "train/test_tasks_on_ranks.py",
    "chaos/test_disks.py",
    "cli/test_export.py",
    "chaos/",
    "train/distributed/",
    "cli/",
    "train/",
    "export/",
    "evals/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests of a GPU where there is none; sort by SLOW_PATHS, all others follow."""
    tests = Path(__file__).parent
    if on_gpu := [item for item in items if item.get_closest_marker("gpu")]:
        import torch

        if not torch.cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason="PyTorch finds no CUDA GPU here"))

    def position(item: pytest.Item) -> int:
        path = item.path.relative_to(tests) if item.path.is_relative_to(tests) else item.path
        matches = (at for at, slow in enumerate(SLOW_PATHS) if path.is_relative_to(slow))
        return next(matches, len(SLOW_PATHS))

    items.sort(key=position)


def write_corpus(folder: Path, documents: int = 120) -> None:
    """Write two folders of text files, the same on every call."""
    rng = random.Random(0)
    for source in ("left", "right"):
        (folder / source).mkdir(parents=True)
        for number in range(documents):
            text = " ".join(rng.choices(WORDS, k=rng.randrange(20, 120)))
            (folder / source / f"{number:04}.txt").write_text(f"{source} {number}: {text}.\n")


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A pretraining recipe with prepared data: 32 positions, 300 token ids, over two epochs."""
    folder = tmp_path_factory.mktemp("small")
    write_corpus(folder / "corpus")
    data = DataConfig(
        folder=str(folder / "data"),
        tokenizer="bpe-300",
        heldout_fraction=0.1,
        sources={
            "left": SourceConfig(weight=0.6, files=(str(folder / "corpus/left"),)),
            "right": SourceConfig(weight=0.4, files=(str(folder / "corpus/right"),)),
        },
    )
    prepare(data)
    return Recipe(
        model=ModelConfig(
            vocab_size=300,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_kv_head=2,
            ffn_hidden=48,
            block_size=32,
            dropout=0.1,
        ),
        data=data,
        train=TrainConfig(
            steps=40,
            tokens_per_step=512,
            micro_batch_size=8,
            precision="fp32",
            device="cpu",
            threads=1,
            compile="no",
            eval_every=16,
            eval_tokens=256,
            save_every=10,
            schedule=LRSchedule(peak=3e-3, warmup=0.125),
        ),
    )


@pytest.fixture(scope="session")
def base(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder to fine-tune: random weights, and the tokenizer of the recipe's corpus."""
    import torch

    from gnano.data.packed_dataset import TokenizedCorpus
    from gnano.model.hf_io import save_model
    from gnano.model.transformer import GPT

    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(1)
    tokenizer = TokenizedCorpus(Path(recipe.pretraining_data.folder)).tokenizer
    save_model(
        GPT.from_config(replace(recipe.model, block_size=96)), folder, tokenizer.end_of_text_id
    )
    tokenizer.save(folder, max_length=96)
    return folder


def write_questions(path: Path, count: int = 60) -> None:
    """Write records with the keys of Dolly, in two categories; every other record has a context."""
    rng = random.Random(1)
    records = []
    for number in range(count):
        words = rng.choices(WORDS, k=3)
        records.append(
            {
                "instruction": f"Say {' '.join(words)} {number}",
                "context": " ".join(rng.choices(WORDS, k=5)) if number % 2 else "",
                "response": f"{words[0]} {words[-1]}",
                "category": "even" if number % 4 else "odd",
            }
        )
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n")


@pytest.fixture(scope="session")
def sft_recipe(recipe: Recipe, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """An SFT recipe for `base` on 60 records: 96 positions, two epochs of about 7 steps."""
    path = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    write_questions(path)
    sources = {"mine": InstructionSource(files=(str(path),))}
    template = path.with_name("template.toml")
    template.write_text(
        'user = "Q: {content}\\n"\nuser_with_context = "{context}\\nQ: {content}\\n"\n'
    )
    return Recipe(
        data=InstructionConfig(
            template=str(template), epochs=2, heldout_fraction=0.2, sources=sources
        ),
        train=replace(
            recipe.train,
            init_from=str(base),
            tokens_per_step=4 * 96,
            micro_batch_size=2,
            eval_every=4,
            save_every=4,
            schedule=LRSchedule(peak=3e-3, warmup=0.1),
        ),
    )


@pytest.fixture(scope="session")
def dpo_recipe(sft_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A DPO recipe for `base` on 60 pairs of answers: the shorter one is preferred."""
    path = tmp_path_factory.mktemp("preferences") / "preferences.jsonl"
    rng = random.Random(2)
    with path.open("w") as file:
        for number in range(60):
            words = rng.choices(WORDS, k=4)
            record = {"prompt": f"Say {words[0]} {number}", "chosen": words[1]}
            file.write(json.dumps({**record, "rejected": " ".join(words[1:])}) + "\n")
    sources = {"mine": InstructionSource(files=(str(path),))}
    data = replace(sft_recipe.tuning_data, kind="preferences", sources=sources)
    return replace(sft_recipe, data=data, train=replace(sft_recipe.train, dpo_beta=0.5))
