"""Lines of access logs as events."""

import pytest

from simulator.access_log import endpoint, envoy, nginx

NGINX = (
    '203.0.113.7 - frank [10/Oct/2025:13:55:36 -0700] "GET /api/orders/4711?full=1 HTTP/1.1" 502 2326 '
    '"https://example.com/" "Mozilla/5.0 (X11; v1.234)"'
)
ENVOY = (
    '[2025-10-10T20:17:00.310Z] "POST /api/v1/locations HTTP/2" 204 - 154 0 226 100 "10.0.35.28" '
    '"nsq2http" "cc21d9b0-cf5c-432b-8c7e-98aeb7988cd2" "locations:8080" "tcp://10.0.2.1:80"'
)
ISTIO = (
    '[2025-10-10T20:17:00.310Z] "GET /status/418 HTTP/1.1" 418 - via_upstream - "-" 0 135 4 3 "-" '
    '"curl/7.73.0" "84961386-6d84-929d-98bd-c5aee93b5c88" "httpbin:8000" "10.44.1.27:80" outbound - -'
)
FINISHED_MS = 1_760_129_736_000


@pytest.mark.parametrize(
    "tail", [" 0.123", " rt=0.123", " rt=0.123 uct=9.000", ' request_time="0.123"', ' "-" 0.123 0.120 .']
)
def test_nginx_line_is_read_with_the_request_time_wherever_it_stands(tail: str) -> None:
    assert nginx(NGINX + tail, None) == {
        "timestamp_ms": FINISHED_MS,
        "service": "nginx",
        "endpoint": "/api/orders/{id}",
        "latency_ms": 123.0,
        "status": 502,
        "method": "GET",
    }


def test_nginx_line_without_request_time_says_what_to_add() -> None:
    with pytest.raises(ValueError, match=r"add rt=\$request_time to the log_format"):
        nginx(NGINX, None)


def test_nginx_line_names_its_virtual_host_and_request_id() -> None:
    event = nginx(f"shop.example.com {NGINX} rt=1.5 request_id=4bf92f3577b34da6", None)
    assert event["service"] == "shop.example.com"
    assert event["trace_id"] == "4bf92f3577b34da6"
    assert event["latency_ms"] == 1500.0


def test_service_of_the_command_line_wins() -> None:
    assert nginx(f"shop.example.com {NGINX} 0.001", "edge")["service"] == "edge"
    assert envoy(ENVOY, "edge")["service"] == "edge"


def test_envoy_line_is_an_event_at_the_end_of_its_request() -> None:
    assert envoy(ENVOY, None) == {
        "timestamp_ms": 1_760_127_420_310 + 226,
        "service": "locations",
        "endpoint": "/api/v1/locations",
        "latency_ms": 226,
        "status": 204,
        "method": "POST",
        "trace_id": "cc21d9b0-cf5c-432b-8c7e-98aeb7988cd2",
    }


def test_istio_line_is_read_like_an_envoy_line() -> None:
    event = envoy(ISTIO, None)
    assert (event["service"], event["status"], event["latency_ms"]) == ("httpbin", 418, 4)


def test_client_that_left_is_no_error_of_the_service() -> None:
    assert envoy(ENVOY.replace(" 204 - ", " 0 DC "), None)["status"] == 499


@pytest.mark.parametrize("line", ["", "hello", NGINX, ENVOY[:60], ENVOY.replace("2025-10-10", "2025-99-10")])
def test_other_lines_are_no_envoy_lines(line: str) -> None:
    with pytest.raises(ValueError, match=r"no envoy line|time is not ISO 8601"):
        envoy(line, None)


@pytest.mark.parametrize("line", ["", "hello", ENVOY, NGINX[:60], NGINX.replace("Oct", "Okt") + " 0.100"])
def test_other_lines_are_no_nginx_lines(line: str) -> None:
    with pytest.raises(ValueError, match=r"no nginx line|time is not \$time_local"):
        nginx(line, None)


@pytest.mark.parametrize(
    ("target", "route"),
    [
        ("/", "/"),
        ("/a?b=1/2", "/a"),
        ("/users/42/cart", "/users/{id}/cart"),
        ("/v1/items", "/v1/items"),
        ("/o/9f1c2d3e-0000-4000-8000-0123456789ab", "/o/{id}"),
        ("/blob/deadbeef01", "/blob/{id}"),
        ("/facade/decade", "/facade/decade"),
        ("/" + "x" * 400, "/" + "x" * 255),
    ],
)
def test_identifiers_do_not_make_routes(target: str, route: str) -> None:
    assert endpoint(target) == route
