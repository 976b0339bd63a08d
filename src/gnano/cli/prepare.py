r"""Turn the documents of a recipe's sources into token shards in its data folder.

Sources are your own files, or data sets of the Hub, of which only the files that the budget needs
are downloaded. Interrupted, killed, or started with another number of workers, the same command
resumes and gives the same shards, byte for byte. `gnano pretrain` may start as soon as every
source has a first shard.

command examples:
  gnano prepare demo
  gnano prepare 1b                             data sets of the Hub, some 13 billion tokens
  gnano prepare 10m --data.sources.web.files 'wiki/*.parquet' \
      --data.sources.synthetic.files books.jsonl.gz --data.sources.code.files src/
  gnano prepare mine.toml --data.tokenizer bpe-8192 --data.workers 2
"""

from contextlib import closing
from pathlib import Path

from gnano.cli.args import parse_recipe
from gnano.utils.terminal import StatusLine, echo


def main(argv: list[str]) -> None:
    """Prepare the data, and describe the folder."""
    recipe, _ = parse_recipe("prepare", __doc__, argv)
    from gnano.data.prepare.pipeline import prepare
    from gnano.reporting.description import describe_data

    with closing(StatusLine()) as line:
        prepare(recipe.pretraining_data, line.update)
    echo(describe_data(Path(recipe.pretraining_data.folder)))
