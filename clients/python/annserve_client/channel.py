"""How channels to annserve are set up, and how long calls may take; the same for both clients."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from importlib import resources

SERVICE_CONFIG = (resources.files("annserve_client") / "service_config.json").read_text()
"""Deadlines and retries, as the server's project ships them for clients in every language.

The third attempt comes after 144 ms at the soonest: a connection that is reset while it is made, as by a worker that is
killed at that moment, is not tried again before 100 to 120 ms have gone by, whatever the back-off asked for.
"""

_SHIPPED = json.loads(SERVICE_CONFIG)
_METHOD_CONFIGS = _SHIPPED["methodConfig"]


def channel_options(channel_count: int = 1) -> tuple[tuple[str, str | int], ...]:
    """Return the options of each of ``channel_count`` channels that a client has."""
    return (
        ("grpc.service_config", _retries(channel_count)),
        # Channels with equal options otherwise share one connection, and so one worker of the server.
        ("grpc.use_local_subchannel_pool", 1),
        # Not more often than the server's minimum of 10 s, which it answers with GOAWAY.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    )


def _retries(channel_count: int) -> str:
    """Return `SERVICE_CONFIG` with retries alone.

    Timeouts are given with each call instead: gRPC's Python library counts those of a service config from a moment
    before the call, and ended calls that had just begun (grpc/grpc#40633, seen with 1.85). Each channel counts failures
    by itself, so each has its part of the tokens that a client may use up before it retries no more.
    """
    methods = [{name: value for name, value in method.items() if name != "timeout"} for method in _METHOD_CONFIGS]
    tokens = max(_SHIPPED["retryThrottling"]["maxTokens"] // channel_count, 1)
    throttling = _SHIPPED["retryThrottling"] | {"maxTokens": tokens}
    return json.dumps(_SHIPPED | {"methodConfig": methods, "retryThrottling": throttling})


CHANNEL_OPTIONS = channel_options()


def target_of(target: str | Sequence[str]) -> str:
    """Return ``target`` in gRPC's naming: as it is, or the addresses of several servers that calls are balanced over.

    Raises:
        ValueError: there are no addresses, or not all are ``IP:port`` of one IP version.
    """
    if isinstance(target, str):
        return target
    try:
        (version,) = {ipaddress.ip_address(address.rpartition(":")[0].strip("[]")).version for address in target}
    except ValueError:
        raise ValueError(
            f"target must be one name, or a list of IP:port of one IP version, got {list(target)}; "
            "names of several servers are resolved by dns:///name:port"
        ) from None
    return f"ipv{version}:{','.join(target)}"


def key_metadata(api_key: str | None) -> tuple[tuple[str, str], ...] | None:
    """Return what a call brings with it to be let in."""
    return None if api_key is None else (("authorization", f"Bearer {api_key}"),)


def default_timeout(method: str | None, timeout_seconds: float | None) -> float:
    """Return how long calls of ``method`` may take by default: ``timeout_seconds``, or what `SERVICE_CONFIG` says.

    Args:
        method: A method with an entry of its own, or None for all others.
        timeout_seconds: What the user of the client wants, None where that is nothing special.

    Raises:
        ValueError: ``timeout_seconds`` is not above 0.
    """
    if timeout_seconds is None:
        (seconds,) = [entry["timeout"] for entry in _METHOD_CONFIGS if entry["name"][0].get("method") == method]
        return float(seconds.removesuffix("s"))
    if not timeout_seconds > 0:
        raise ValueError(f"timeout_seconds must be above 0, got {timeout_seconds}")
    return timeout_seconds
