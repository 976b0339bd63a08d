"""A byte-level BPE tokenizer of GPT-2's kind: text to ids and back.

    "a café" ──regex──▶ "a", " café" ──UTF-8──▶ bytes ──merges──▶ ids ──decode──▶ "a café"

A vocabulary and an ordered list of merges define it. All 256 bytes are in the vocabulary, so every
text has ids and decodes from them unchanged. One id is not text: `<|endoftext|>` ends a document,
and only code adds it. The same 13 characters in a text become the ids of 13 characters.

The `tokenizers` library encodes. For GPT-2's vocabulary tiktoken gives the same ids about four
times as fast.
"""

import codecs
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

if TYPE_CHECKING:
    import tiktoken


END_OF_TEXT = "<|endoftext|>"

GPT2_FINGERPRINT = "6e3eedb3c08b6140d173df30b0ff0af4dfddeb09183a5e15a8b99ee20c63a78f"

# GPT-2's split into words as written in tiktoken: the same matches with less backtracking
SPLIT_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

# tiktoken's regex engine panics on a million spaces in a row, which shorter texts cannot contain
TIKTOKEN_MAX_CHARS = 500_000


# the 256 characters that spell GPT-2's vocabulary, in its order, each with its byte: a printable
# byte has its own character, the others have those from U+0100 on
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
UNICODE_TO_BYTE = {chr(byte): byte for byte in _PRINTABLE}
UNICODE_TO_BYTE |= {chr(256 + number): byte for number, byte in enumerate(_OTHERS)}


