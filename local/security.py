"""Who may connect to an embedded Apache Kafka, and how both sides prove themselves."""

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass, field

from local.tls import TlsFiles

MECHANISM = "SCRAM-SHA-512"
ITERATIONS = 4096
BROKER_USER = "broker"
PASSWORD = re.compile(r"""[^\s"'\\\x00-\x1f\x7f-\U0010ffff]{1,128}""")


@dataclass(frozen=True)
class Scram:
    """TLS, and a user that logs in with SASL/SCRAM-SHA-512.

    Brokers log in to each other the same way, as a user of their own; controllers prove themselves with certificates.

    Attributes:
        username: The clients' user.
        password: Its password; None: the one that the data directory already has, or a new random one.
    """

    username: str = "tailmark"
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse what would break out of Kafka's configuration.

        Raises:
            ValueError: The user name or the password cannot be written into it.
        """
        if not self.username.isidentifier() or self.username == BROKER_USER:
            message = f"`username` must be letters, digits and `_`, and not `{BROKER_USER}`; got {self.username!r}"
            raise ValueError(message)
        if self.password is not None and not PASSWORD.fullmatch(self.password):
            message = "`password` must be 1 to 128 printable ASCII characters without spaces, quotes and backslashes"
            raise ValueError(message)

    def client_options(self, files: TlsFiles) -> dict[str, str]:
        """Return what librdkafka needs beside `bootstrap.servers`."""
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": MECHANISM,
            "sasl.username": self.username,
            "sasl.password": self.password or "",
            "ssl.ca.location": str(files.authority),
        }

    def stored_users(self, broker_password: str) -> list[str]:
        """Return the users for Kafka's format tool, salted: a process list must not show a password."""
        return [_salted(self.username, self.password or ""), _salted(BROKER_USER, broker_password)]


def broker_properties(files: TlsFiles, broker_password: str) -> dict[str, str]:
    """Return the security part of a broker's configuration: TLS everywhere, SASL for clients and brokers."""
    login = "org.apache.kafka.common.security.scram.ScramLoginModule required"
    return {
        "listener.security.protocol.map": "CLIENT:SASL_SSL,CONTROLLER:SSL",
        "sasl.enabled.mechanisms": MECHANISM,
        "sasl.mechanism.inter.broker.protocol": MECHANISM,
        f"listener.name.client.{MECHANISM.lower()}.sasl.jaas.config": (
            f'{login} username="{BROKER_USER}" password="{broker_password}";'
        ),
        "listener.name.controller.ssl.client.auth": "required",
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(files.keystore),
        "ssl.keystore.password": files.password,
        "ssl.key.password": files.password,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(files.authority),
    }


PLAINTEXT_PROPERTIES = {"listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT"}


def _salted(username: str, password: str) -> str:
    """Return one user in the notation of the format tool's `--add-scram` (RFC 5802: salted password = PBKDF2)."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha512", password.encode("ascii"), salt, ITERATIONS)
    encoded = [base64.b64encode(part).decode("ascii") for part in (salt, salted)]
    return f'{MECHANISM}=[name={username},iterations={ITERATIONS},salt="{encoded[0]}",saltedpassword="{encoded[1]}"]'
