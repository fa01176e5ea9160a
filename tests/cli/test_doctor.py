"""The doctor reads limits right, and says what is wrong."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from annserve.cli import doctor
from annserve.cli.app import app_of
from annserve.supervisor.cgroups import CgroupLimits, cgroup_limits

Annserve = Callable[..., subprocess.CompletedProcess[str]]


def files(root: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_limits_of_version_2_are_the_narrowest_up_to_the_mount(tmp_path: Path) -> None:
    root = files(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/box\n",
            "sys/fs/cgroup/pod/box/cpu.max": "max 100000\n",
            "sys/fs/cgroup/pod/box/memory.max": "2000000000\n",
            "sys/fs/cgroup/pod/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/pod/memory.max": "1000000000\n",
            "sys/fs/cgroup/memory.max": "max\n",
        },
    )

    assert cgroup_limits(root) == CgroupLimits(
        processors=1.5, memory_bytes=1_000_000_000, memory_free_bytes=1_000_000_000
    )


def test_limits_of_version_1_are_read_from_each_controller(tmp_path: Path) -> None:
    root = files(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/id\n2:cpu,cpuacct:/docker/id\n1:name=systemd:/docker/id\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "3000000000\n",
        },
    )

    assert cgroup_limits(root) == CgroupLimits(
        processors=0.5, memory_bytes=3_000_000_000, memory_free_bytes=3_000_000_000
    )


@pytest.mark.parametrize(
    "contents",
    [
        {},
        {"proc/self/cgroup": "0::/\n"},
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n", "sys/fs/cgroup/memory.max": "max\n"},
        {
            "proc/self/cgroup": "4:memory:/\n2:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    ],
)
def test_no_limit_is_told_from_a_limit(tmp_path: Path, contents: dict[str, str]) -> None:
    assert cgroup_limits(files(tmp_path, contents)) == CgroupLimits(
        processors=None, memory_bytes=None, memory_free_bytes=None
    )


def test_supervisor_leaves_threads_out() -> None:
    assert doctor.fork_safety() == ("ok", "the supervisor imports nothing with threads")
    state, detail = doctor.fork_safety("import numpy, sys; print(*({'numpy'} & set(sys.modules)))")
    assert (state, detail.split(",")[0]) == ("failure", "the supervisor imports numpy")
    assert doctor.fork_safety("import nothing_like_this")[0] == "failure"


def test_shared_memory_that_is_small_or_missing_is_a_warning(tmp_path: Path) -> None:
    assert doctor.shared_memory(tmp_path / "missing", 1)[0] == "warning"
    assert doctor.shared_memory(tmp_path, 1)[0] == "ok"
    state, detail = doctor.shared_memory(tmp_path, 1 << 62)
    assert state == "warning"
    assert "--shm-size" in detail


def test_every_check_is_reported(tmp_path: Path) -> None:
    done = CliRunner().invoke(app_of(), ["doctor", "--json", "--snapshots", str(tmp_path)])

    found = {row["check"]: row["state"] for row in json.loads(done.stdout)}
    assert {"processors", "memory", "shared memory", "open files", "processes", "admin address"} <= set(found)
    assert {found["hnswlib"], found["lmdb"], found["protobuf"], found["fork safety"]} == {"ok"}
    assert found["snapshot"] == "warning"
    assert done.exit_code == 0


def test_what_a_group_has_left_is_its_limit_without_what_it_uses(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/service"
    contents = {
        "proc/self/cgroup": "0::/service\n",
        f"{group}/memory.max": "1000",
        f"{group}/memory.current": "400",
        "sys/fs/cgroup/memory.max": "2000",
        "sys/fs/cgroup/memory.current": "1900",
    }

    limits = cgroup_limits(files(tmp_path, contents))

    assert (limits.memory_bytes, limits.memory_free_bytes) == (1_000, 100)


@pytest.mark.parametrize(
    ("membership", "group", "names"),
    [
        ("0::/\n", "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")),
        (
            "4:memory:/\n",
            "sys/fs/cgroup/memory",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
def test_files_that_were_read_once_do_not_count_as_used(
    tmp_path: Path, membership: str, group: str, names: tuple[str, str, str]
) -> None:
    limit, used, inactive = names
    contents = {
        "proc/self/cgroup": membership,
        f"{group}/{limit}": "1000",
        f"{group}/{used}": "900",
        f"{group}/memory.stat": f"anon 100\n{inactive} 700\n",
    }

    assert cgroup_limits(files(tmp_path, contents)).memory_free_bytes == 800


def test_what_stops_serve_is_a_failure_told_once(
    annserve: Annserve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failures() -> dict[str, str]:
        rows = json.loads(annserve("doctor", "--json", "--snapshots", tmp_path, code=1).stdout)
        return {row["check"]: row["detail"] for row in rows if row["state"] == "failure"}

    for name in ("CATALOG", "PLACEMENTS", "API_KEYS", "TLS_CERTIFICATE"):
        monkeypatch.setenv(f"ANNSERVE_{name}", str(tmp_path / f"{name}.jsonl"))
    found = failures()
    monkeypatch.setenv("ANNSERVE_WORKERS", "abc")
    of_settings = failures()

    assert found.keys() == {"TLS", "API keys", "catalogue", "placements"}
    assert "ANNSERVE_TLS_KEY" in found["TLS"]
    assert "ANNSERVE_WORKERS" in of_settings.pop("settings")
    assert set(of_settings.values()) == {"see settings"}
