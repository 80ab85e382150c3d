"""The configuration of the embedded brokers: Kafka's own, except where a laptop or a test needs something else."""

from collections.abc import Mapping

from local.broker import NodeFiles
from local.ports import HOST

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
STATE_PARTITIONS = 4
HIGHLY_AVAILABLE_BROKERS = 3

# Kafka makes 50 partitions for each of its own topics and waits 3 s for more group members: seconds of every first use.
SHARED_PROPERTIES = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "CLIENT",
    # A misspelt topic must be an error, not a new topic with one partition.
    "auto.create.topics.enable": "false",
    "num.partitions": "4",
    "offsets.topic.num.partitions": str(STATE_PARTITIONS),
    "transaction.state.log.num.partitions": str(STATE_PARTITIONS),
    "share.coordinator.state.topic.num.partitions": str(STATE_PARTITIONS),
    "group.initial.rebalance.delay.ms": "0",
    # Events of the past, as tests and backfills write them, must not be deleted for their timestamps.
    "log.retention.ms": "-1",
    # A record with a value of 1 MiB, the most that the flows accept, does not fit Kafka's default of 1 MiB in all.
    "message.max.bytes": str(MAX_MESSAGE_BYTES),
    "replica.fetch.max.bytes": str(MAX_MESSAGE_BYTES),
    # Kafka's default takes 128 MiB of the heap for compaction.
    "log.cleaner.dedupe.buffer.size": str(8 * 1024 * 1024),
    # A killed broker is believed alive for this long, and cannot come back before: 9 s by default.
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "1000",
    "num.network.threads": "2",
    "num.io.threads": "4",
}


def broker_properties(
    node_id: int, files: NodeFiles, ports: Mapping[int, int], controller_ports: Mapping[int, int]
) -> dict[str, str]:
    """Return one broker's configuration without its security.

    Args:
        node_id: The broker.
        files: Where it keeps its files.
        ports: Clients' port of each broker by node id.
        controller_ports: Controllers' port of each broker by node id.
    """
    voters = ",".join(f"{voter}@{HOST}:{port}" for voter, port in sorted(controller_ports.items()))
    return {
        **SHARED_PROPERTIES,
        **_replication(len(ports)),
        "node.id": str(node_id),
        "controller.quorum.voters": voters,
        "listeners": f"CLIENT://{HOST}:{ports[node_id]},CONTROLLER://{HOST}:{controller_ports[node_id]}",
        "advertised.listeners": f"CLIENT://{HOST}:{ports[node_id]}",
        "log.dirs": str(files.data),
    }


def _replication(brokers: int) -> dict[str, str]:
    """Return how often records are kept: with three brokers, one can fail and nothing is lost or refused."""
    copies = min(brokers, HIGHLY_AVAILABLE_BROKERS)
    in_sync = 2 if copies == HIGHLY_AVAILABLE_BROKERS else 1
    return {
        "default.replication.factor": str(copies),
        "min.insync.replicas": str(in_sync),
        "offsets.topic.replication.factor": str(copies),
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": str(in_sync),
        "share.coordinator.state.topic.replication.factor": str(copies),
        "share.coordinator.state.topic.min.isr": str(in_sync),
    }
