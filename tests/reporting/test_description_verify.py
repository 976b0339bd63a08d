"""`verify_checkpoints` finds every damaged byte, and verifies all checkpoints."""

from pathlib import Path

import pytest

from gnano.reporting.description import describe, verify_checkpoints


@pytest.fixture
def run(trained_copy: Path) -> Path:
    return trained_copy


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_intact_checkpoints_are_reported(run: Path) -> None:
    shown: list[str] = []
    lines = list(verify_checkpoints(str(run), shown.append))
    folders = [run / "checkpoints" / f"step-{step:08}" for step in (2, 4, 6)]
    assert lines == [f"{folder}: intact" for folder in folders]
    assert all(str(f) in text for f, text in zip(folders, shown, strict=True))
    assert list(verify_checkpoints(str(folders[1]))) == [f"{folders[1]}: intact"]


def test_one_flipped_bit_is_found_and_the_others_are_still_verified(run: Path) -> None:
    file = run / "checkpoints" / "step-00000002" / "model.safetensors"
    flip(file)
    lines: list[str] = []
    with pytest.raises(ValueError, match="step-00000002, 1 of 3"):
        lines.extend(verify_checkpoints(str(run)))
    assert [line.rpartition(": ")[2] for line in lines[1:]] == ["intact", "intact"]
    assert str(file) in lines[0] and "damaged" in lines[0]


def test_without_verify_only_sizes_are_checked(run: Path) -> None:
    """Without --verify it is instant for a checkpoint of 12 GB, and misses a flipped bit."""
    folder = run / "checkpoints" / "step-00000006"
    flip(folder / "model.safetensors")
    assert "--verify" in describe(str(folder))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"tokenizer\.json is missing"):
        describe(str(folder))


def test_a_path_without_checkpoints_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no checkpoint"):
        list(verify_checkpoints(str(tmp_path)))
    with pytest.raises(ValueError, match="gnano data verify"):
        list(verify_checkpoints("1b"))
