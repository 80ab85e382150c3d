"""What the demo draws and writes, from records as the topics hold them."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from rich.console import Console

from local.demo import summary, wording
from local.demo.board import AlertRecord, Board, TruthRecord, Vitals, WindowRecord
from local.demo.errors import DemoError
from local.demo.feed import page_numbers
from local.demo.matching import grace_after
from local.demo.picture import draw
from local.demo.view import LiveView, Pace

ROOT = Path(__file__).resolve().parents[2]
START_MS = 1_780_000_000_000
SLIDE_MS = 10_000
PACE = Pace(elapsed_s=25.0, duration_s=60.0, speed=30)

STEP = TruthRecord(
    "latency-step-search", "latency-step", START_MS + 100_000, START_MS + 220_000,
    ("search",), (), ("latency",), page=True, description="search takes 4 times as long from one moment to the next",
)  # fmt: skip
CASCADE = TruthRecord(
    "cascade-payments", "noisy-neighbour", START_MS + 390_000, START_MS + 600_000,
    ("payments", "checkout", "gateway"), (), ("latency", "errors"), page=True, description="a machine is slow",
)  # fmt: skip
SURGE = TruthRecord(
    "surge-gateway", "surge", START_MS + 250_000, START_MS + 300_000,
    ("gateway", "search"), (), ("traffic",), page=False, description="more traffic",
)  # fmt: skip


def window(slide: int, service: str = "search", endpoint: str = "/query", **changes: object) -> WindowRecord:
    values: dict[str, object] = {
        "service": service,
        "endpoint": endpoint,
        "window_end_ms": START_MS + slide * SLIDE_MS,
        "count": 600,
        "error_ratio": 0.0,
        "rate_per_s": 10.0,
        "p99_ms": 150.0,
        "state": "normal" if slide > 30 else "warming",
        "latency_score": 0.0,
        "latency_expected": 152.0,
        "latency_upper": 228.0,
    }
    return WindowRecord(**{**values, **changes})  # type: ignore[arg-type]


def alert(slide: int, service: str = "search", *, status: str = "firing", starts: int | None = None) -> AlertRecord:
    return AlertRecord(
        fingerprint=f"fingerprint of {service}",
        status=status,  # type: ignore[arg-type]
        labels={"alertname": "LatencyAnomaly", "service": service, "endpoint": "/query", "severity": "critical"},
        starts_at_ms=START_MS + (slide if starts is None else starts) * SLIDE_MS,
        window_end_ms=START_MS + slide * SLIDE_MS,
        signal="latency",
    )


def empty_board() -> Board:
    grace_ms = grace_after(length_ms=60_000, slide_ms=SLIDE_MS)
    return Board(length_ms=60_000, slide_ms=SLIDE_MS, grace_ms=grace_ms, warm_windows=30)


def busy_board(slides: int = 45) -> Board:
    """A board on which search was slow and is again, payments is failing, and inventory was blamed for nothing."""
    board = empty_board()
    for slide in range(1, slides + 1):
        slow = {"p99_ms": 610.0, "latency_score": 2.0, "state": "anomalous"} if slide >= slides - 3 else {}
        board.take_window(window(slide, **slow))
        board.take_window(window(slide, "inventory", "/reservations", p99_ms=None, count=0))
        board.take_window(window(slide, "gateway", "/checkout", p99_ms=1_234.0, latency_expected=1_200.0))
    board.vitals = Vitals(sent=123_456, sent_per_s=7_890.4, accepted=123_000, late=55, lag_events=321)
    for truth in (STEP, CASCADE, SURGE):
        board.take_truth(truth)
    board.take_alert(alert(12))
    board.take_alert(alert(25, status="resolved", starts=12))
    board.take_alert(alert(40, "payments"))
    board.take_alert(alert(20, "inventory"))
    return board


def drawn(board: Board, *, width: int = 80, height: int = 24) -> str:
    console = Console(record=True, width=width, height=height, file=io.StringIO(), color_system="truecolor")
    console.print(LiveView(board, PACE), end="")
    return console.export_text(styles=False)


def written(board: Board) -> str:
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(summary.totals(board, PACE))
    console.print(summary.incidents(board))
    return console.export_text()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (200, 60), (60, 20)])
def test_the_view_fits_the_terminal(width: int, height: int) -> None:
    for board in (empty_board(), busy_board()):
        lines = drawn(board, width=width, height=height).splitlines()
        assert len(lines) == height
        assert max(len(line) for line in lines) <= width


def test_the_view_at_80_columns_cuts_nothing_that_matters() -> None:
    text = drawn(busy_board())
    assert "…" not in text
    assert "event time 20:34:10, 30x speed" in text
    assert "7,890 events/s · 123,456 sent · lag 321 · 55 late · 0 dead · 135 windows" in text
    assert "0:25 of 1:00 · Ctrl-C ends it" in text
    assert "NOW [found 10 s] a machine is slow" in text


def test_the_view_shows_alerts_beside_the_incidents_that_explain_them() -> None:
    lines = [line.split("││") for line in drawn(busy_board()).splitlines() if "││" in line]
    alerts, incidents = (" ".join(" ".join(part).split()) for part in zip(*lines, strict=True))
    assert "payments slow noisy neighbour" in alerts
    assert "inventory slow FALSE" in alerts
    assert "▶ noisy neighbour payments +2 found 10 s" in incidents
    assert "latency step search found 20 s" in incidents
    assert "surge gateway +1 no page" in incidents


def test_the_view_puts_what_is_anomalous_first_and_says_why() -> None:
    rows = [line for line in drawn(busy_board()).splitlines() if " /" in line]
    assert [row.split()[1] for row in rows[:3]] == ["search", "gateway", "inventory"]
    assert "610 ms" in rows[0]
    assert "4.0x slower" in rows[0]
    assert "1.23 s" in rows[1]
    assert "–" in rows[2]


def test_the_view_says_that_nothing_came_yet_and_that_it_is_learning() -> None:
    board = empty_board()
    assert "waiting for the first windows" in drawn(board)
    for slide in range(1, 13):
        board.take_window(window(slide))
    assert "learning what is normal (12 of 30 windows)" in drawn(board)


def test_the_view_keeps_to_its_rows_when_everything_fires() -> None:
    board = busy_board()
    for number in range(40):
        board.take_alert(alert(44, f"service-{number}"))
    text = drawn(board)
    assert len(text.splitlines()) == 24
    assert "open alerts: 42" in text
    assert "more" in text


def test_the_summary_tells_every_incident_and_every_false_alert() -> None:
    text = " ".join(written(busy_board()).split())
    assert "25 s, 450 s of event time" in text
    assert "123,456 sent: 123,000 accepted, 55 late, 0 dead letters" in text
    assert "135 closed, of 3 series" in text
    assert "3 fired, 1 resolved, 2 open" in text
    assert "latency step search yes 20 s (2 slides) LatencyAnomaly" in text
    assert "noisy neighbour payments, checkout, yes 10 s (1 slide) LatencyAnomaly" in text
    assert "surge gateway, search no no page, right –" in text
    assert "FALSE ALERT inventory /query no at 20:30:00 LatencyAnomaly" in text


def test_the_status_line_counts_found_missed_and_false() -> None:
    board = busy_board()
    line = summary.status_line(board, PACE)
    assert line.startswith("0:25 of 1:00 · event time 20:34:10 · 7,890 events/s · lag 321 · 135 windows")
    assert line.endswith("2 of 2 incidents found · 0 missed · 1 false alert · surge: no page")
    assert "learning what is normal, 2 of 30 windows" in summary.status_line(busy_board(slides=2), PACE)


def test_an_incident_in_the_open_is_neither_found_nor_missed() -> None:
    board = empty_board()
    board.take_truth(STEP)
    for slide in (1, 11):
        board.take_window(window(slide))
    assert wording.tally(board.judgement()) == "0 of 1 incidents found · 1 not yet · 0 missed · 0 false alerts"


def test_numbers_of_the_page_are_summed_over_partitions() -> None:
    page = """\
