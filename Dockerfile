# annserve in a container:
#
#   docker build -t annserve .
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges --shm-size 256m \
#       -p 50051:50051 -v "$PWD/snapshots:/snapshots:ro" annserve serve --insecure
#
# Nothing is written but to /dev/shm (sockets, cache, metrics), where snapshots are pulled to /snapshots, and, without a
# catalogue in MongoDB, to the files of events, erasures and fresh items, which need a volume. --insecure says that
# something before it speaks TLS; docs/security.md has the other way. deploy/ has Compose and Kubernetes.
#
# hnswlib is compiled here for any x86-64-v3 processor (AVX2; servers since 2013), not for the one that builds: an image
# tuned to its builder dies with SIGILL elsewhere. Another baseline: --build-arg CPU_FLAGS=-march=x86-64-v2, or, on ARM,
# --build-arg CPU_FLAGS=-march=armv8.2-a
FROM python:3.11-slim AS build
ARG CPU_FLAGS=-march=x86-64-v3
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/annserve
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 HNSWLIB_NO_NATIVE=1 CFLAGS=${CPU_FLAGS} CXXFLAGS=${CPU_FLAGS}
COPY requirements /src/requirements
RUN /opt/annserve/bin/pip install --require-hashes --no-deps -r /src/requirements/build.txt \
    && /opt/annserve/bin/pip install --require-hashes --no-deps --no-build-isolation -r /src/requirements/runtime.txt
COPY pyproject.toml README.md LICENSE /src/
COPY annserve /src/annserve
COPY clients/python /src/clients/python
RUN /opt/annserve/bin/pip install --no-deps --no-build-isolation /src /src/clients/python \
    && /opt/annserve/bin/python -m compileall -q /opt/annserve/lib

FROM python:3.11-slim
COPY --from=build /opt/annserve /opt/annserve
ENV PATH=/opt/annserve/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 OPENBLAS_NUM_THREADS=1 \
    ANNSERVE_SNAPSHOTS=/snapshots ANNSERVE_ADDRESS=0.0.0.0:50051 ANNSERVE_OPS_ADDRESS=0.0.0.0:50053
# Nothing here needs root.
USER 65532:65532
WORKDIR /
EXPOSE 50051 50053
STOPSIGNAL SIGTERM
# The supervisor answers, however busy the workers are. It lives as long as it looks around; whether calls are welcome is
# for /readyz to say.
HEALTHCHECK --interval=10s --timeout=2s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:50053/livez', timeout=2)"]
ENTRYPOINT ["annserve"]
CMD ["serve"]
