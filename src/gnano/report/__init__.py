"""What a run looked like: its log as rows, as a picture, in the terminal, as one page.

    metrics.jsonl ──read_metrics──▶ rows ──┬─ terminal_plot ─▶ text
                                           └─ png_plot ──────▶ PNG
    runs/ ─────────list_runs───────────────────────────────▶ a table
    runs/NAME/ ────write_report────────────────────────────▶ runs/NAME/report.html

Pictures need the extra `plot` (matplotlib, plotext); the page comes without one if need be.
"""
