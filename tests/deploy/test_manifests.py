"""What deploys annserve is well formed, and agrees with annserve: settings, ports, probes, times."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer.main
import yaml
from check_jsonschema import builtin_schemas
from jsonschema import Draft7Validator

from annserve.cli.app import app_of
from annserve.cli.refresh import BUSY_CODE, REFUSED_CODE
from annserve.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUSTOMIZATIONS = sorted(DEPLOY.rglob("kustomization.yaml"))
KUBERNETES_VERSION = "1.31"

MANIFESTS = [
    (path.name, manifest)
    for kustomization in KUSTOMIZATIONS
    for path in sorted(kustomization.parent.glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for manifest in yaml.safe_load_all(path.read_text())
]


def manifest(kind: str, name: str = "annserve") -> dict[str, Any]:
    (found,) = [one for _, one in MANIFESTS if one["kind"] == kind and one["metadata"]["name"] == name]
    return dict(found)


def settings_of(text: str) -> set[str]:
    return set(re.findall(r"ANNSERVE_[A-Z_]+", text))


@pytest.mark.parametrize(("file", "found"), MANIFESTS, ids=[f"{file}-{one['kind']}" for file, one in MANIFESTS])
def test_manifests_are_as_kubernetes_wants_them(file: str, found: dict[str, Any]) -> None:
    assert file
    kubernetes_validate.validate(found, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: path.parent.name)
def test_a_kustomization_has_every_manifest_of_its_folder_and_bases_that_do_not_hold_it(path: Path) -> None:
    listed = [(path.parent / name).resolve() for name in yaml.safe_load(path.read_text())["resources"]]
    bases = [one for one in listed if one.is_dir()]

    assert {one for one in listed if one not in bases} == set(path.parent.glob("*.yaml")) - {path}
    assert all((base / "kustomization.yaml").is_file() for base in bases)
    # kustomize calls that a cycle.
    assert not any(path.is_relative_to(base) for base in bases)


def test_a_refresh_is_a_command_that_there_is_and_writes_where_instances_pull_from() -> None:
    job = manifest("CronJob", "annserve-refresh")["spec"]["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    values = {one["name"]: one["value"] for one in container["env"]}
    claims = {one["name"]: one.get("persistentVolumeClaim", {}).get("claimName") for one in pod["volumes"]}
    writable = [one for one in container["volumeMounts"] if not one.get("readOnly")]
    (rule,) = job["podFailurePolicy"]["rules"]
    known = {option for one in typer.main.get_command(app_of()).commands["refresh"].params for option in one.opts}  # type: ignore[attr-defined]

    assert container["args"][0] == "refresh"
    assert {one for one in container["args"] if one.startswith("--")} <= known
    assert [one["mountPath"] for one in writable] == [values["ANNSERVE_SNAPSHOTS"]]
    assert manifest("ConfigMap")["data"]["ANNSERVE_PULL_FROM"] == f"file://{values['ANNSERVE_SNAPSHOTS']}"
    assert claims[writable[0]["name"]] == "annserve-published"
    assert rule["onExitCodes"]["values"] == [REFUSED_CODE, BUSY_CODE]
    assert pod["securityContext"]["runAsUser"] == 65532
    assert container["securityContext"]["readOnlyRootFilesystem"]


def test_the_compose_file_is_as_its_specification_wants_it() -> None:
    schema = resources.files(builtin_schemas).joinpath("vendor/compose-spec.json").read_text()
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())

    assert not [error.message for error in Draft7Validator(json.loads(schema)).iter_errors(compose)]


@pytest.mark.parametrize("path", [ROOT / "Dockerfile", *sorted(DEPLOY.rglob("*.yaml"))], ids=lambda path: path.name)
def test_every_setting_that_is_named_is_one(path: Path) -> None:
    known = {f"ANNSERVE_{name.upper()}" for name in Settings.model_fields}

    assert settings_of(path.read_text()) <= known


def test_settings_of_pods_have_values_that_annserve_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in manifest("ConfigMap")["data"].items():
        monkeypatch.setenv(name, value)

    assert Settings().workers == 2


def test_a_pod_has_time_to_leave() -> None:
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    settings = manifest("ConfigMap")["data"]
    (_, pause) = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    leaving_ms = int(settings["ANNSERVE_DRAIN_DELAY_MS"]) + int(settings["ANNSERVE_DRAIN_GRACE_MS"])

    assert pod["terminationGracePeriodSeconds"] >= int(pause) + leaving_ms / 1_000 + 5


def test_probes_and_ports_are_those_of_the_image() -> None:
    (container,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    probes = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    image = dockerfile()

    assert probes == {"/startupz", "/readyz", "/livez"}
    assert image["ANNSERVE_ADDRESS"].endswith(f":{ports['grpc']}")
    assert image["ANNSERVE_OPS_ADDRESS"].endswith(f":{ports['ops']}")


def test_containers_may_write_nothing_but_what_they_have_to() -> None:
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    services: Mapping[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    ours = [service for name, service in services.items() if name.startswith("annserve")]

    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["runAsUser"] == 65532
    assert writable == {"/dev/shm", "/snapshots"}  # noqa: S108 - shared memory
    assert len(ours) == 2
    assert all(service["read_only"] and service["cap_drop"] == ["ALL"] for service in ours)


def dockerfile() -> dict[str, str]:
    """Return the environment of the image's last stage."""
    return dict(_assignments((ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2]))


def _assignments(stage: str) -> Iterator[tuple[str, str]]:
    joined = stage.replace("\\\n", " ")
    for line in joined.splitlines():
        if line.startswith("ENV "):
            for assignment in line.split()[1:]:
                name, _, value = assignment.partition("=")
                yield name, value