# TYPE tailmark_events counter
tailmark_events_total{flow="anomaly",outcome="accepted"} 1200.0
tailmark_events_total{flow="anomaly",outcome="late"} 3.0
# TYPE tailmark_lag_events gauge
tailmark_lag_events{topic="telemetry.events",partition="0"} 5.0
tailmark_lag_events{topic="telemetry.events",partition="1"} 7.0
"""
    assert page_numbers(page) == {"accepted": 1200, "late": 3, "lag": 12}
    assert page_numbers("") == {}


@pytest.mark.parametrize(
    ("value_ms", "text"), [(None, "–"), (0.0, "0.0 ms"), (4.25, "4.2 ms"), (566.4, "566 ms"), (1_620.0, "1.62 s")]
)
def test_latencies_have_three_digits_and_a_unit(value_ms: float | None, text: str) -> None:
    assert wording.latency(value_ms) == text


def test_trouble_names_the_worst_signal() -> None:
    scores = {"state": "anomalous", "latency_score": 1.1, "p99_ms": 304.0, "errors_score": 1.5, "error_ratio": 0.25}
    assert wording.trouble(window(40, **scores)) == "25% errors"
    drop = {"state": "anomalous", "traffic_score": 1.5, "traffic_expected": 40.0}
    assert wording.trouble(window(40, **drop)) == "-75% traffic"
    assert wording.trouble(window(40, **drop, count=0)) == "no requests"
    assert wording.trouble(window(40)) == ""


def test_a_sparkline_has_a_bar_for_each_value_and_a_gap_for_none() -> None:
    assert wording.sparkline([0.0, 50.0, None, 100.0], 100.0) == "▁▅ █"
    assert wording.sparkline([0.0], 0.0) == "▁"


def test_picture_shows_the_view_and_loads_nothing(tmp_path: Path) -> None:
    file = tmp_path / "demo.svg"
    draw(LiveView(busy_board(), PACE), file)
    text = file.read_text(encoding="utf-8")
    said = "".join(ET.fromstring(text).itertext()).replace("\N{NO-BREAK SPACE}", " ")
    assert "inventory" in said
    assert "incidents really running" in said
    assert "url(http" not in text
    assert "@font-face" not in text


def test_picture_that_can_not_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"`--picture` can't be written: .*nowhere"):
        draw(LiveView(empty_board(), PACE), tmp_path / "nowhere" / "demo.svg")


def test_picture_of_the_readme_is_one_that_the_demo_draws() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "docs/demo.svg" in readme
    assert "make demo" in "".join(ET.parse(ROOT / "docs" / "demo.svg").getroot().itertext()).replace(
        "\N{NO-BREAK SPACE}", " "
    )
