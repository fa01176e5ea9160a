#!/bin/sh
# Says in one line what is missing before the environment can be prepared.
python=${PYTHON:-python3}
fail() {
    echo "annserve: $1" >&2
    exit 1
}
command -v "$python" >/dev/null 2>&1 ||
    fail "no '$python' here; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.12 setup"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "'$python' is $("$python" --version); 3.11 or newer is needed, name one: make PYTHON=/path/to/python3.12 setup"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "'$python' cannot make virtual environments; install its venv package (Debian: apt-get install python3-venv)"
command -v "${CXX:-g++}" >/dev/null 2>&1 || command -v c++ >/dev/null 2>&1 ||
    fail "no C++ compiler here; install one (Debian: apt-get install g++, macOS: xcode-select --install)"
[ -f "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] ||
    fail "the headers of '$python' are missing; install them (Debian: apt-get install python3-dev)"
