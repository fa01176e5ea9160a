"""What MongoDB's errors mean, in words of our own: the driver's hold addresses, and who knows what else."""

from __future__ import annotations

from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    DuplicateKeyError,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)

UNAUTHORIZED = 13
AUTHENTICATION_FAILED = 18
_OVERLOADED = 462


def problem_of(error: Exception) -> str:
    """Return what went wrong, without anything the server or the driver said in free text."""
    match error:
        case WaitQueueTimeoutError():
            return "every connection is busy"
        case ServerSelectionTimeoutError():
            return "no server of it is reachable"
        case ExecutionTimeout():
            return "it took too long"
        case DuplicateKeyError():
            return "two documents have the same key"
        case OperationFailure(code=code) if code is not None:
            name = str((error.details or {}).get("codeName", "no name"))
            return f"MongoDB refused with code {code} ({name})"
        case ConnectionFailure() | OSError():
            return "the connection broke"
        case ConfigurationError():
            return "its address leads to no server"
        case _:
            return f"the driver failed ({type(error).__name__})"


def is_silence(error: Exception) -> bool:
    """Return whether ``error`` says that the server does not answer, rather than being its answer."""
    match error:
        case WaitQueueTimeoutError():
            return False
        case OperationFailure(code=code):
            return code in (_OVERLOADED, AUTHENTICATION_FAILED)
        case _:
            return isinstance(error, (PyMongoError, OSError))
