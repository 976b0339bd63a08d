"""`gnano prepare`: documents into token shards."""

from pathlib import Path

from gnano.cli.arguments import with_recipe

DESCRIPTION = """\
Turn the documents of a recipe's sources into token shards in its data folder.

Broken off, the same command goes on with the first source that is not finished.

examples:
  gnano prepare demo
  gnano prepare 10m --data.sources.web.files 'wiki/*.parquet' \\
      --data.sources.synthetic.files books.jsonl.gz --data.sources.code.files src/
  gnano prepare mine.toml --data.tokenizer bpe-8192
"""


def main(argv: list[str]) -> int:
    recipe, _ = with_recipe("prepare", DESCRIPTION, argv)
    from gnano.data import prepare
    from gnano.live import LiveLine
    from gnano.report import describe_data

    line = LiveLine()
    try:
        prepare(recipe.data, lambda s, d, t: line.show(f"{s}: {d:,} documents, {t:,} tokens"))
    finally:
        line.close()
    print(describe_data(Path(recipe.data.folder)))
    return 0
