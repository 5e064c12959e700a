"""Check that the broker can be reached, is ours, and lets this node in.

While the node runs only the TLS handshake is tried: a second connection under its name would end the node's own.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

from flchain.base.errors import ConfigError
from flchain_edge.checks.checkup import Finding, Level, fail, ok, warn
from flchain_edge.formatting import format_moment, format_span
from flchain_edge.mqtt.inbox import LinkEvent, Received
from flchain_edge.mqtt.link import MqttLink
from flchain_edge.mqtt.settings import Endpoint, MqttSettings, build_tls_context
from flchain_edge.mqtt.tls_errors import describe_tls_error
from flchain_edge.newer_python import timeout

CONNECT_TIMEOUT_S = 5.0
LOGIN_TIMEOUT_S = 8.0
ANSWER_TIMEOUT_S = 8.0
LOGIN_CHECK_TIMEOUT_S = 30.0
"""For `check_login` as a whole."""
assert LOGIN_CHECK_TIMEOUT_S >= LOGIN_TIMEOUT_S + ANSWER_TIMEOUT_S, "the check says what is wrong before it is ended"
BROKERS_TIMEOUT_S = 60.0
"""For the whole list of brokers."""
SERVER_SOON_S = 14 * 86_400.0


def check_endpoints(mqtt: MqttSettings) -> Iterator[Finding]:
    """Check each broker by itself. One of several that is away is only a warning."""
    try:
        context = build_tls_context(mqtt)
    except ConfigError:
        context = None  # reported by the check of the files
    found = [list(check_endpoint(endpoint, context)) for endpoint in mqtt.endpoints]
    is_any_up = any(all(finding.level is not Level.FAIL for finding in own) for own in found)
    for own in found:
        for finding in own:
            is_spare = is_any_up and finding.level is Level.FAIL and len(found) > 1
            yield warn(finding.reason, finding.advice) if is_spare else finding


def check_endpoint(endpoint: Endpoint, context: ssl.SSLContext | None) -> Iterator[Finding]:
    """Check name, port, handshake and the server's certificate."""
    try:
        addresses = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except OSError as error:
        yield fail(
            f"{endpoint}: the name cannot be resolved: {error.strerror or error}",
            "check the name in [mqtt] and DNS",
        )
        return
    try:
        with socket.create_connection((endpoint.host, endpoint.port), CONNECT_TIMEOUT_S) as plain:
            if context is None:
                yield ok(f"{endpoint} ({addresses[0][4][0]}): a server listens; TLS is not used")
                return
            with context.wrap_socket(plain, server_hostname=endpoint.host) as secure:
                yield _judge_server(endpoint, secure.getpeercert() or {}, secure.version() or "")
    except ssl.SSLError as error:
        yield fail(
            f"{endpoint}: no TLS: {describe_tls_error(error, time.time())}", "see docs/install.md, the table of step 6"
        )
    except OSError as error:
        yield fail(
            f"{endpoint}: cannot be reached: {error.strerror or error}",
            "is the broker running? is a firewall in the way? the node itself keeps trying",
        )


def _judge_server(endpoint: Endpoint, certificate: Any, version: str) -> Finding:
    ends_s = float(ssl.cert_time_to_seconds(certificate["notAfter"])) if "notAfter" in certificate else None
    text = f"{endpoint}: {version}, its certificate is from our authority"
    if ends_s is None:
        return ok(text)
    text += f" and is valid until {format_moment(1000 * ends_s)}"
    left_s = ends_s - time.time()
    if left_s < SERVER_SOON_S:
        return warn(f"{text}, {format_span(left_s)} from now", "renew it: flchain registrar broker")
    return ok(text)


def check_login(
    mqtt: MqttSettings, answers: str = "", questions: tuple[tuple[str, bytes], ...] = ()
) -> Iterator[Finding]:
    """Log in as this node, which must not be running.

    With `questions` (topic, payload) also wait for an answer under the filter `answers`.
    """
    return iter(asyncio.run(_try_login(mqtt, answers, questions)))


async def _try_login(mqtt: MqttSettings, answers: str, questions: tuple[tuple[str, bytes], ...]) -> tuple[Finding, ...]:
    answered = asyncio.Event()

    def receive(event: LinkEvent) -> bool:
        if isinstance(event, Received):
            answered.set()
        return True

    link = MqttLink(mqtt, receive)
    if answers:
        link.subscribe(answers)
    await link.start()
    try:
        if not await _is_soon(lambda: link.is_subscribed, LOGIN_TIMEOUT_S):
            why = link.describe().trouble or "no answer to the login"
            return (
                fail(
                    f"this node could not log in: {why}",
                    "mend what `broker` says above; then look at this node's certificate and the broker's rules",
                ),
            )
        found = (ok(f"logged in at {link.describe().broker} as {mqtt.client_id}"),)
        if not questions:
            return found
        for topic, payload in questions:
            link.publish(topic, payload)
        try:
            async with timeout(ANSWER_TIMEOUT_S):
                await answered.wait()
        except TimeoutError:
            advice = "no miner is running or reaches this broker, or the broker's rules block this node's topic"
            return (*found, fail(f"no miner answered within {ANSWER_TIMEOUT_S:g} s", advice))
        return (*found, ok("a miner has answered this node: it may publish, and miners hear it"))
    finally:
        await link.stop()


async def _is_soon(condition: Callable[[], bool], timeout_s: float) -> bool:
    try:
        async with timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        return False
    return True
