"""The one error that people see when the embedded Apache Kafka cannot do what they asked."""


class EmbeddedKafkaError(Exception):
    """The embedded Kafka cannot be fetched, started or used; the message is one line that says what to do."""
