"""The tokenizer in a GGUF file, written and read.

llama.cpp runs two kinds of BPE, and names how text is split before them:

    gpt2     byte-level, with merges; the split has a name (`tokenizer.ggml.pre`)
    llama    SentencePiece's, with a score per token: of the pairs that spell a token, the one whose
             token has the highest score is merged

A `tokenizer.json` has merges in both. They are scores if every pair that spells a token is a merge
and all merges of a token have the same rank, as in each file converted from SentencePiece.
"""

import json
from collections.abc import Callable, Container, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from gnano.tokenizer.bpe import END_OF_TEXT, Tokenizer
from gnano.tokenizer.hf_tokenizer import BYTE_TOKEN, SPACE, HFTokenizer
from gnano.utils.files import dump_json
from gnano.utils.platform_support import require
from gnano.utils.validation import require_agreement

PADDING_TOKEN = "[PAD{}]"  # of an unused embedding row, as llama.cpp's converter names it
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTES = {
    "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False
}  # fmt: skip
_GPT2_BYTES = {**_BYTES, "use_regex": True}
_SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
# llama.cpp's name of a split, and the steps in tokenizer.json
SPLITS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [_GPT2_BYTES],
    "smollm": [{"type": "Digits", "individual_digits": True}, _GPT2_BYTES],
    "llama-bpe": [{**_SPLIT, "pattern": {"Regex": _LLAMA3_SPLIT}}, _BYTES],
    "qwen2": [{**_SPLIT, "pattern": {"Regex": _LLAMA3_SPLIT.replace("{1,3}", "")}}, _BYTES],
}


def import_gguf() -> Any:
    """Return the package gguf; raise ValueError, saying how to install it, without it."""
    require("gguf", "gguf", "GGUF files need the package gguf")
    import gguf

    return gguf


def add_tokenizer(writer: Any, tokenizer: Tokenizer, vocab_size: int) -> None:
    """Add a tokenizer's metadata to a `GGUFWriter`, with a token for each of the model's rows.

    Raises ValueError for a tokenizer that llama.cpp cannot run.
    """
    kinds = import_gguf().TokenType
    tokens = [PADDING_TOKEN.format(row) for row in range(vocab_size)]
    types = [kinds.UNUSED] * vocab_size
    for token, number in tokenizer.vocab.items():
        tokens[number], types[number] = token, kinds.NORMAL
    scores: list[float] | None = None
    merges: Sequence[Sequence[str]]
    if isinstance(tokenizer, HFTokenizer):
        state = json.loads(tokenizer.files["tokenizer.json"])
        model = state["model"]
        merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        for added in state["added_tokens"]:
            types[added["id"]] = kinds.CONTROL if added["special"] else kinds.USER_DEFINED
        if model.get("byte_fallback"):
            scores = _score_tokens(state, merges, tokens, types)
            split = "default"
            writer.add_add_space_prefix(tokenizer.strips_first_space)
            types[tokenizer.vocab[model["unk_token"]]] = kinds.UNKNOWN
        else:
            split = _name_split(state)
        bos_ids = tokenizer.bos_ids
    else:
        types[tokenizer.end_of_text_id] = kinds.CONTROL
        merges, split, bos_ids = tokenizer.merges, "gpt-2", ()
    if len(bos_ids) > 1:
        raise ValueError("a GGUF file cannot state that texts start with several tokens")
    writer.add_tokenizer_model("gpt2" if scores is None else "llama")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    if scores is not None:
        writer.add_token_scores(scores)
    writer.add_token_types(types)
    if scores is None:
        writer.add_token_merges([f"{left} {right}" for left, right in merges])
    writer.add_bos_token_id(bos_ids[0] if bos_ids else tokenizer.end_of_text_id)
    writer.add_eos_token_id(tokenizer.end_of_text_id)
    if len(tokenizer.eos_ids) > 1:
        writer.add_eot_token_id(tokenizer.eos_ids[1])
    writer.add_add_bos_token(bool(bos_ids))


def _name_split(state: dict[str, Any]) -> str:
    """Return llama.cpp's name of the steps that split a text before its bytes are merged."""
    split = state["pre_tokenizer"] or {}
    steps = split.get("pretokenizers", [split])
    steps = [step | ({"trim_offsets": True} if "trim_offsets" in step else {}) for step in steps]
    for name, known in SPLITS.items():
        if steps == known:
            return name
    raise ValueError(f"llama.cpp has no name for how its tokenizer splits text ({steps})")


def _score_tokens(
    state: dict[str, Any], merges: Sequence[Sequence[str]], tokens: list[str], types: list[Any]
) -> list[float]:
    """Return SentencePiece's score of each token; mark the tokens of bytes in `types`."""
    kinds = import_gguf().TokenType
    split = state["pre_tokenizer"] or {"type": "Metaspace", "split": False}
    if split["type"] != "Metaspace" or split.get("split", True):
        raise ValueError(f"llama.cpp does not split text by {split['type']} before its merges")
    # one entry for the merges of a token that follow one another
    ranks = [token for token, _ in groupby(left + right for left, right in merges)]
    scores = {token: float(-rank) for rank, token in enumerate(ranks)}
    pairs = {(left, right) for left, right in merges}
    for number, token in enumerate(tokens):
        if BYTE_TOKEN.fullmatch(token):
            types[number] = kinds.BYTE
    normal = {token for token, kind in zip(tokens, types, strict=True) if kind == kinds.NORMAL}
    for token in normal:
        if not pairs.issuperset(_split_in_two(token, normal)):
            raise ValueError(f"its merges of {token!r} cannot be stated as scores")
    if len(scores) < len(ranks):
        raise ValueError("its merges of one token have different ranks, and scores have one")
    return [scores.get(token, 0.0) for token in tokens]


