"""Any tokenizer that a `tokenizer.json` describes, run by the `tokenizers` library.

GPT-2's kind, which gnano trains, has a class of its own in `bpe`; this one reads those of other
models: byte-level BPE with other splits and several control tokens (SmolLM2, Llama 3, Qwen), and
SentencePiece's BPE with byte fallback (Llama 2, Mistral, TinyLlama).

    text ──normalize, split, merge──▶ ids    as the file says, by the library
    ids ──table──▶ bytes ──▶ text            here, so that no stream is cut inside a character

The table has the bytes of each id: a token of a byte-level BPE spells them, and in SentencePiece's
▁ is a space and <0x0A> a byte. Control tokens have none. A text's first space that SentencePiece
adds is left out of a complete text, and kept in the continuation of another.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as Backend

from gnano.tokenizer.bpe import (
    END_OF_TEXT,
    UNICODE_TO_BYTE,
    Tokenizer,
    parse_tokenizer_json,
    replace_surrogates,
)
from gnano.utils.validation import require_agreement

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("tokenizer.model", "vocab.json", "merges.txt"),
)
JINJA_TEMPLATE_FILE = "chat_template.jinja"
CONFIG_FILES = ("generation_config.json", "config.json", "tokenizer_config.json")  # by precedence
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # SentencePiece's
BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class HFTokenizer(Tokenizer):
    """A tokenizer of Hugging Face's format; it is saved as it was read, byte for byte."""

    def __init__(self, files: dict[str, bytes]) -> None:
        """Read the files of a tokenizer by name; raise ValueError if they are not supported."""
        self.files = files
        state = json.loads(files["tokenizer.json"])
        self._backend = Backend.from_str(files["tokenizer.json"].decode("utf-8"))
        # a typed control token is text like any other
        self._backend.encode_special_tokens = True
        self._backend.no_padding()
        self._backend.no_truncation()
        self.vocab = self._backend.get_vocab(with_added_tokens=True)
        if len(set(self.vocab.values())) < len(self.vocab):
            raise ValueError("two of its tokens have the same id")
        self.vocab_size = max(self.vocab.values()) + 1
        added = state.get("added_tokens") or []
        self.control_tokens = {one["content"]: one["id"] for one in added if one.get("special")}
        texts = {one["id"]: one["content"] for one in added if not one.get("special")}
        if state["model"].get("dropout"):
            raise ValueError("its merges are left out at random (dropout)")
        decoder = state.get("decoder") or {}
        steps = {
            step["type"]: step for step in decoder.get("decoders", [decoder] if decoder else [])
        }
        if not steps.keys() & {"ByteLevel", "Metaspace", "Replace"}:
            raise ValueError(f"its decoder is {', '.join(steps) or 'missing'}")
        self.id_bytes = [b""] * self.vocab_size
        for token, number in self.vocab.items():
            if number in texts:
                self.id_bytes[number] = texts[number].encode()
            elif token not in self.control_tokens:
                self.id_bytes[number] = _spell(token, "ByteLevel" in steps)
        self.token_bytes = np.array([len(piece) for piece in self.id_bytes], np.int64)
        # SentencePiece puts a space before a text, so that its first word is like the others
        self.strips_first_space = steps.get("Strip", {}).get("start", 0) > 0 or (
            steps.get("Metaspace", {}).get("prepend_scheme", "never") != "never"
        )
        parts = [state.get(key) for key in ("normalizer", "pre_tokenizer", "model", "added_tokens")]
        self.fingerprint = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        self.name = f"hf-{self.vocab_size}"
        # what the file's post-processor puts before a text
        self.bos_ids = tuple(self._backend.encode("").ids)
        self.eos_ids = self._find_end_ids()
        self.end_of_text_id = self.eos_ids[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return HFTokenizer, (self.files,)

    def encode_array(self, text: str) -> NDArray[np.uint32]:
        """Return the ids of this text as an array, with nothing added before or after."""
        ids = self._backend.encode(replace_surrogates(text), add_special_tokens=False).ids
        return np.array(ids, np.uint32)

    def decode(self, ids: Iterable[int], *, show_end_of_text: bool = False) -> str:
        """Return the complete text of these ids; invalid UTF-8 becomes U+FFFD."""
        text = super().decode(ids, show_end_of_text=show_end_of_text)
        return text.removeprefix(" ") if self.strips_first_space else text

    def save(self, folder: Path, max_length: int | None = None) -> None:
        """Write the files as they were read."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in (*TOKENIZER_FILES, JINJA_TEMPLATE_FILE):
            if name in self.files:
                (folder / name).write_bytes(self.files[name])

    def _find_end_ids(self) -> tuple[int, ...]:
        """Return the ids that end a text, from the first file that states them."""
        for name in CONFIG_FILES:
            content = json.loads(self.files.get(name, b"{}"))
            found = content.get("eos_token_id")
            ids = found if isinstance(found, list) else [] if found is None else [found]
            token = content.get("eos_token")
            token = token.get("content") if isinstance(token, dict) else token
            if not ids and token in self.vocab:
                ids = [self.vocab[token]]
            if ids and all(isinstance(one, int) and 0 <= one < self.vocab_size for one in ids):
                return tuple(ids)
        raise ValueError("no file states the token that ends a text (eos_token)")


def _spell(token: str, is_byte_level: bool) -> bytes:
    """Return the bytes of a token that is not an added one."""
    if is_byte_level:
        return bytes(map(UNICODE_TO_BYTE.__getitem__, token))
    if byte := BYTE_TOKEN.fullmatch(token):
        return bytes([int(byte[1], 16)])
    return token.replace(SPACE, " ").encode()


def _load_hf_tokenizer(folder: Path) -> HFTokenizer:
    """Read the tokenizer of a model folder; raise ValueError, naming the file, if it cannot be."""
    names = dict.fromkeys((*TOKENIZER_FILES, JINJA_TEMPLATE_FILE, *CONFIG_FILES))
    files = {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
    try:
        return HFTokenizer(files)
    except Exception as error:  # the library raises nothing more specific
        reason = str(error).rstrip(".") or type(error).__name__
        raise ValueError(f"{folder / 'tokenizer.json'} is not supported: {reason}.") from None


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read a folder's tokenizer: GPT-2's, one that gnano trained, or that of another family.

    Raises FileNotFoundError without a `tokenizer.json`, ValueError if it is damaged, of a kind
    that is not supported, or contradicts a model's files in the same folder.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist. Give a folder with a tokenizer, such as a checkpoint."
        )
    try:
        state = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}). Copy it here again.") from None
    try:
        tokenizer = Tokenizer(*parse_tokenizer_json(state))
    except ValueError:
        return _load_hf_tokenizer(folder)
    # a model's files have the vocabulary's size, and the ids and names of its control tokens
    ids = {f"that of {END_OF_TEXT} in tokenizer.json": tokenizer.end_of_text_id}
    names = {"that of tokenizer.json": END_OF_TEXT}
    for file in ("config.json", "generation_config.json", "tokenizer_config.json"):
        try:
            content = json.loads((folder / file).read_bytes())
        except (OSError, ValueError, RecursionError):  # the model's loader reports it
            continue
        if not isinstance(content, dict):
            continue
        for key in ("eos_token", "bos_token"):
            stated_id, name = content.get(f"{key}_id"), content.get(key)
            if isinstance(stated_id, list) and len(stated_id) == 1:
                stated_id = stated_id[0]
            require_agreement(f"In {folder} the id of {key}", {**ids, f"that of {file}": stated_id})
            name = name.get("content") if isinstance(name, dict) else name
            require_agreement(f"In {folder} the {key}", {**names, f"that of {file}": name})
        rows = content.get("vocab_size")
        if file == "config.json" and isinstance(rows, int) and rows < tokenizer.vocab_size:
            raise ValueError(
                f"The tokenizer of {folder} has {tokenizer.vocab_size:,} tokens, more than the "
                f"model's {rows:,}."
            )
    return tokenizer
