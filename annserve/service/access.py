"""Who may call: asked before anything else of a call is looked at, in the one place that every method goes through."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import grpc

from annserve.domain.errors import PermissionDeniedError, RateLimitedError, UnauthenticatedError
from annserve.service.access_keys import AccessKey, AccessKeys, Scope
from annserve.service.calls import abort, logged_status
from annserve.service.context import Call, Context
from annserve.service.request_id import request_id_of

HEADER: Final = "authorization"
_SCHEME: Final = "bearer "
_SCOPES: Final = {
    "/annserve.v1.RecommendationService/": Scope.QUERY,
    "/annserve.v1.EventService/": Scope.EVENTS,
    "/annserve.v1.AdminService/": Scope.ADMIN,
}
_OPEN: Final = "/grpc.health.v1.Health/"
"""Orchestrators and balancers ask for health, and have no keys."""

_LOG_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)


class TokenBucket:
    """Lets ``per_second`` calls through, and twice as many at once after a pause."""

    def __init__(self, per_second: float, now: float) -> None:
        self.per_second = per_second
        self._depth = max(2.0 * per_second, 1.0)
        self._tokens = self._depth
        self._filled_at = now

    def take(self, now: float) -> float:
        """Take a call's token; return 0, or in how many seconds there will be one."""
        self._tokens = min(self._depth, self._tokens + (now - self._filled_at) * self.per_second)
        self._filled_at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self.per_second


@dataclass(slots=True)
class Refusals:
    """How many calls were turned away for their key."""

    unauthenticated: int = 0
    permission_denied: int = 0
    rate_limited: int = 0


class AccessControl(grpc.aio.ServerInterceptor):
    """Lets calls through that bring a key with the right scope, and no more often than it may."""

    def __init__(self, keys: AccessKeys, refusals: Refusals | None = None) -> None:
        """Ask for ``keys``; those who have none, or the wrong one, are counted in ``refusals``."""
        self._keys = keys
        self._refusals = refusals or Refusals()
        self._buckets: dict[str, TokenBucket] = {}
        self._told_at: dict[str, float] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the method's own handler, or one that refuses."""
        refusal = self.refusal(handler_call_details.method, handler_call_details.invocation_metadata)
        if refusal is not None:
            return grpc.unary_unary_rpc_method_handler(refusal)
        return await continuation(handler_call_details)

    def refusal(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Call | None:
        """Return what answers a call of the method at that path that may not go on, with an error; None if it may."""
        try:
            self.check(method, metadata)
        except Exception as error:  # noqa: BLE001 - what fails here must let nobody in, and stop nobody else
            return _refusing(error)
        return None

    def check(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Raise UnauthenticatedError, PermissionDeniedError or RateLimitedError, unless the call may go on."""
        if method.startswith(_OPEN):
            return
        key = self._key(metadata)
        if key is None:
            self._refusals.unauthenticated += 1
            self._tell("a call without a key that is valid: %s", method)
            raise UnauthenticatedError
        scope = _scope(method)
        if scope is not None and scope not in key.scopes:
            self._refusals.permission_denied += 1
            self._tell(f"a call of %s that the key {key.name} is not for", method)
            raise PermissionDeniedError(scope.value)
        if key.calls_per_second is not None:
            self._take(key, key.calls_per_second)

    def _key(self, metadata: Iterable[tuple[str, str | bytes]]) -> AccessKey | None:
        for name, value in metadata:
            if name == HEADER and isinstance(value, str) and value[: len(_SCHEME)].lower() == _SCHEME:
                return self._keys.find(value[len(_SCHEME) :].strip())
        return None

    def _take(self, key: AccessKey, per_second: float) -> None:
        now = time.monotonic()
        bucket = self._buckets.get(key.sha256)
        if bucket is None or bucket.per_second != per_second:
            bucket = self._buckets[key.sha256] = TokenBucket(per_second, now)
        wait_seconds = bucket.take(now)
        if wait_seconds:
            self._refusals.rate_limited += 1
            raise RateLimitedError(key.name, wait_seconds)

    def _tell(self, message: str, method: str) -> None:
        """Log, once a minute each: who tries keys must not fill the disk."""
        now = time.monotonic()
        if now >= self._told_at.get(message, -_LOG_SECONDS) + _LOG_SECONDS:
            # Few messages, since keys are few; methods may be of the caller's invention.
            self._told_at[message] = now
            _log.warning(message, method[:128], extra={"event": "access_denied"})


def _scope(method: str) -> Scope | None:
    """Return what a key needs for ``method``; None where any key will do: reflection, and what there is not."""
    return next((scope for prefix, scope in _SCOPES.items() if method.startswith(prefix)), None)


def _refusing(error: Exception) -> Call:
    async def refuse(data: bytes, context: Context, waited_seconds: float = 0.0) -> bytes:  # noqa: ARG001 - as it is called
        request_id = request_id_of(context)
        await abort(context, logged_status(error, request_id), request_id)

    return refuse
