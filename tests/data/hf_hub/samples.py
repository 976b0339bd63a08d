"""Data sets for our small Hub: files of known texts, laid out as the real ones are."""

import io
import json
from typing import Any

from tests.data.hf_hub.hub_server import Hub

SMOLLM, STARCODER = "HuggingFaceTB/smollm-corpus", "bigcode/starcoderdata"
DOLLY = "databricks/databricks-dolly-15k"


def parquet(texts: list[str], like: str, column: str = "") -> bytes:
    """A Parquet file of these texts with the columns of a real data set.

    `like` is fineweb-edu-dedup, cosmopedia-v2 or starcoderdata; `column` renames the texts'.
    """
    import pyarrow
    from pyarrow.parquet import write_table

    rows = range(len(texts))
    columns: dict[str, Any]
    match like:
        case "fineweb-edu-dedup":
            about = {
                "dump": "CC-MAIN-2024-10",
                "url": "https://example.org/page",
                "date": "2024-02-20T00:00:00Z",
                "file_path": "s3://commoncrawl/some.warc.gz",
                "language": "en",
                "language_score": 0.97,
                "token_count": 100,
                "score": 3.1,
                "int_score": 3,
            }
            ids = [f"<urn:uuid:{i:08}>" for i in rows]
            columns = {column or "text": texts, "id": ids, "metadata": [about for _ in rows]}
        case "cosmopedia-v2":
            columns = {
                "prompt": [f"Write about {i}." for i in rows],
                column or "text": texts,
                "token_length": [len(text.split()) for text in texts],
                "audience": ["general"] * len(texts),
                "format": ["textbook_academic_tone"] * len(texts),
                "seed_data": ["web_samples_v2"] * len(texts),
            }
        case "starcoderdata":
            columns = {
                "max_stars_repo_path": [f"src/file{i}.py" for i in rows],
                "max_stars_repo_name": ["someone/project"] * len(texts),
                "max_stars_count": list(rows),
                "id": [str(i) for i in rows],
                column or "content": texts,
            }
        case _:
            raise ValueError(like)
    table = pyarrow.table(columns)
    if not texts:  # no value determines the column's type
        text = pyarrow.array([], pyarrow.string())
        table = pyarrow.table(dict.fromkeys(columns, text))
    out = io.BytesIO()
    write_table(table, out, row_group_size=100)
    return out.getvalue()


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def the_three(rows: int = 50, files: int = 2) -> Hub:
    """The reference recipe's data sets in small: same names, layout, columns and gate.

    `reader` is a token with access to all, `stranger` a valid one without.
    """
    hub = Hub(tokens={"stranger"}, readers={"reader"})

    def shards(folder: str, like: str) -> dict[str, bytes]:
        return {
            f"{folder}/train-{n:05}-of-{files:05}.parquet": parquet(
                [f"{like}, file {n}, text {i}: some words of it." for i in range(rows)], like
            )
            for n in range(files)
        }

    smollm = ("cosmopedia-v2", "fineweb-edu-dedup")
    hub.add(
        SMOLLM,
        {"README.md": b"# SmolLM-Corpus\n"}
        | {name: data for like in smollm for name, data in shards(like, like).items()},
        configs=[
            {"config_name": like, "data_files": [{"split": "train", "path": f"{like}/train-*"}]}
            for like in smollm
        ],
    )
    hub.add(
        STARCODER,
        {"README.md": b"# StarCoder Training Dataset\n"}
        | shards("python", "starcoderdata")
        | shards("rust", "starcoderdata"),
        gated=True,
    )
    dolly = [
        {"instruction": f"Say {i}.", "context": "", "response": str(i), "category": "open_qa"}
        for i in range(rows)
    ]
    hub.add(DOLLY, {"README.md": b"# Dolly\n", "databricks-dolly-15k.jsonl": jsonl(dolly)})
    return hub
