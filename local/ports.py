"""Choose and check TCP ports on the loopback address."""

import random
import socket
from collections.abc import Iterable

HOST = "127.0.0.1"
# Below Linux's default range for outgoing connections (32768 and up): a client's own socket can then never take a
# broker's port while that broker is restarted.
CHOICE_RANGE = range(20_000, 32_000)
MAX_TRIES = 200


def is_free(port: int) -> bool:
    """Say whether a server can listen on `port` of the loopback address now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def is_open(port: int) -> bool:
    """Say whether a server listens on `port` of the loopback address now."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


def free_port(taken: Iterable[int] = ()) -> int:
    """Choose a port that nobody listens on.

    Args:
        taken: Ports that must not be chosen although nobody listens on them yet.

    Raises:
        OSError: None of `MAX_TRIES` random ports was free.
    """
    excluded = set(taken)
    choice = random.SystemRandom()
    for _ in range(MAX_TRIES):
        port = choice.choice(CHOICE_RANGE)
        if port not in excluded and is_free(port):
            return port
    message = f"no free port found in {CHOICE_RANGE.start}..{CHOICE_RANGE.stop - 1} after {MAX_TRIES} tries"
    raise OSError(message)
