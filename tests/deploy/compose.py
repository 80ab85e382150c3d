"""What docker-compose.yml says, as plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

ROOT: Final = Path(__file__).resolve().parents[2]
FILE: Final = ROOT / "docker-compose.yml"
COMPOSE: Final[dict[str, Any]] = YAML(typ="safe").load(FILE)
SERVICES: Final[dict[str, Any]] = COMPOSE["services"]
OURS: Final = {name: service for name, service in SERVICES.items() if service["image"].startswith("tailmark:")}
FLOWS: Final = ("anomaly", "bridge", "archive")


def environ(name: str) -> dict[str, str]:
    """Give the environment of a service."""
    return {key: str(value) for key, value in SERVICES[name].get("environment", {}).items()}


def published(name: str) -> dict[int, int]:
    """Give the ports of this machine by those in the container; all are of the loopback address."""
    ports = {}
    for text in SERVICES[name].get("ports", []):
        address, outside, inside = text.split(":")
        assert address == "127.0.0.1", f"{name} would be open to the network"
        ports[int(inside)] = int(outside)
    return ports
