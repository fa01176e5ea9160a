"""Every knob of a running server. Read once, by `cli`; nothing else looks at the environment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

_PORT_MAX: Final = 65_535
_WORD: Final = r"(click|conversion|like|dislike)=[^=,\s]{1,64}"
_WEIGHT: Final = r"[^=,\s]{1,64}=\d{1,9}(\.\d{1,9})?"


def _is_address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("the form is host:port, for example 127.0.0.1:50051")
    if int(port) > _PORT_MAX:
        raise ValueError(f"the port must be at most {_PORT_MAX}")
    return text


def _are_words(text: str) -> str:
    if text and not re.fullmatch(f"{_WORD}(,{_WORD})*", text):
        raise ValueError(
            "the form is TYPE=WORD,..., for example click=viewed; the types are click, conversion, like and dislike"
        )
    return text


def _are_weights(text: str) -> str:
    if not re.fullmatch(f"{_WEIGHT}(,{_WEIGHT})*", text):
        raise ValueError("the form is NAME=NUMBER,..., for example click=1,conversion=4")
    return text


Address: TypeAlias = Annotated[str, AfterValidator(_is_address)]
"""Host and port."""


class Settings(BaseSettings):
    """Each field is an environment variable: ``snapshots`` is ``ANNSERVE_SNAPSHOTS``. Options given win over it."""

    model_config = SettingsConfigDict(env_prefix="ANNSERVE_", frozen=True, extra="forbid")

    snapshots: Path = Field(default=Path("snapshots"), description="The folder that holds the snapshots.")
    address: Address = Field(
        default="127.0.0.1:50051",
        description="Host and port to serve on, for example 127.0.0.1:50051; port 0 takes a free one.",
    )
    deadline_max_ms: int = Field(
        default=1_000,
        ge=1,
        le=60_000,
        description="How long a call may take, in milliseconds, whatever its own deadline.",
    )
    drain_grace_ms: int = Field(
        default=10_000,
        ge=0,
        le=600_000,
        description="How long calls under way may go on after TERM, in milliseconds.",
    )
    executor_threads: int = Field(
        default=2,
        ge=1,
        le=64,
        description="Threads for searches that would hold up others; each keeps a processor busy while it works.",
    )
    catalog: SecretStr | None = Field(
        default=None,
        description="Where items' metadata and users' histories are: mongodb://…, or a Parquet, JSON Lines or CSV file",
    )
    catalog_config: Path | None = Field(
        default=None, description="A YAML file that declares the catalogue's fields and where MongoDB keeps what."
    )
    histories: Path = Field(
        default=Path("histories.jsonl"), description="Where histories are kept when the catalogue is a file."
    )
    fresh_items: Path = Field(
        default=Path("fresh_items.jsonl"),
        description="Where items upserted and deleted between snapshots are kept when there is no MongoDB.",
    )
    fresh_items_max: int = Field(
        default=20_000,
        ge=0,
        le=1_000_000,
        description="How many upserted items may wait for a snapshot that knows them; each search scans all of them.",
    )
    events: Path = Field(
        default=Path("events.jsonl"),
        description="Where events are kept when there is no MongoDB.",
    )
    events_keep_days: int = Field(
        default=400, ge=1, le=36_500, description="How many days events are kept before they are dropped."
    )
    erased_users: Path = Field(
        default=Path("erased_users.jsonl"),
        description="Where digests of the ids of erased users are kept when there is no MongoDB.",
    )
    event_words: Annotated[str, AfterValidator(_are_words)] = Field(
        default="click=viewed,conversion=bought,like=liked,dislike=disliked",
        description="What events of each type are called in histories; those of a type left out are part of none.",
    )
    placements: Path | None = Field(
        default=None, description="The folder of placements, a YAML file each, read anew as they change."
    )
    placements_from_mongodb: bool = Field(
        default=False,
        description="Whether placements are in MongoDB, beside the catalogue, instead: collection placements.",
    )
    event_weights: Annotated[str, AfterValidator(_are_weights)] = Field(
        default="click=1,conversion=4,like=2",
        description="What counts how much in training: types of events, words of histories; others count nothing.",
    )
    catalog_max_staleness_ms: int = Field(
        default=600_000,
        ge=0,
        le=86_400_000,
        description="How old what is known of the catalogue may be where a request says nothing of it, in ms.",
    )
    catalog_ttl_ms: int = Field(
        default=30_000,
        ge=100,
        le=86_400_000,
        description="When what is known of the catalogue is read again where its changes cannot be followed, in ms.",
    )
    catalog_wait_ms: int = Field(
        default=50,
        ge=1,
        le=10_000,
        description="How long an answer waits for histories and metadata, which it can do without, in milliseconds.",
    )
    pull_from: SecretStr | None = Field(
        default=None,
        description="Where snapshots are published, to be fetched from there: a folder, file://…, s3://…, gs://…",
    )
    pull_canary: bool = Field(
        default=False, description="Whether this instance is of the first stage: it takes what CANARY names there."
    )
    pull_poll_ms: int = Field(
        default=10_000,
        ge=100,
        le=86_400_000,
        description="How often it is looked whether the source names another snapshot, in milliseconds.",
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="How many processes answer; without it one for each processor that this container may use.",
    )
    ops_address: Address = Field(
        default="127.0.0.1:50053",
        description="Host and port of probes and metrics over HTTP; port 0 takes a free one.",
    )
    drain_delay_ms: int = Field(
        default=0,
        ge=0,
        le=600_000,
        description="How long calls are still taken after TERM, when health says NOT_SERVING already, in milliseconds.",
    )
    runtime_folder: Path | None = Field(
        default=None,
        description="Where the instance makes the folder of its sockets, cache and metrics; shared memory without it.",
    )
    shared_cache: bool = Field(
        default=True, description="Whether the workers of an instance share what they have worked out."
    )
    shared_cache_bytes: int = Field(
        default=64 << 20,
        ge=8 << 20,
        le=1 << 40,
        description="How much memory is reserved for what the workers share, in bytes.",
    )
    warm_keys: int = Field(
        default=200,
        ge=0,
        le=10_000,
        description="How many of the hottest requests a worker answers before it serves; 0 answers none.",
    )
    answer_ttl_ms: int = Field(
        default=10_000,
        ge=0,
        le=86_400_000,
        description="How long an answer is kept for equal requests, in milliseconds; 0 keeps none.",
    )
    personal_answer_ttl_ms: int = Field(
        default=2_000,
        ge=0,
        le=86_400_000,
        description="The same of an answer for a user, whose history may grow, in milliseconds; 0 keeps none.",
    )
    admin_address: Address = Field(
        default="127.0.0.1:50052",
        description="Host and port of AdminService, which operates the instance; port 0 takes a free one.",
    )
    admin_allow_remote: bool = Field(
        default=False,
        description="Whether admin_address may be one that other machines reach: it asks nobody who he is.",
    )
    calls_max: int = Field(
        default=512,
        ge=1,
        le=100_000,
        description="How many calls a worker may have under way; more are refused as OVERLOADED.",
    )
    reflection: bool | None = Field(
        default=None,
        description="Whether gRPC reflection lists the services to tools; without it only on loopback.",
    )
    transport: Literal["auto", "grpcio", "native"] = Field(
        default="auto",
        description="What speaks HTTP/2: grpcio, native (needs annserve[native], no TLS), or auto: native on loopback.",
    )
    insecure: bool = Field(
        default=False,
        description="Whether other machines may be served without TLS: where something before annserve has it.",
    )
    tls_certificate: Path | None = Field(
        default=None, description="The server's certificate chain, PEM; with it both ports speak TLS. Read anew."
    )
    tls_key: Path | None = Field(default=None, description="The key of tls_certificate, PEM.")
    tls_client_ca: Path | None = Field(
        default=None, description="The authority of clients' certificates, PEM; with it each client must show one."
    )
    api_keys: Path | None = Field(
        default=None, description="A YAML file of API keys, hashed; with it every call must bring one. Read anew."
    )
    api_key: SecretStr | None = Field(
        default=None, description="The API key that annserve's own commands bring, such as query and admin."
    )
    tls_ca: Path | None = Field(
        default=None, description="The authority of servers that these commands trust, PEM; with it they speak TLS."
    )
    traces: bool = Field(
        default=False,
        description="Whether calls are traced by OpenTelemetry, as its OTEL_… variables say; needs annserve[otel].",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="The least severe level that is logged: DEBUG, INFO, WARNING or ERROR."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="How it is written: json, text, or text where standard error is a terminal."
    )
    log_share: float = Field(
        default=0.001,
        ge=0.0,
        le=1.0,
        description="Of calls that were answered, how many are logged; of those that were not all are.",
    )
    recall_share: float = Field(
        default=0.001,
        ge=0.0,
        le=1.0,
        description="Of searches by graph, how many are made again, exactly, to know how much they found; they take a "
        "hundredth of a processor at most.",
    )
