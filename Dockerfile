# One image, every `plumbline` command except the development stack (up, demo, load).
# The base is named by tag; the update bot pins its digest on its first run with a registry (.github/dependabot.yml).
# PYTHON_IMAGE can be any image with Python 3.11-3.13 and venv, so a build needs no particular registry.
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_CACHE_DIR=/var/cache/pip
WORKDIR /src
# Wheels carry debug symbols for a debugger that is never there: 40 MB of them. Only the build stage gets the tool.
# hadolint ignore=DL3008
RUN command -v strip >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils; }
# Dependencies first: this layer is rebuilt only when their hashes change. Without what typer colours its help with where it
# is there, and without the tests that packages bring along.
COPY requirements/runtime.txt requirements/build.txt requirements/
RUN --mount=type=cache,target=/var/cache/pip \
    python -m venv /app/.venv \
    && /app/.venv/bin/pip install --quiet --no-compile --require-hashes -r requirements/runtime.txt -r requirements/build.txt \
    && /app/.venv/bin/pip uninstall --quiet --yes rich pygments markdown-it-py mdurl \
    && find /app/.venv -type d '(' -name __pycache__ -o -name tests -o -name testing ')' -prune -exec rm -rf {} + \
    && find /app/.venv -name '*.so' -exec strip --strip-unneeded {} + \
    && /app/.venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /app/.venv/lib
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY workers workers
# Without isolation the build uses the pinned setuptools; afterwards neither it nor pip is needed.
RUN /app/.venv/bin/pip install --quiet --no-compile --no-deps --no-build-isolation --no-index . \
    && /app/.venv/bin/pip uninstall --quiet --yes setuptools pip \
    && /app/.venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
        /app/.venv/lib/python3*/site-packages/service /app/.venv/lib/python3*/site-packages/workers

FROM ${PYTHON_IMAGE} AS runtime
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="plumbline" \
      org.opencontainers.image.description="Reference order service" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.created="${CREATED}"
# The base's own installer is of no use to the service and of much use to an intruder.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/pip* /usr/local/lib/python3*/ensurepip
COPY --from=build /app/.venv /app/.venv
ENV PATH=/app/.venv/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PLUMBLINE_HOME=/tmp/plumbline \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONFAULTHANDLER=1 \
    APP_HTTP_HOST=0.0.0.0 \
    APP_HTTP_OPS_HOST=0.0.0.0
WORKDIR /app
# A number, not a name: runAsNonRoot cannot check a name.
USER 10001:10001
EXPOSE 8000 9000
STOPSIGNAL SIGTERM
# By a bare socket: this starts an interpreter every five seconds in every container.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-ISc", "import os,socket as s; c=s.create_connection(('127.0.0.1',int(os.environ.get('OPS_PORT','9000'))),4); c.sendall(b'GET /health/ready HTTP/1.0\\r\\n\\r\\n'); assert b' 200 ' in c.recv(64)"]
ENTRYPOINT ["plumbline"]
CMD ["serve"]
