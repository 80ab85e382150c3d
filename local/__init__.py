"""The whole pipeline on one machine: an embedded Apache Kafka and the demo."""
