import pytest

from gnano.utils.terminal import best_effort


@pytest.mark.parametrize("error", [OSError(28, "full"), ValueError("no"), RuntimeError("x\ny")])
def test_a_failure_is_a_sentence_and_ends_nothing(
    capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    with best_effort("page"):
        raise error
    said = capsys.readouterr().err
    assert said.startswith("No page (") and said.endswith(".\n") and said.count("\n") == 1


def test_ctrl_c_is_no_failure() -> None:
    with pytest.raises(KeyboardInterrupt), best_effort("page"):
        raise KeyboardInterrupt
