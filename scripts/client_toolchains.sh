#!/bin/sh
# Install what generates, builds and tests the clients in TypeScript, Go and Java: Debian's packages, and npm's as locked.
set -eu
cd "$(dirname "$0")/.."

packages="golang-go protoc-gen-go protoc-gen-go-grpc golang-google-grpc-dev golang-google-genproto-dev
    golang-google-protobuf-dev golang-github-golang-protobuf-1-5-dev
    openjdk-17-jdk-headless protobuf-compiler protobuf-compiler-grpc-java-plugin libgrpc-java libprotobuf-java
    libperfmark-java libopencensus-java libnetty-java libguava-java libgoogle-gson-java libjsr305-java
    libgeronimo-annotation-1.3-spec-java junit4"
missing=$(for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
done)
if [ -n "$missing" ]; then
    echo "Installing" $missing
    [ "$(id -u)" = 0 ] || { echo "as root: apt-get install" $missing >&2; exit 1; }
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing > /dev/null
fi
command -v npm > /dev/null || { echo "Node 20 or newer with npm is missing" >&2; exit 1; }
cd clients/typescript
[ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --ignore-scripts --silent
