"""Counters and histograms over all series as text, fast: a page of 10,000 series is more than 200,000 lines.

`prometheus_client` takes seconds for such a page. Here the labels of a series are escaped once and set into one block
with all its lines. In the order of labels and in numbers the text follows `prometheus_client`; OpenMetrics differs from
the classic format in the name of the counter's family, and in exemplars, which the classic one does not have.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from operators.kernels.resolution import CLASSIC_BOUNDS_S, classic_counts
from sinks.exposition import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.metrics_core import Metric

    from operators.kernels.tally_frame import Exemplar, TallyFrame

REQUESTS: Final = "telemetry_requests"
"""Family of the counter; its samples have `_total`."""

DURATION: Final = "telemetry_request_duration_seconds"
"""Family of the histogram."""

REQUESTS_HELP: Final = "Requests by service, endpoint and status code."
DURATION_HELP: Final = "How long requests took."

LE: Final[tuple[str, ...]] = (
    *(floatToGoString(bound) for bound in CLASSIC_BOUNDS_S),  # type: ignore[no-untyped-call]
    "+Inf",
)
"""The classic buckets, as their label has them."""

_US_PER_S: Final = 1e6
_MS_PER_S: Final = 1e3
_LABELS: Final = "\0"
_BLOCK: Final = "".join(
    [
        *(f'{DURATION}_bucket{{{_LABELS},le="{le}"}} %d\n' for le in LE),
        f"{DURATION}_count{{{_LABELS}}} %d\n",
        f"{DURATION}_sum{{{_LABELS}}} %r\n",
    ]
)


def render(frames: Sequence[TallyFrame], *, openmetrics: bool) -> str:
    """Write the counters and histograms of frames as text.

    Args:
        frames: One for each shard.
        openmetrics: Whether for OpenMetrics 1.0, with exemplars, instead of the classic text format.

    Returns:
        Families with help and type, complete lines. OpenMetrics needs `# EOF` after the last family of the page.
    """
    total = REQUESTS if openmetrics else f"{REQUESTS}_total"
    texts = [f"# HELP {total} {REQUESTS_HELP}\n# TYPE {total} counter\n"]
    for frame in frames:
        texts += _counters(frame)
    texts.append(f"# HELP {DURATION} {DURATION_HELP}\n# TYPE {DURATION} histogram\n")
    for frame in frames:
        texts += _histograms(frame, frame.exemplars if openmetrics else ())
    return "".join(texts)


def families(frames: Sequence[TallyFrame]) -> Iterator[Metric]:
    """Build the same samples as objects of `prometheus_client`, for scrapers that want names escaped their way.

    Args:
        frames: One for each shard.

    Yields:
        The counter, then the histogram; without exemplars.
    """
    counter = CounterMetricFamily(REQUESTS, REQUESTS_HELP, labels=("service", "endpoint", "code"))
    histogram = HistogramMetricFamily(DURATION, DURATION_HELP, labels=("service", "endpoint"))
    for frame in frames:
        for row, status, count in _codes(frame):
            counter.add_metric([frame.service[row], frame.endpoint[row], str(status)], count)
        for row, counts in enumerate(classic_counts(frame).tolist()):
            histogram.add_metric(
                [frame.service[row], frame.endpoint[row]],
                list(zip(LE, counts, strict=True)),
                sum_value=float(frame.sum_s[row]),
            )
    yield from (counter, histogram)


def classic_bucket(latency_us: int) -> int:
    """Choose the classic bucket of a latency: its position in `LE`."""
    return bisect_left(CLASSIC_BOUNDS_S, latency_us / _US_PER_S)


def _counters(frame: TallyFrame) -> list[str]:
    """Write one line for each series and status code."""
    labels = _labels(frame)
    return [f'{REQUESTS}_total{{code="{code}",{labels[row]}}} {count}\n' for row, code, count in _codes(frame)]


def _histograms(frame: TallyFrame, exemplars: Sequence[Exemplar]) -> list[str]:
    """Write the lines of each series as one text."""
    counts = classic_counts(frame).tolist()
    texts = [
        _BLOCK.replace(_LABELS, labels.replace("%", "%%")) % (*row, row[-1], sum_s)
        for labels, row, sum_s in zip(_labels(frame), counts, frame.sum_s.tolist(), strict=True)
    ]
    for one in exemplars:
        lines = texts[one.row].split("\n")
        lines[classic_bucket(one.latency_us)] += (
            f' # {{trace_id="{escaped(one.trace_id)}"}} {one.latency_us / _US_PER_S!r} {one.timestamp_ms / _MS_PER_S!r}'
        )
        texts[one.row] = "\n".join(lines)
    return texts


def _labels(frame: TallyFrame) -> list[str]:
    return [
        f'endpoint="{escaped(endpoint)}",service="{escaped(service)}"'
        for endpoint, service in zip(frame.endpoint, frame.service, strict=True)
    ]


def _codes(frame: TallyFrame) -> Iterator[tuple[Any, ...]]:
    """Yield row, status code and count of each counter."""
    return zip(frame.code_row.tolist(), frame.code_status.tolist(), frame.code_count.tolist(), strict=True)
