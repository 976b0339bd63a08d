"""Chat templates of other families give the ids of transformers, and learn only the answers."""

import json

import numpy as np
import pytest
from tests.tokenizer.families import save_family

from gnano.data.sft.chat_template import read_template
from gnano.data.sft.conversations import Conversation, Preference, Turn
from gnano.data.sft.encoding import encode_conversation, encode_preference, encode_prompt
from gnano.data.sft.jinja_template import JinjaTemplate
from gnano.tokenizer.hf_tokenizer import load_tokenizer

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}"
    "{% endgeneration %}{{ '\n' }}{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + "
    "'\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] + eos_token }}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported') }}{% endif %}{% endfor %}"
)
TEMPLATES = {
    "smollm2": CHATML,
    "qwen2": MARKED,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "llama2": MISTRAL,
}
TURNS = (
    Turn("user", "Where is the naïve 東京 river?"),
    Turn("assistant", "Over there, 12 houses on."),
    Turn("user", "  And the bird?"),
    Turn("assistant", "It flew."),
)


@pytest.fixture(scope="module", params=TEMPLATES)
def family(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    save_family(request.param, folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"chat_template": TEMPLATES[request.param]}
    path.write_text(json.dumps(config))
    return folder, load_tokenizer(folder), read_template(folder)


@pytest.fixture(scope="module")
def theirs(family):
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(str(family[0]))


def messages(turns):
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def test_prompts_have_the_ids_of_transformers(family, theirs):
    _, tokenizer, template = family
    assert isinstance(template, JinjaTemplate)
    for count in (1, 3):
        expected = theirs.apply_chat_template(
            messages(TURNS[:count]), add_generation_prompt=True, return_dict=True
        )["input_ids"]
        assert encode_prompt(TURNS[:count], template, tokenizer) == expected


def test_conversations_have_the_ids_of_transformers_and_learn_the_answers(family, theirs):
    _, tokenizer, template = family
    example = encode_conversation(Conversation(TURNS), template, tokenizer)
    expected = theirs.apply_chat_template(messages(TURNS), return_dict=True)["input_ids"]
    assert example.ids.tolist() == expected[: len(example.ids)]
    learned, start = [], 0
    edges = np.flatnonzero(np.diff(example.loss_mask.astype(int), prepend=0, append=0))
    for start, stop in edges.reshape(-1, 2):
        ids = example.ids[start:stop].tolist()
        assert ids[-1] in tokenizer.eos_ids
        learned.append(tokenizer.decode_bytes(ids).decode().strip())
    assert learned == [turn.content for turn in TURNS if turn.role == "assistant"]
    # an answer follows its prompt
    prompt = encode_prompt(TURNS[:3], template, tokenizer)
    assert example.ids[: example.answer_start].tolist() == prompt


def test_typed_control_tokens_stay_text(family):
    _, tokenizer, template = family
    controls = list(tokenizer.control_tokens)
    typed = Turn("user", f"Is {controls[-1]} a word, and {controls[1]}{controls[1]}?")
    plain = Turn("user", "Is it a word?")
    ids = encode_prompt([typed], template, tokenizer)
    usual = encode_prompt([plain], template, tokenizer)
    for control in controls:
        number = tokenizer.control_tokens[control]
        assert ids.count(number) == usual.count(number), control
    assert typed.content in tokenizer.decode(ids)


def test_answers_of_a_preference_follow_the_same_prompt(family):
    _, tokenizer, template = family
    pair = encode_preference(Preference(TURNS[:1], "Near.", "Far away."), template, tokenizer)
    start = pair.chosen.answer_start
    assert start == pair.rejected.answer_start
    assert pair.chosen.ids[:start].tolist() == pair.rejected.ids[:start].tolist()
    assert pair.chosen.ids[-1] == pair.rejected.ids[-1] == tokenizer.eos_ids[0]


def test_what_a_template_refuses_is_a_sentence(tmp_path):
    save_family("mistral", tmp_path)
    turns, template = [Turn("system", "Be brief."), *TURNS[:1]], JinjaTemplate(MISTRAL)
    with pytest.raises(ValueError, match=r"refuses this conversation: Only user and assistant"):
        encode_prompt(turns, template, load_tokenizer(tmp_path))


def test_a_template_that_changes_earlier_messages_is_refused(tmp_path):
    save_family("smollm2", tmp_path)
    template = JinjaTemplate("{{ messages | length }}" + CHATML)
    with pytest.raises(ValueError, match="changes earlier messages when later ones follow"):
        encode_conversation(Conversation(TURNS), template, load_tokenizer(tmp_path))


@pytest.mark.parametrize(
    "source",
    ["{{ messages.__class__.__mro__ }}", "{{ cycler.__init__.__globals__.os.system('true') }}"],
)
def test_a_template_runs_no_code(tmp_path, source):
    save_family("smollm2", tmp_path)
    with pytest.raises(ValueError, match="the chat template refuses this conversation"):
        encode_prompt(TURNS[:1], JinjaTemplate(source), load_tokenizer(tmp_path))
