"""Chat templates give the same ids in gnano and through transformers' Jinja template."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from gnano.data.sft.chat_template import (
    ALPACA,
    CHATML,
    PLAIN,
    ChatTemplate,
    load_template,
    read_template,
    save_template,
)
from gnano.data.sft.conversations import Conversation, Turn
from gnano.data.sft.encoding import encode_conversation, encode_prompt
from gnano.tokenizer.bpe import Tokenizer
from gnano.tokenizer.train_bpe import train_bpe

OWN = ChatTemplate(
    user="Q: {content}\n", user_with_context="{context}\nQ: {content}\n", assistant="A:\n"
)
ODD = ChatTemplate(  # with everything that Jinja or a format could stumble over
    begin='{% raw %} "\\ {{ }} é🌍\n',
    begin_with_context="{context} is no hole here\n",
    user="'{content}'\n{{content}}\n",
    user_with_context="{context}|{content}\n",
    assistant="\\n\n",
)
ALL = [ALPACA, CHATML, PLAIN, OWN, ODD]
words = st.text(st.sampled_from("ab \n\t.:#{}%|<>'\"\\é🌍日0"), min_size=1, max_size=30).filter(
    str.strip
)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    turns: list[Turn] = []
    if draw(st.booleans()):
        turns.append(Turn("system", draw(words).strip()))
    for _ in range(draw(st.integers(1, 3))):
        context = draw(st.just("") | words)
        turns.append(Turn("user", draw(words).strip(), context.strip()))
        turns.append(Turn("assistant", draw(words).strip()))
    return Conversation(tuple(turns))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    text = f"{ALPACA.begin}{ALPACA.user}{CHATML.user}{CHATML.assistant} the answer is: there.\n\n"
    return train_bpe([text * 3, "a b\n\n\nab \n é 🌍 日 .:.:##"] * 3, 320)


@pytest.fixture(scope="module")
def hf_tokenizer(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return AutoTokenizer.from_pretrained(folder)


def messages(turns: tuple[Turn, ...]) -> list[dict[str, str]]:
    made = []
    for turn in turns:
        context = {"context": turn.context} if turn.context else {}
        made.append({"role": turn.role, "content": turn.content, **context})
    return made


@settings(max_examples=60, deadline=None)
@given(conversation=conversations(), template=st.sampled_from(ALL))
def test_transformers_renders_the_template_to_the_trained_ids(
    conversation: Conversation, template: ChatTemplate, tokenizer: Tokenizer, hf_tokenizer: Any
) -> None:
    hf_tokenizer.chat_template = template.to_jinja()
    ids = hf_tokenizer.apply_chat_template(messages(conversation.turns), return_dict=False)
    assert encode_conversation(conversation, template, tokenizer).ids.tolist() == ids


@settings(max_examples=40, deadline=None)
@given(conversation=conversations(), template=st.sampled_from(ALL))
def test_the_prompt_in_a_chat_has_the_trained_ids(
    conversation: Conversation, template: ChatTemplate, tokenizer: Tokenizer, hf_tokenizer: Any
) -> None:
    hf_tokenizer.chat_template = template.to_jinja()
    open_turns = conversation.turns[:-1]
    prompt = hf_tokenizer.apply_chat_template(
        messages(open_turns), add_generation_prompt=True, tokenize=False
    )
    assert prompt == "<|endoftext|>" + template.render_prompt(open_turns)
    example = encode_conversation(conversation, template, tokenizer)
    ids = hf_tokenizer(prompt)["input_ids"]
    assert example.ids.tolist()[: len(ids)] == ids == encode_prompt(open_turns, template, tokenizer)
    assert example.loss_mask[len(ids) :].all()


@settings(max_examples=60, deadline=None)
@given(conversation=conversations(), template=st.sampled_from(ALL))
def test_only_answers_and_their_ends_are_learned(
    conversation: Conversation, template: ChatTemplate, tokenizer: Tokenizer
) -> None:
    ids, learned, _ = encode_conversation(conversation, template, tokenizer)
    shown = tokenizer.decode(ids[learned].tolist(), show_end_of_text=True)
    answers = [turn.content for turn in conversation.turns if turn.role == "assistant"]
    assert shown == "".join(answer + "<|endoftext|>" for answer in answers)
    assert ids[0] == ids[-1] == tokenizer.end_of_text_id and not learned[0]


def test_the_alpaca_template_is_the_published_one() -> None:
    question = Turn("user", "Name a city.")
    assert ALPACA.render_prompt((question,)) == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nName a city.\n\n### Response:\n"
    )
    assert ALPACA.render_prompt((replace(question, context="In Peru."),)) == (
        "Below is an instruction that describes a task, paired with an input that provides further "
        "context. Write a response that appropriately completes the request.\n\n### Instruction:\n"
        "Name a city.\n\n### Input:\nIn Peru.\n\n### Response:\n"
    )


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"assistant": "A: "}, "`assistant` is 'A: '; it must end with a new line"),
        ({"user": "Q\n"}, "`user` is 'Q\\n'; it needs {content}"),
        ({"user_with_context": "{content}\n"}, "needs {context}"),
    ],
)
def test_an_invalid_template_is_refused(parts: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError) as refused:
        ChatTemplate(**parts)
    assert reason in str(refused.value)


@settings(max_examples=100, deadline=None)
@given(conversation=conversations(), length=st.integers(8, 120))
def test_a_truncated_example_keeps_its_last_answer(
    conversation: Conversation, length: int, tokenizer: Tokenizer
) -> None:
    complete = encode_conversation(conversation, ALPACA, tokenizer)
    example = complete.truncate(length)
    assert example.num_positions == min(length, complete.num_positions)
    assert example.is_truncated == (complete.num_positions > length)
    assert example.loss_mask[1:].any()  # there is always something to learn
    last = int((~complete.loss_mask).nonzero()[0][-1]) + 1
    if len(complete.ids) - last <= length + 1 - min(32, length):
        assert example.ids.tolist()[last - len(complete.ids) :] == complete.ids.tolist()[last:]
    # and it is one part of the complete example
    text, part = complete.ids.tolist(), example.ids.tolist()
    assert any(text[i : i + len(part)] == part for i in range(len(text) - len(part) + 1))


def test_transformers_reads_the_saved_template(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(ALPACA.to_jinja())
    hf_tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    prompt = hf_tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False
    )
    assert prompt == "<|endoftext|>" + ALPACA.render_prompt((Turn("user", "Hi"),))


@pytest.mark.parametrize("template", ALL)
def test_a_saved_template_is_loaded_unchanged(template: ChatTemplate, tmp_path: Path) -> None:
    save_template(template, tmp_path)
    assert read_template(tmp_path) == template
    assert (tmp_path / "chat_template.jinja").read_text() == template.to_jinja()


def test_a_template_can_be_a_toml_file(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(
        'user = "Q: {content}\\n"\nuser_with_context = "{context}\\nQ: {content}\\n"\n'
        'assistant = "A:\\n"\n'
    )
    assert load_template(str(file)) == OWN
    assert load_template("alpaca") == ALPACA and load_template("chatml") == CHATML
    assert load_template("plain") == PLAIN
    assert read_template(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('usr = "x"', "unknown key 'usr'; known are begin"),
        ("user = 3", "user is 3, not text"),
        ('user = "no hole\\n"', "needs {content}"),
        ('assistant = "A:"', "must end with a new line"),
        ("user =", "is not a template"),
    ],
)
def test_an_invalid_template_file_is_reported(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"own\.toml is not a template") as refused:
        load_template(str(file))
    assert message in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(ValueError, match=r"'alpacca', and there is no such file\. Use alpaca"):
        load_template("alpacca")


@pytest.mark.parametrize("file", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_chat_template_behind_a_byte_order_mark_is_read(file, tmp_path):
    text = ALPACA.to_jinja()
    content = text if file.endswith("jinja") else json.dumps({"chat_template": text})
    (tmp_path / file).write_text(content, "utf-8-sig")
    assert read_template(tmp_path) == ALPACA
