"""The clients in TypeScript, Go and Java: generated anew, built, tested against annserve, and their READMEs followed.

Run by `make test-clients`, which installs the toolchains first: a missing one fails.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "clients"
JARS = Path("/usr/share/java")
GO_SOURCES = "/usr/share/gocode"
BUILD_SECONDS = 600
GRPC_JARS = [
    *("grpc-api", "grpc-context", "grpc-core", "grpc-netty", "grpc-protobuf", "grpc-protobuf-lite", "grpc-stub"),
    *("netty-buffer", "netty-codec", "netty-codec-http", "netty-codec-http2", "netty-codec-socks", "netty-common"),
    *(
        "netty-handler",
        "netty-handler-proxy",
        "netty-resolver",
        "netty-transport",
        "netty-transport-native-unix-common",
    ),
    *("geronimo-annotation-1.3-spec", "gson", "guava", "jsr305", "opencensus-api", "perfmark-api", "perfmark-impl"),
    "protobuf",
]
RELEASE = ["--release", "11"]
TEST_JARS = ["junit4", "hamcrest-all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A client, built in a folder of its own or its own folder, and how to run what it is asked."""

    folder: Path
    tests: Sequence[str]
    fence: str
    """What the README calls its language."""
    example: Callable[[str], Sequence[str]]
    """Puts a program of the README in place and returns the command that runs it."""
    environment: Mapping[str, str]


def run(command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def built_typescript(_: Path) -> Built:
    folder = CLIENTS / "typescript"
    run(["npm", "run", "build"], folder)

    def example(text: str) -> Sequence[str]:
        # A package may import itself by its name, from within.
        path = folder / "build" / "example.mjs"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return ["node", str(path)]

    return Built(folder=folder, tests=["npm", "test"], fence="js", example=example, environment={})


def built_go(scratch: Path) -> Built:
    folder = scratch / "src" / "example.com" / "annserve"
    shutil.copytree(CLIENTS / "go", folder)
    # Debian has the libraries as sources in a GOPATH; its grpc-go is of the time when retries had to be asked for.
    environment = {
        "GO111MODULE": "off",
        "GOPATH": f"{scratch}:{GO_SOURCES}",
        "GOCACHE": str(Path.home() / ".cache" / "annserve-go"),
        "GRPC_GO_RETRY": "on",
    }
    assert run(["gofmt", "-l", *map(str, (CLIENTS / "go").glob("*.go"))], folder) == ""
    run(["go", "vet", "."], folder, environment)

    def example(text: str) -> Sequence[str]:
        path = folder / "example" / "main.go"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return ["go", "run", "./example"]

    return Built(folder=folder, tests=["go", "test", "-v", "."], fence="go", example=example, environment=environment)


def built_java(scratch: Path) -> Built:
    java, rpc, main, tests = CLIENTS / "java", scratch / "rpc", scratch / "main", scratch / "test"
    rpc.mkdir()
    tests.mkdir()
    # Maven's central repository has google.rpc compiled, Debian has not.
    protos = ["google/rpc/status.proto", "google/rpc/error_details.proto"]
    run(["protoc", "-Iproto/third_party", f"--java_out={rpc}", *protos], ROOT)
    jars = ":".join(str(JARS / f"{name}.jar") for name in GRPC_JARS)
    test_jars = ":".join(str(JARS / f"{name}.jar") for name in TEST_JARS)
    sources = [*rpc.rglob("*.java"), *java.glob("src/generated/**/*.java"), *java.glob("src/main/**/*.java")]
    run(["javac", *RELEASE, "-nowarn", "-d", main, "-cp", jars, *sources], scratch)
    path = f"{main}:{java / 'src' / 'generated' / 'resources'}:{jars}"
    test_path = f"{tests}:{path}:{test_jars}"
    test_sources = sorted(java.glob("src/test/**/*.java"))
    run(["javac", *RELEASE, "-Xlint:all", "-Werror", "-d", tests, "-cp", test_path, *test_sources], scratch)
    names = [f"annserve.client.{source.stem}" for source in test_sources]

    def example(text: str) -> Sequence[str]:
        (scratch / "Example.java").write_text(text)
        return ["java", "-cp", path, "Example.java"]

    return Built(
        folder=scratch,
        tests=["java", "-cp", test_path, "org.junit.runner.JUnitCore", *names],
        fence="java",
        example=example,
        environment={},
    )


BUILDS = {"typescript": built_typescript, "go": built_go, "java": built_java}


@pytest.fixture(scope="module", params=BUILDS)
def language(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def built(language: str, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return BUILDS[language](tmp_path_factory.mktemp(language))


def test_generated_code_is_what_generating_gives(language: str) -> None:
    run([sys.executable, "scripts/clients.py", "--compare", language], ROOT)


@pytest.mark.timeout(BUILD_SECONDS)
def test_its_own_tests_pass_against_a_live_server(built: Built, address: str) -> None:
    said = run(built.tests, built.folder, {**built.environment, "ANNSERVE_ADDRESS": address})

    assert re.search(r"^(# pass [1-9]|--- PASS|OK \([1-9])", said, re.MULTILINE), said


@pytest.mark.timeout(BUILD_SECONDS)
def test_the_example_of_its_readme_runs(built: Built, language: str, address: str) -> None:
    page = (CLIENTS / language / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(rf"```{built.fence}\n(.*?)```", page, re.DOTALL)

    command = built.example(example.replace("127.0.0.1:50051", address))
    said = run(command, built.folder, built.environment)

    # The cake stand's best companion, by far.
    assert "22697" in said
