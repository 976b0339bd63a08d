"""Chat settings, parsed from and shown as text."""

from dataclasses import fields

import pytest

from gnano.chat.conversation import ChatSettings
from gnano.config.inference_config import SamplingParams

VALUES = {"top_k": "4", "seed": "7", "logit_bias": "13:-5,42:1.5", "tokens": "9"}


def test_all_sampling_parameters_can_be_set_and_shown():
    settings = ChatSettings()
    names = [field.name for field in fields(SamplingParams)] + ["tokens"]
    assert list(vars(settings)) == names
    for name in names:
        value = VALUES.get(name, "1" if isinstance(vars(settings)[name], int) else "0.5")
        changed = settings.with_value(name.replace("_", "-"), value)
        assert changed.format_value(name) == value
        others = {other: shown for other, shown in vars(changed).items() if other != name}
        assert others == {key: vars(settings)[key] for key in others}
        assert changed.with_value(name, settings.format_value(name)) == settings


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("temperature", "warm", "must be a number"),
        ("temperature", "-1", "at least 0 and at most 100"),
        ("temperature", "nan", "finite"),
        ("temperature", "none", "must be a number"),
        ("top_k", "1.5", "must be a whole number"),
        ("top_p", "0", "more than 0 and at most 1"),
        ("seed", "x", "must be a whole number"),
        ("tokens", "0", "at least 1"),
        ("top", "1", "the settings are temperature, top_k"),
    ],
)
def test_an_invalid_value_is_one_sentence(name, value, reason):
    with pytest.raises(ValueError, match=r"\.$") as refused:
        ChatSettings().with_value(name, value)
    assert reason in str(refused.value) and "\n" not in str(refused.value)
