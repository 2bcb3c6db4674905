# Images of leader-sidecar, for docker, podman and buildah:
#
#   podman build -t leader-sidecar .                                     the sidecar (default)
#   podman build -t leader-sidecar-operator --target operator .
#   podman build -t leader-sidecar-crawler --target crawler .            the example: `master` and `worker`
#
# Everything that is installed is locked by hash in requirements/. BASE_IMAGE is any image with Python 3.11 or newer
# and its venv module; every stage takes the same one, so that the interpreter is where the environment expects it.
ARG BASE_IMAGE=docker.io/library/python:3.13-slim

FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY requirements/build.lock requirements/runtime.lock requirements/
RUN python3 -m venv /build \
 && /build/bin/python -m pip install --quiet --require-hashes -r requirements/build.lock \
 && python3 -m venv --without-pip /opt/leader-sidecar \
 && /build/bin/python -m pip --python /opt/leader-sidecar/bin/python install --quiet --no-compile \
      --require-hashes -r requirements/runtime.lock
COPY pyproject.toml README.md CHANGELOG.md LICENSE ./
COPY sidecar sidecar
# Bytecode that is never checked against its source makes the start faster and the image the same each time.
RUN SOURCE_DATE_EPOCH=315532800 /build/bin/python -m hatchling build -t wheel -d /wheels \
 && /build/bin/python -m pip --python /opt/leader-sidecar/bin/python install --quiet --no-compile --no-deps --no-index \
      /wheels/*.whl \
 && /opt/leader-sidecar/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/leader-sidecar/lib

FROM build AS build-operator
COPY requirements/operator.lock requirements/
RUN /build/bin/python -m pip --python /opt/leader-sidecar/bin/python install --quiet --no-compile \
      --require-hashes -r requirements/operator.lock \
 && /opt/leader-sidecar/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/leader-sidecar/lib

FROM build AS build-crawler
COPY requirements/crawler.lock requirements/
RUN /build/bin/python -m pip --python /opt/leader-sidecar/bin/python install --quiet --no-compile \
      --require-hashes -r requirements/crawler.lock
COPY examples/crawler examples/crawler
RUN cd examples/crawler \
 && SOURCE_DATE_EPOCH=315532800 /build/bin/python -m hatchling build -t wheel -d /wheels/crawler \
 && /build/bin/python -m pip --python /opt/leader-sidecar/bin/python install --quiet --no-compile --no-deps --no-index \
      /wheels/crawler/*.whl \
 && /opt/leader-sidecar/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/leader-sidecar/lib

# What all images have in common: a numeric user without a home, nothing to write, no shell needed.
FROM ${BASE_IMAGE} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="leader-sidecar" \
      org.opencontainers.image.description="Leader election in etcd for any program, as a container beside it" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/leader-sidecar/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
# The program is PID 1 and takes SIGTERM itself.
STOPSIGNAL SIGTERM

FROM runtime AS operator
LABEL org.opencontainers.image.title="leader-sidecar-operator"
COPY --from=build-operator /opt/leader-sidecar /opt/leader-sidecar
ENTRYPOINT ["leader-sidecar"]
CMD ["operator"]

FROM runtime AS crawler
LABEL org.opencontainers.image.title="leader-sidecar-crawler" \
      org.opencontainers.image.description="The example of leader-sidecar: a crawler's Masters and Workers"
COPY --from=build-crawler /opt/leader-sidecar /opt/leader-sidecar
ENTRYPOINT ["master"]

# The last one is built when no target is named.
FROM runtime AS sidecar
COPY --from=build /opt/leader-sidecar /opt/leader-sidecar
EXPOSE 4040
ENTRYPOINT ["leader-sidecar"]
CMD ["run"]