def _split_in_two(token: str, known: Container[str]) -> Iterator[tuple[str, str]]:
    for place in range(1, len(token)):
        if token[:place] in known and token[place:] in known:
            yield token[:place], token[place:]


def read_tokenizer(get: Callable[..., Any], path: Path) -> Tokenizer:
    """Return the tokenizer that a file's metadata describes; raise ValueError for other kinds."""
    model, split = get("tokenizer.ggml.model"), get("tokenizer.ggml.pre", "default")
    if model != "llama" and (model != "gpt2" or split not in SPLITS):
        raise ValueError(
            f"{path} has a tokenizer of the kind {model!r} with the split {split!r}; supported are "
            f"'llama', and 'gpt2' with {', '.join(SPLITS)}."
        )
    kinds = import_gguf().TokenType
    tokens = _get_list(get, "tokens", path)
    while tokens and tokens[-1] == PADDING_TOKEN.format(len(tokens) - 1):
        tokens.pop()
    ids = {token: number for number, token in enumerate(tokens)}
    # absent in files that state no control tokens but the end
    types = get("tokenizer.ggml.token_type") or [kinds.NORMAL] * len(tokens)
    merges: Sequence[Sequence[str]]
    try:
        if len(ids) < len(tokens):
            raise ValueError("two of its tokens are the same")
        if model == "llama":
            merges = _merges_by_score(ids, types, _get_list(get, "scores", path))
        else:
            merges = [merge.split(" ") for merge in _get_list(get, "merges", path)]
        if sum(types[number] == kinds.CONTROL for number in ids.values()) > 1 or split != "gpt-2":
            files = _make_files(get, ids, types, merges, "" if model == "llama" else split)
            return HFTokenizer(files)
        tokenizer = Tokenizer(ids, [(left, right) for left, right in merges])
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise ValueError(f"{path}: its tokenizer cannot be used: {error}.") from None
    for end in ("eos", "bos"):
        key = f"tokenizer.ggml.{end}_token_id"
        stated = {f"that of {END_OF_TEXT}": tokenizer.end_of_text_id, key: get(key)}
        require_agreement(f"In {path} the id of {end}_token", stated)
    return tokenizer


def _get_list(get: Callable[..., Any], key: str, path: Path) -> list[Any]:
    found = get(f"tokenizer.ggml.{key}")
    if not isinstance(found, list):
        raise ValueError(f"{path} lists no {key}.")
    return found


def _merges_by_score(
    ids: dict[str, int], types: list[int], scores: list[float]
) -> list[tuple[str, str]]:
    """Return the merges of a `tokenizer.json`: those of the token with the highest score first."""
    normal = {
        token: scores[number]
        for token, number in ids.items()
        if types[number] == import_gguf().TokenType.NORMAL
    }
    order = sorted(normal, key=lambda token: -normal[token])
    return [pair for token in order for pair in _split_in_two(token, normal)]


def _make_files(
    get: Callable[..., Any],
    ids: dict[str, int],
    types: list[int],
    merges: Sequence[Sequence[str]],
    split: str,
) -> dict[str, bytes]:
    """Return a tokenizer's files by name; without a split, those of SentencePiece's kind."""
    tokens = list(ids)
    kinds = import_gguf().TokenType
    bos, eos = (tokens[get(f"tokenizer.ggml.{end}_token_id")] for end in ("bos", "eos"))
    eot = get("tokenizer.ggml.eot_token_id")
    added = [
        {"id": number, "content": token, "special": types[number] != kinds.USER_DEFINED}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for number, token in enumerate(tokens)
        if types[number] in (kinds.CONTROL, kinds.USER_DEFINED, kinds.UNKNOWN)
    ]
    starts = {"SpecialToken": {"id": bos, "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    template = {
        "type": "TemplateProcessing",
        "single": [starts, text],
        "pair": [starts, text, starts, text],
        "special_tokens": {bos: {"id": bos, "ids": [ids[bos]], "tokens": [bos]}},
    }
    unknown = [one["content"] for one in added if types[one["id"]] == kinds.UNKNOWN]
    normalizer: Any = {"type": "NFC"} if split == "qwen2" else None
    decoder: dict[str, Any] = _GPT2_BYTES
    adds_bos = get("tokenizer.ggml.add_bos_token", split in ("", "llama-bpe"))
    if not split:
        has_prefix = get("tokenizer.ggml.add_space_prefix", True)
        prefix = [{"type": "Prepend", "prepend": SPACE}] if has_prefix else []
        to_space = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
        normalizer = {"type": "Sequence", "normalizers": [*prefix, to_space]}
        back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
        steps = [back, {"type": "ByteFallback"}, {"type": "Fuse"}]
        strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
        decoder = {"type": "Sequence", "decoders": [*steps, *([strip] if has_prefix else [])]}
    state = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": SPLITS[split]} if split else None,
        "post_processor": template if adds_bos else None,
        "decoder": decoder,
        "model": {
            "type": "BPE",
            "unk_token": unknown[0] if unknown else None,
            "fuse_unk": not split,
            "byte_fallback": not split,
            "ignore_merges": split == "llama-bpe",
            "vocab": ids,
            "merges": merges,
        },
    }
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": eos}
    ends = {"bos_token_id": ids[bos], "eos_token_id": [ids[eos], *([eot] if eot else [])]}
    files = {
        "tokenizer.json": state,
        "tokenizer_config.json": {**config, "clean_up_tokenization_spaces": False},
        "generation_config.json": ends,
    }
    return {name: dump_json(content).encode() for name, content in files.items()}
