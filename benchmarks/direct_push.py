"""The other way to Prometheus, without a log: a pusher beside services, `python -m benchmarks.direct_push PORT URL`.

It counts the events that reach it as datagrams, by series and status code, and writes its counters to Prometheus once a
second, as client libraries and collectors do. What it has not counted, or not written, is nowhere else.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from collections import Counter
from typing import Final

from sinks.remote_write_dialects import DIALECTS
from sinks.remote_write_receiver import Receiver
from sinks.remote_write_requests import Batch
from sinks.remote_write_wire import field, varint

METRIC: Final = "direct_requests_total"
EVERY_S: Final = 1.0

_DATAGRAM_BYTES: Final = 65_536
_BUFFER_BYTES: Final = 1 << 22

Counts = Counter[tuple[str, str, str]]


def batch_of(counts: Counts, at_ms: int) -> Batch:
    """Encode counters as a request of remote write 1.0."""
    dialect = DIALECTS["1.0"]()
    entries = []
    for (service, endpoint, code), count in sorted(counts.items()):
        labels = {"__name__": METRIC, "code": code, "endpoint": endpoint, "service": service}
        joined = b"".join(dialect.label(name, value) for name, value in labels.items() if value)
        sample = field(0x12, b"\x09" + struct.pack("<d", count) + b"\x10" + varint(at_ms))
        entries.append(field(0x0A, joined + sample))
    return Batch("1.0", b"", entries, native=False)


def main(port: int, url: str) -> None:
    """Count and push until killed."""
    counts: Counts = Counter()
    receiver = Receiver(url, timeout_s=EVERY_S, headers={}, clock=time.time)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inbox:
        inbox.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        inbox.bind(("127.0.0.1", port))
        due_s = time.monotonic() + EVERY_S
        while True:
            inbox.settimeout(max(0.001, due_s - time.monotonic()))
            try:
                event = json.loads(inbox.recv(_DATAGRAM_BYTES))
                counts[event["service"], event["endpoint"], str(event["status"])] += 1
            except TimeoutError:
                pass
            if time.monotonic() >= due_s:
                due_s += EVERY_S
                if counts:
                    receiver.post(batch_of(counts, int(time.time() * 1000)))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
