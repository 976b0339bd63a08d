"""Small tokenizers of public model families, made with the pipelines that those families use.

save_family("llama2", folder)      tokenizer.json, tokenizer_config.json, as transformers reads
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TEXTS = [
    "Once upon a time there was a naïve 東京 🙂 bird, and it read 12,345 words.\n\n  It's here.",
    "def add(a, b):\n    return a + b  # 100 % of\tthe time\n" * 3,
    "The river and the house: don't, we'll, they've; ÄÖÜ ß é e\u0301 نص עברית 한국어",
    "<s> [INST] <|im_start|>user </s> are only text when somebody types them",
] * 4
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
CONTROLS = {
    "smollm2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"],
    "llama3": ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>"],
    "qwen2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "llama2": ["<unk>", "<s>", "</s>"],
    "mistral": ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"],
}
END = {
    "smollm2": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "qwen2": "<|im_end|>",
    "llama2": "</s>",
    "mistral": "</s>",
}
FAMILIES = tuple(CONTROLS)


def build_family(family: str, size: int = 480) -> Tokenizer:
    """Train a small tokenizer with the pipeline of this family."""
    controls = CONTROLS[family]
    if family in ("llama2", "mistral"):
        backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        if family == "llama2":
            backend.normalizer = normalizers.Sequence(
                [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
            )
        else:
            backend.pre_tokenizer = pre_tokenizers.Metaspace(
                replacement="▁", prepend_scheme="first", split=False
            )
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
        alphabet = sorted({"▁", *"".join(TEXTS[:2])} - {" "})[:120]
        byte_tokens = [f"<0x{number:02X}>" for number in range(256)]
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[*controls, *byte_tokens],
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=False,
        )
        backend.train_from_iterator([text.replace(" ", "▁") for text in TEXTS], trainer)
        # the bytes are no added tokens, only part of the vocabulary
        state = json.loads(backend.to_str())
        state["added_tokens"] = state["added_tokens"][: len(controls)]
        # as converted from SentencePiece: every pair that spells a token, by the token's score
        vocab = state["model"]["vocab"]
        state["model"]["merges"] = [
            [token[:place], token[place:]]
            for token in sorted(vocab, key=vocab.__getitem__)
            for place in range(1, len(token))
            if token[:place] in vocab and token[place:] in vocab and vocab[token] > 255
        ]
        backend = Tokenizer.from_str(json.dumps(state))
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
        )
        return backend
    backend = Tokenizer(models.BPE(ignore_merges=family == "llama3"))
    splits: list[Any]
    if family == "smollm2":
        splits = [pre_tokenizers.Digits(individual_digits=True)]
        splits.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True))
    else:
        pattern = LLAMA3_SPLIT if family == "llama3" else QWEN_SPLIT
        splits = [pre_tokenizers.Split(Regex(pattern), "isolated")]
        splits.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    backend.pre_tokenizer = pre_tokenizers.Sequence(splits)
    backend.decoder = decoders.ByteLevel()
    if family == "qwen2":
        backend.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    backend.add_special_tokens([AddedToken(one, special=True) for one in controls])
    backend.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    if family == "llama3":
        start = backend.token_to_id("<|begin_of_text|>")
        template = processors.TemplateProcessing(
            single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", start)]
        )
        backend.post_processor = processors.Sequence([processors.ByteLevel(), template])
    return backend


def save_family(family: str, folder: Path, size: int = 480) -> Tokenizer:
    """Write the files of a family's tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    backend = build_family(family, size)
    (folder / "tokenizer.json").write_text(backend.to_str(pretty=True), "utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END[family],
        "clean_up_tokenization_spaces": False,
    }
    if family in ("llama2", "mistral", "llama3"):
        config["bos_token"] = CONTROLS[family][1 if family != "llama3" else 0]
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return backend
