"""The options that users pass through to librdkafka: their spelling, which are allowed, and how they are printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from flows.masking import MASK, is_secret, masked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RESERVED_OPTIONS: Final = {
    "bootstrap.servers": "is set by kafka.bootstrap_servers",
    "group.id": "is set by kafka.group_id",
    "transactional.id": "is chosen by the sink, which owns one for each output partition",
    "enable.auto.commit": "must stay off, or offsets would be committed for events that no snapshot holds",
    "enable.auto.offset.store": "must stay off, or offsets would be committed for events that no snapshot holds",
    "auto.offset.reset": "is chosen by the source, which never skips events silently",
    "isolation.level": "is read_committed, or aborted records would be counted",
    "enable.idempotence": "must stay on, or a retry would write a record twice",
    "enable.partition.eof": "must stay on, or idle partitions would hold windows open",
}
"""Options of librdkafka that Tailmark's guarantees rest on, and why each can't be set."""


_PROTOCOLS: Final = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")


class ClientOptions(dict[str, Any]):
    """Options of a Kafka client, a plain dict to librdkafka, that prints without its secrets."""

    def __repr__(self) -> str:
        """Show the options with `***` for secrets."""
        return repr(masked("", dict(self)))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a set of options can't be used.

    Attributes:
        rule: The rule, as the end of a sentence about the option.
        key: The option to blame, in librdkafka's spelling; None when only all of them together are wrong.
        unknown: Whether there is no such option at all.
    """

    rule: str
    key: str | None
    unknown: bool = False


def flat_options(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Bring options to librdkafka's spelling.

    Args:
        table: Options with `_` or `.` in their names; TOML reads dotted keys as tables in tables.
        prefix: The names of the tables around this one, with a dot at the end.

    Yields:
        Names and values, both as librdkafka takes them.
    """
    for key, value in table.items():
        name = prefix + str(key).lower().replace("_", ".")
        if isinstance(value, dict):
            yield from flat_options(value, name + ".")
        else:
            yield name, str(value).lower() if isinstance(value, bool) else str(value)


def refused_option(options: Mapping[str, str]) -> Refusal | None:
    """Find an option that can't be used, without connecting to anything.

    Args:
        options: Names and values in librdkafka's spelling.

    Returns:
        The first refusal, or None when all is well. Its text holds no secret.
    """
    for key in options:
        if key in RESERVED_OPTIONS:
            return Refusal(RESERVED_OPTIONS[key], key)
    if not options:
        return None
    if options.get("security.protocol", _PROTOCOLS[0]).lower() not in _PROTOCOLS:
        return Refusal("must be one of " + ", ".join(_PROTOCOLS), "security.protocol")
    reason = _librdkafka_refuses(options)
    if reason is None:
        return None
    for key, value in options.items():
        alone = _librdkafka_refuses({key: value})
        if alone is not None:
            unknown = "no such configuration property" in alone.lower()
            rule = "is not an option of librdkafka" if unknown else "is not a value that librdkafka takes"
            return Refusal(rule, key, unknown)
    for secret in filter(None, (value for key, value in options.items() if is_secret(key))):
        reason = reason.replace(secret, MASK)
    return Refusal(f"librdkafka refuses these together: {reason}", None)


def _librdkafka_refuses(options: Mapping[str, str]) -> str | None:
    """Build a client without brokers from options, and throw it away.

    The protocol, judged before, is left out: with it the client would load certificates and fetch tokens. So is
    `debug`, which would print.

    Returns:
        Why librdkafka refuses the options, or None when it takes them.
    """
    from confluent_kafka import KafkaException, Producer  # noqa: PLC0415 - only who sets an option waits for it

    judged = {key: value for key, value in options.items() if key not in {"security.protocol", "debug"}}
    try:
        Producer({**judged, "log_level": "0"})
    except KafkaException as error:
        return str(error.args[0].str())
    return None