class Tokenizer:
    """A byte-level BPE from `load_gpt2_tokenizer()`, `train_bpe()` or `load_tokenizer(folder)`.

    It encodes in one thread. It can be pickled, so that several processes can encode faster.
    """

    vocab_size: int  # ids run from 0 to vocab_size - 1
    end_of_text_id: int  # the id of <|endoftext|>, which separates documents
    bos_ids: tuple[int, ...]  # the ids before a text, as in the model's training
    eos_ids: tuple[int, ...]  # the ids that end a text
    control_tokens: dict[str, int]  # tokens that are not text, and their ids
    files: dict[str, bytes]  # of another family's model, by name: kept when saving
    name: str  # "gpt2", or "bpe-4096" by its size
    fingerprint: str  # SHA-256 of all that determines the ids
    vocab: dict[str, int]  # the id of each token, spelled in the keys of `UNICODE_TO_BYTE`
    merges: list[tuple[str, str]]  # earlier ones are applied first
    id_bytes: list[bytes]  # of each id, empty for end-of-text
    # the number of bytes of each id, shape [V]. With them bits per byte can be computed,
    # which compare across vocabularies, unlike loss per token
    token_bytes: NDArray[np.int64]

    def __init__(self, vocab: dict[str, int], merges: Sequence[tuple[str, str]]) -> None:
        words = vocab.keys() - {END_OF_TEXT}
        if END_OF_TEXT not in vocab:
            raise ValueError(f"its vocabulary has no {END_OF_TEXT}")
        if missing := UNICODE_TO_BYTE.keys() - words:
            raise ValueError(f"its vocabulary misses {len(missing)} of the 256 bytes")
        if set(vocab.values()) != set(range(len(vocab))):
            raise ValueError(f"its ids are not 0 to {len(vocab) - 1}, each once")
        if "" in words or not UNICODE_TO_BYTE.keys() >= set("".join(words)):
            raise ValueError("some of its tokens are not spelled in GPT-2's characters for bytes")
        for left, right in merges:
            if not {left, right, left + right} <= words:
                raise ValueError(f"its merge of {left!r} and {right!r} is not in its vocabulary")
        self.vocab, self.merges = vocab, list(merges)
        self._backend = Backend(models.BPE(vocab, self.merges))
        self._backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._backend.decoder = decoders.ByteLevel()
        end = AddedToken(END_OF_TEXT, special=True, normalized=False)
        self._backend.add_special_tokens([end])
        # encode special tokens like any other text: a typed <|endoftext|> is not the control token
        self._backend.encode_special_tokens = True
        self.vocab_size = len(vocab)
        self.end_of_text_id = vocab[END_OF_TEXT]
        self.bos_ids = self.eos_ids = (self.end_of_text_id,)
        self.control_tokens = {END_OF_TEXT: self.end_of_text_id}
        self.files = {}
        self.id_bytes = [
            b"" if token == END_OF_TEXT else bytes(map(UNICODE_TO_BYTE.__getitem__, token))
            for token in sorted(vocab, key=vocab.__getitem__)
        ]
        self.token_bytes = np.array([len(piece) for piece in self.id_bytes], np.int64)
        definition = [sorted(vocab.items()), self.merges, SPLIT_PATTERN]
        self.fingerprint = hashlib.sha256(json.dumps(definition).encode()).hexdigest()
        is_gpt2 = self.fingerprint == GPT2_FINGERPRINT
        self.name = "gpt2" if is_gpt2 else f"bpe-{self.vocab_size}"

    def __reduce__(self) -> tuple[Any, ...]:
        # the backend's pickle loses `encode_special_tokens`
        return Tokenizer, (self.vocab, self.merges)

    def encode(self, text: str) -> list[int]:
        """Return the ids of this text, with nothing added before or after."""
        ids: list[int] = self.encode_array(text).tolist()
        return ids

    def encode_array(self, text: str) -> NDArray[np.uint32]:
        """Return the ids as an array; tiktoken makes no Python object for each id."""
        text = replace_surrogates(text)
        if self.name == "gpt2" and len(text) < TIKTOKEN_MAX_CHARS:
            return self._tiktoken.encode_to_numpy(text, disallowed_special=())
        return np.array(self._backend.encode(text, add_special_tokens=False).ids, np.uint32)

    def encode_with_controls(
        self, text: str, with_controls: bool = True
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the ids of a text whose control tokens count, and where each starts in it."""
        self._backend.encode_special_tokens = not with_controls
        try:
            found = self._backend.encode(replace_surrogates(text), add_special_tokens=False)
        finally:
            self._backend.encode_special_tokens = True
        starts = [start for start, _ in found.offsets]
        return np.array(found.ids, np.int64), np.array(starts, np.int64)

    def split_at_controls(self, text: str) -> list[str]:
        """Return the parts of a text, of which each control token is one."""
        controls = sorted(self.control_tokens, key=len, reverse=True)
        parts = re.split(f"({'|'.join(map(re.escape, controls))})", text) if controls else [text]
        return [part for part in parts if part]

    def decode(self, ids: Iterable[int], *, show_end_of_text: bool = False) -> str:
        """Return the text of these ids; invalid UTF-8 (half a character) becomes U+FFFD.

        End-of-text is left out, or written as `<|endoftext|>` with `show_end_of_text`.
        """
        end = END_OF_TEXT.encode() if show_end_of_text else b""
        return self.decode_bytes(ids, end).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int], end_of_text: bytes = b"") -> bytes:
        """Return the exact bytes of these ids, for streaming."""
        ids = list(ids)
        # negative ids such as -1 and -100 would index from the vocabulary's end
        if ids and not (min(ids) >= 0 and max(ids) < self.vocab_size):
            wrong = next(i for i in ids if not 0 <= i < self.vocab_size)
            raise ValueError(
                f"Id {wrong} is outside the vocabulary of {self.name}, 0 to "
                f"{self.vocab_size - 1}. Decode only ids of the same tokenizer."
            )
        return b"".join(end_of_text if i == self.end_of_text_id else self.id_bytes[i] for i in ids)

    def save(self, folder: Path, max_length: int | None = None) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` in the format of `transformers`.

        `max_length` is the longest input, in tokens, of the model that it is saved with.
        """
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": END_OF_TEXT,
            "eos_token": END_OF_TEXT,
            "add_bos_token": False,
            "add_eos_token": False,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
        }
        if max_length is not None:
            config["model_max_length"] = max_length
        (folder / "tokenizer.json").write_text(self._backend.to_str(), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(
            json.dumps(config, indent=2) + "\n", encoding="utf-8"
        )

    @cached_property
    def _tiktoken(self) -> "tiktoken.Encoding":
        """An encoder for GPT-2 only: it has ranks instead of merges, which differ in other BPEs."""
        import tiktoken

        ranks = {piece: id for id, piece in enumerate(self.id_bytes) if piece}
        # never matched in a text, but without any `encode_to_numpy` stops at each character
        special = {END_OF_TEXT: self.end_of_text_id}
        return tiktoken.Encoding(
            "gpt2", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=special
        )


class IncrementalDetokenizer:
    """Turns the bytes of tokens into text that no later token can change.

    A token may end inside a character, and a stop string may span tokens: such text is held back,
    so that neither a broken character nor the start of a stop string is ever returned.
    """

    def __init__(self, stop_strings: Sequence[str] = ()) -> None:
        self.stop_strings = (
            (stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings)
        )
        if any(not isinstance(text, str) or not text for text in self.stop_strings):
            raise ValueError("A stop string is empty or not a string; give at least one character.")
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.pending_text = ""
        self.num_final = 0  # characters returned so far
        self.stopped = False  # by a stop string; nothing follows

    @property
    def text_length(self) -> int:
        """The characters of the tokens so far, final or not; an incomplete one counts."""
        has_partial = bool(self.decoder.getstate()[0])
        return self.num_final + len(self.pending_text) + has_partial

    def push(self, data: bytes, final: bool = False) -> str:
        """Add a token's bytes; return the text that is now final."""
        if self.stopped:
            return ""
        self.pending_text += self.decoder.decode(data, final)
        # if several match, the one that ends first wins, independent of chunk boundaries
        found = [
            (start + len(stop), start)
            for stop in self.stop_strings
            if (start := self.pending_text.find(stop)) >= 0
        ]
        if found:
            self.stopped = True
            text, self.pending_text = self.pending_text[: min(found)[1]], ""
            self.num_final += len(text)
            return text
        # hold back the longest suffix that is a prefix of a stop string
        end = len(self.pending_text)
        longest = 0 if final else max(map(len, self.stop_strings), default=1) - 1
        for start in range(max(0, end - longest), end):
            if any(stop.startswith(self.pending_text[start:]) for stop in self.stop_strings):
                end = start
                break
        text, self.pending_text = self.pending_text[:end], self.pending_text[end:]
        self.num_final += end
        return text


def replace_surrogates(text: str) -> str:
    r"""Return the text with lone surrogates, which UTF-8 cannot encode, replaced by U+FFFD.

    A JSON file may have them (`"\ud83d"`); a high and a low one in a row become a character.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def parse_tokenizer_json(state: Any) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return its vocabulary and merges; raise ValueError if it has settings not supported here."""
    match state:
        case {
            "normalizer": None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, **split},
            "model": {"type": "BPE", "vocab": dict(vocab), "merges": list(merges), **model},
            "added_tokens": [{"content": str(added), "id": int(end)}],
        }:
            # settings that change the ids; files of older versions do not have them
            uses_regex = split.get("use_regex", True)
            is_plain = uses_regex and not (model.get("dropout") or model.get("ignore_merges"))
        case _:
            is_plain = False
    if not is_plain or added != END_OF_TEXT:
        raise ValueError("it has another model, another split or other added tokens")
    if {type(id) for id in vocab.values()} != {int}:
        raise ValueError("its ids are not whole numbers")
    pairs = []
    for merge in merges:
        match merge.split(" ") if isinstance(merge, str) else merge:
            case [str(left), str(right)]:
                pairs.append((left, right))
            case _:
                raise ValueError("its merges are not pairs of tokens")
    return vocab | {END_OF_TEXT: end}, pairs
