"""What a run looked like: its log as rows, as a picture, in the terminal, as one page.

    metrics.jsonl ──read_metrics──▶ rows ──┬─ terminal_plot ─▶ text
                                           └─ png_plot ──────▶ PNG
    runs/ ─────────list_runs───────────────────────────────▶ a table
    runs/NAME/ ────write_report────────────────────────────▶ runs/NAME/report.html

Pictures need the extra `plot` (matplotlib, plotext); the page comes without one if need be.
"""

from gnano.report.corpus import describe_data, describe_sample
from gnano.report.description import describe
from gnano.report.lineage import Stage, base_name, stages
from gnano.report.metrics import read_metrics
from gnano.report.page import write_report
from gnano.report.planning import plan
from gnano.report.planning_text import plan_text
from gnano.report.plot import png_plot
from gnano.report.runs import list_runs, runs_json, runs_table
from gnano.report.terminal import terminal_plot
from gnano.report.verifying import verify_saved

__all__ = [
    "Stage",
    "base_name",
    "describe",
    "describe_data",
    "describe_sample",
    "list_runs",
    "plan",
    "plan_text",
    "png_plot",
    "read_metrics",
    "runs_json",
    "runs_table",
    "stages",
    "terminal_plot",
    "verify_saved",
    "write_report",
]
