"""Only the locked jars are ever used, wherever they come from."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from local.errors import EmbeddedKafkaError
from local.runtime import default_cache_dir, fetch, installed


class Impostor(BaseHTTPRequestHandler):
    """A Maven repository that answers every question with the same bytes."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"garbage")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the model's
        pass


@pytest.fixture
def impostor() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Impostor) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_jar_that_is_not_the_locked_one_is_refused_and_not_kept(tmp_path: Path, impostor: str) -> None:
    with pytest.raises(EmbeddedKafkaError, match="is not the locked one: its SHA-256 differs"):
        fetch(tmp_path / "cache", repository=impostor, say=lambda _: None)
    assert installed(tmp_path / "cache") is None
    assert list((tmp_path / "cache").rglob("*.jar")) == []


def test_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file", encoding="utf-8")
    with pytest.raises(EmbeddedKafkaError, match=r"cannot keep Apache Kafka in .*cache: .*XDG_CACHE_HOME"):
        fetch(tmp_path / "cache", repository=None, say=lambda _: None)


def test_cache_lies_where_the_user_keeps_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir().is_relative_to(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir().is_relative_to(Path.home() / ".cache")
