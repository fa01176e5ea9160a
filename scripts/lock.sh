#!/bin/sh
# Pins what requirements/*.in and pyproject.toml allow to the newest versions, with hashes, for every platform at once.
# uv does the resolving; it is installed into the environment for this and needed for nothing else.
set -eu
cd "$(dirname "$0")/.."
.venv/bin/python -m pip --disable-pip-version-check --quiet install uv==0.13.9
compile() {
    .venv/bin/uv --quiet pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
        --no-emit-index-url "$@"
}
compile --extra dev --extra native --extra otel --extra plots requirements/build.in pyproject.toml -o requirements/dev.txt
compile --constraint requirements/dev.txt requirements/build.in -o requirements/build.txt
compile --constraint requirements/dev.txt --extra native --extra otel requirements/build.in pyproject.toml -o requirements/runtime.txt
compile --constraint requirements/dev.txt --extra loadtest pyproject.toml -o requirements/loadtest.txt
