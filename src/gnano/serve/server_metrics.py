"""The server's figures in Prometheus' text format."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # seconds

Labels = tuple[tuple[str, str], ...]


@dataclass
class Histogram:
    """Counts of durations, by upper bound."""

    counts: list[int] = field(default_factory=lambda: [0] * len(BUCKETS))
    total: int = 0
    seconds: float = 0.0

    def observe(self, seconds: float) -> None:
        """Add a duration."""
        self.total += 1
        self.seconds += seconds
        for number, bound in enumerate(BUCKETS):
            self.counts[number] += seconds <= bound


@dataclass
class ServerMetrics:
    """Counters since the start."""

    requests: Counter[Labels] = field(default_factory=Counter)  # by route and code
    prompt_tokens: Counter[Labels] = field(default_factory=Counter)  # by model
    cached_tokens: Counter[Labels] = field(default_factory=Counter)
    output_tokens: Counter[Labels] = field(default_factory=Counter)
    request_seconds: Histogram = field(default_factory=Histogram)  # of generation requests
    first_token_seconds: Histogram = field(default_factory=Histogram)

    def format(self, gauges: Mapping[str, tuple[str, Mapping[Labels, float]]]) -> str:
        """Return all figures and these gauges: name to help and values by labels."""
        counters = {
            "gnano_requests_total": ("Requests by route and code.", self.requests),
            "gnano_prompt_tokens_total": ("Tokens of prompts.", self.prompt_tokens),
            "gnano_cached_tokens_total": ("Tokens of prompts from a cache.", self.cached_tokens),
            "gnano_output_tokens_total": ("Generated tokens.", self.output_tokens),
        }
        histograms = {
            "gnano_request_seconds": ("Duration of generation requests.", self.request_seconds),
            "gnano_first_token_seconds": ("Time to the first token.", self.first_token_seconds),
        }
        lines: list[str] = []
        for name, (text, counter) in counters.items():
            lines += _format_family(name, "counter", text, counter.items())
        for name, (text, values) in gauges.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += _format_family(name, kind, text, values.items())
        for name, (text, histogram) in histograms.items():
            bounds = [*map(str, BUCKETS), "+Inf"]
            counts = zip(bounds, [*histogram.counts, histogram.total], strict=True)
            rows: list[tuple[Labels, float]] = [((("le", bound),), n) for bound, n in counts]
            family = _format_family(name, "histogram", text, rows)
            lines += [*family[:2], *(row.replace(name, f"{name}_bucket", 1) for row in family[2:])]
            lines += [f"{name}_sum {histogram.seconds}", f"{name}_count {histogram.total}"]
        return "\n".join(lines) + "\n"


def _format_family(
    name: str, kind: str, text: str, rows: Iterable[tuple[Labels, float]]
) -> list[str]:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for labels, value in rows:
        inside = ",".join(f'{key}="{_escape(label)}"' for key, label in labels)
        lines.append(f"{name}{{{inside}}} {value}" if inside else f"{name} {value}")
    return lines


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
