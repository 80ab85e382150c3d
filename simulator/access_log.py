"""Access logs as events: nginx lines that have the request time, and Envoy's default line."""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

ENDPOINT_MAX: Final = 256
NGINX_SERVICE: Final = "nginx"
"""Service of an nginx line that names no virtual host."""

_CLIENT_GONE: Final = 499

# The combined format, with or without the virtual host in front; whatever the operator added stands in `rest`.
_NGINX: Final = re.compile(
    r"^(?:(?P<host>[^\s\[\]\"]+) )?(?P<client>\S+) \S+ (?P<user>\S+) \[(?P<time>[^\]]+)\] "
    r'"(?P<method>[A-Z]+) (?P<target>\S+)[^"]*" (?P<status>\d{3}) (?:\d+|-)(?P<rest>.*)$'
)
_NAMED_SECONDS: Final = re.compile(r"\b(?:rt|request_time|req_time|reqtime)[=:]\s*\"?(\d+(?:\.\d+)?)")
_BARE_SECONDS: Final = re.compile(r"(?<![\w.:/-])(\d+\.\d{3})(?![\w.:/-])")
_QUOTED: Final = re.compile(r'"[^"]*"')
_REQUEST_ID: Final = re.compile(r"\b(?:request_id|req_id|rid|trace_id)[=:]\s*\"?([0-9A-Za-z-]+)")

_ENVOY: Final = re.compile(
    r'^\[(?P<time>\d{4}-\d\d-\d\dT[^\]]+)\] "(?P<method>\S+) (?P<target>\S+) [^"]*" (?P<status>\d{1,3}) '
    # Istio adds response details, termination details and a quoted failure reason between the flags and the bytes.
    r'(?:[^"\s]+ )+?(?:"[^"]*" )?(?P<received>\d+) (?P<sent>\d+) (?P<duration>\d+) (?P<upstream>\d+|-) '
    r'"[^"]*" "[^"]*" "(?P<request_id>[^"]*)" "(?P<authority>[^"]*)"'
)

_IDENTIFIER: Final = re.compile(r"(?<=/)(?:\d+|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|(?=[a-f]*\d)[0-9a-f]{8,})(?=/|$)")


def nginx(line: str, service: str | None) -> dict[str, Any]:
    """Read a line of nginx in the combined format with `$request_time` after it.

    The request time is `rt=0.123` or `request_time=0.123`, or the first bare number with three decimals. The time of
    the event is `$time_local`, when the request was finished.

    Args:
        line: One line.
        service: Service of the event; None: the virtual host of the line, else `NGINX_SERVICE`.

    Returns:
        The event.

    Raises:
        ValueError: It is no such line, or it has no request time.
    """
    found = _NGINX.match(line)
    if found is None:
        raise ValueError("no nginx line")
    seconds = _NAMED_SECONDS.search(found["rest"]) or _BARE_SECONDS.search(_QUOTED.sub('""', found["rest"]))
    if seconds is None:
        raise ValueError("no request time: add rt=$request_time to the log_format")
    event = {
        "timestamp_ms": _local_time_ms(found["time"]),
        "service": service or found["host"] or NGINX_SERVICE,
        "endpoint": endpoint(found["target"]),
        "latency_ms": round(float(seconds[1]) * 1000, 3),
        "status": int(found["status"]),
        "method": found["method"],
    }
    request_id = _REQUEST_ID.search(found["rest"])
    return {**event, "trace_id": request_id[1]} if request_id else event


def envoy(line: str, service: str | None) -> dict[str, Any]:
    """Read a line in Envoy's default format, or in Istio's.

    Envoy writes when a request began; the event is when it was finished, which is the order of the log.

    Args:
        line: One line.
        service: Service of the event; None: the authority that was asked.

    Returns:
        The event.

    Raises:
        ValueError: It is no such line.
    """
    found = _ENVOY.match(line)
    if found is None:
        raise ValueError("no envoy line")
    duration_ms = int(found["duration"])
    try:
        begun = datetime.fromisoformat(found["time"])
    except ValueError:
        raise ValueError("time is not ISO 8601") from None
    event = {
        "timestamp_ms": round(begun.timestamp() * 1000) + duration_ms,
        "service": service or found["authority"].partition(":")[0],
        "endpoint": endpoint(found["target"]),
        "latency_ms": duration_ms,
        # Envoy writes 0 when the client left before there was an answer.
        "status": int(found["status"]) or _CLIENT_GONE,
        "method": found["method"],
    }
    request_id = found["request_id"]
    return event if request_id in {"", "-"} else {**event, "trace_id": request_id}


def endpoint(target: str) -> str:
    """Turn the target of a request into a route: no query, identifiers as `{id}`, no longer than an endpoint may be."""
    return _IDENTIFIER.sub("{id}", target.partition("?")[0])[:ENDPOINT_MAX]


@lru_cache(maxsize=4096)
def _local_time_ms(text: str) -> int:
    """Read `10/Oct/2000:13:55:36 -0700`; many lines share a second."""
    try:
        return round(datetime.strptime(text, "%d/%b/%Y:%H:%M:%S %z").timestamp() * 1000)
    except ValueError:
        raise ValueError("time is not $time_local") from None


PARSERS: Final[dict[str, Callable[[str, str | None], dict[str, Any]]]] = {"nginx": nginx, "envoy": envoy}
"""The access logs that can be read, by the name of their format."""
