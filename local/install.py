"""Fetch Apache Kafka and teach its Java machine to start fast; what `make setup` does once."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from local.errors import EmbeddedKafkaError
from local.kafka import EmbeddedKafka
from local.runtime import Runtime, Say, aot_cache_path, cache_lock, default_cache_dir, fetch, installed

TRAINING_STOP_S = 120.0  # the Java machine writes the cache after its clean stop
REQUEST_TIMEOUT_S = 30.0
TOPIC = "training"


def install(*, cache_dir: Path | None = None, repository: str | None = None, say: Say) -> Runtime:
    """Fetch what is missing and return the runtime; at once when nothing is.

    Args:
        cache_dir: Where it is kept; None means the user's cache.
        repository: Base address of a Maven repository; None means Maven Central.
        say: Told in one line about each step that takes seconds.

    Raises:
        EmbeddedKafkaError: The download is impossible.
    """
    cache = default_cache_dir() if cache_dir is None else cache_dir
    runtime = installed(cache) or fetch(cache, repository=repository, say=say)
    if runtime.fast:
        return runtime
    if not aot_cache_path(cache).exists() and os.access(cache, os.W_OK):
        with cache_lock(cache):
            if not aot_cache_path(cache).exists():  # another process may have made it in the meantime
                say("preparing Apache Kafka for a fast start (20 s, once)")
                _train(runtime, aot_cache_path(cache))
    return installed(cache) or runtime


def _train(runtime: Runtime, cache_file: Path) -> None:
    """Run a broker once and keep its classes loaded, linked and profiled (JEP 483, 514, 515): it starts twice as fast.

    A fast start is not worth a failed set-up: where this does not work, an empty file keeps it from being tried again.
    """
    partial = cache_file.with_suffix(f".partial{cache_file.suffix}")
    partial.unlink(missing_ok=True)
    recording = replace(runtime, options=(*runtime.options, f"-XX:AOTCacheOutput={partial}"))
    try:
        with (
            tempfile.TemporaryDirectory(prefix="tailmark-kafka-") as directory,
            EmbeddedKafka(Path(directory) / "data", runtime=recording, stop_s=TRAINING_STOP_S) as kafka,
        ):
            _exercise(kafka.client_options)
    except (EmbeddedKafkaError, KafkaException, OSError):
        partial.touch()
    if partial.exists():
        partial.replace(cache_file)
    else:
        cache_file.touch()


def _exercise(options: dict[str, str]) -> None:
    """Use what every run uses first: topics, a transaction, a group."""
    admin = AdminClient({**options})
    admin.create_topics([NewTopic(TOPIC, 1)])[TOPIC].result(REQUEST_TIMEOUT_S)
    producer = Producer({**options, "transactional.id": TOPIC, "log_level": 0})
    producer.init_transactions(REQUEST_TIMEOUT_S)
    producer.begin_transaction()
    producer.produce(TOPIC, b"value")
    producer.commit_transaction(REQUEST_TIMEOUT_S)
    consumer = Consumer({**options, "group.id": TOPIC, "auto.offset.reset": "earliest"})
    consumer.subscribe([TOPIC])
    message = consumer.poll(REQUEST_TIMEOUT_S)
    if message is not None:
        consumer.commit(message=message, asynchronous=False)
    consumer.close()
