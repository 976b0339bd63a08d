"""The settings of `gnano serve`: its address, its limits and who may use it."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from gnano.utils.files import read_text
from gnano.utils.validation import Range, check_field_ranges, require_agreement


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Address, limits and access of the server."""

    host: str = "127.0.0.1"  # address to listen on; others than this machine's need a key
    port: Annotated[int, Range(0, 65_535)] = 8_000  # 0: any free port
    # texts of a model that are generated together; 0: 8 on a CPU, 32 on a GPU
    parallel: Annotated[int, Range(0, 1_024)] = 0
    context: Annotated[int, Range(0)] = 0  # most tokens of a prompt and its answer; 0: the model's
    queue: Annotated[int, Range(0, 100_000)] = 64  # texts that may wait; further ones get code 429
    timeout: Annotated[float, Range(0, exclusive_minimum=True)] = 600.0  # seconds for a request
    drain_s: Annotated[float, Range(0)] = 30.0  # seconds for open requests after a stop signal
    # the key that clients must send; it is visible to other users of the machine, unlike a file's
    api_key: str = ""
    api_key_file: Path | None = None  # file with one key per line
    open: bool = False  # listen on another address than this machine's without a key
    allow_origin: tuple[str, ...] = ()  # other web pages that may use the server, or *
    allow_host: tuple[str, ...] = ()  # further names under which the server is reached
    max_body_mb: Annotated[float, Range(0, 1_024, exclusive_minimum=True)] = 4.0  # of a request
    # memory of each model for the keys and values of earlier prompts; 0: none
    cache_mb: Annotated[int, Range(0)] = 1_024
    follow: bool = False  # load the checkpoints of a run that is training, as they appear
    runs: Path | None = None  # folder of the runs on the page; default: that of the first model
    preferences: Path | None = None  # file to which the page appends preferences for gnano dpo

    def __post_init__(self) -> None:
        check_field_ranges(self)
        for origin in self.allow_origin:
            scheme, _, host = origin.partition("://")
            if origin != "*" and (scheme not in ("http", "https") or not host or "/" in host):
                raise ValueError(
                    f"--allow-origin is {origin!r}; it must be * or an origin such as "
                    f"https://example.com, without a path."
                )
        if not (self.is_local or self.open or self.api_key or self.api_key_file):
            raise ValueError(
                f"{self.host} can be reached from other machines: set a key (--api-key-file FILE), "
                f"or let everybody in (--open)."
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def read_api_keys(self) -> tuple[str, ...]:
        """Return the keys, none where everybody may use the server."""
        if self.api_key_file is None:
            return (self.api_key,) if self.api_key else ()
        keys = tuple(filter(None, map(str.strip, read_text(self.api_key_file).splitlines())))
        if not keys:
            raise ValueError(f"{self.api_key_file} holds no key; write one on each line.")
        given = {"--api-key": self.api_key or None, "--api-key-file": keys[0]}
        require_agreement("The key", given)
        return keys
