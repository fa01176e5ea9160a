"""The Python client of annserve: recommendations over gRPC, with deadlines, retries and types."""

from annserve_client.aio import AsyncClient
from annserve_client.client import Client
from annserve_client.errors import (
    AccessError,
    AnnserveError,
    DeadlineError,
    ExhaustedError,
    FieldViolation,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    ServerError,
    UnavailableError,
)
from annserve_client.events import Event, EventType, Written, impression_of, outcome_of
from annserve_client.filters import Filter, Value, field
from annserve_client.hedging import Hedging
from annserve_client.requests import Options, Personalize, Recommend, Related, Request, Similar, WeightedItem
from annserve_client.results import (
    CacheSource,
    CatalogUse,
    Degradation,
    LimitingRule,
    PlacementUse,
    Recommendation,
    Recommendations,
    RuleEffect,
    ScoreExplanation,
    SearchPath,
    Shortfall,
    Source,
)

__all__ = [
    "AccessError",
    "AnnserveError",
    "AsyncClient",
    "CacheSource",
    "CatalogUse",
    "Client",
    "DeadlineError",
    "Degradation",
    "Event",
    "EventType",
    "ExhaustedError",
    "FieldViolation",
    "Filter",
    "Hedging",
    "InvalidRequestError",
    "LimitingRule",
    "NotFoundError",
    "Options",
    "Personalize",
    "PlacementUse",
    "PreconditionError",
    "Recommend",
    "Recommendation",
    "Recommendations",
    "Related",
    "Request",
    "RuleEffect",
    "ScoreExplanation",
    "SearchPath",
    "ServerError",
    "Shortfall",
    "Similar",
    "Source",
    "UnavailableError",
    "Value",
    "WeightedItem",
    "Written",
    "field",
    "impression_of",
    "outcome_of",
]
