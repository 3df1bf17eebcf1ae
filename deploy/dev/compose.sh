#!/usr/bin/env bash
# The compose stack in one command. Makes random secrets in .plumbline/compose once, builds the image, waits for health.
#   compose.sh up [--observability] | down | reset | token [role] | secrets
# Exit 2: Docker or Compose is missing, or a service did not become healthy.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
secrets=.plumbline/compose

die() { printf 'compose: %s\n' "$*" >&2; exit 2; }

# The folder is closed to others; the files are readable, because containers read them as uid 10001.
make_secrets() {
    mkdir -p "$secrets"; chmod 700 "$secrets"
    if [ ! -s "$secrets/postgres_password" ]; then
        for name in postgres_password grafana_password; do
            od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$secrets/$name"
        done
    fi
    printf 'postgresql://plumbline:%s@postgres:5432/plumbline' "$(cat "$secrets/postgres_password")" >"$secrets/DATABASE_URL"
    printf 'redis://valkey:6379/0' >"$secrets/REDIS_URL"
    chmod 644 "$secrets"/*
}

need_docker() {
    command -v docker >/dev/null || die "docker is missing: install Docker Engine with Compose 2.24 or newer, or use make up (needs neither)"
    docker compose version >/dev/null 2>&1 || die "docker compose is missing: install the Compose plugin 2.24 or newer"
    docker info >/dev/null 2>&1 || die "the Docker daemon does not answer: start it, or set DOCKER_HOST"
}

up() {
    local profile=()
    if [ "${1:-}" = --observability ]; then
        profile=(--profile observability); export OTLP_URL=http://collector:4318/v1/traces
    fi
    need_docker; make_secrets
    if [ "${PLUMBLINE_BUILD:-1}" = 1 ]; then printf 'compose: building the image\n' >&2; docker compose build --quiet api; fi
    local patience=${PLUMBLINE_WAIT_S:-180}
    printf 'compose: starting, up to %s s\n' "$patience" >&2
    docker compose "${profile[@]}" up --detach --no-build --wait --wait-timeout "$patience" \
        api worker relay reaper issuer psp ${profile:+prometheus alertmanager grafana tempo loki collector} \
        || { docker compose ps --all >&2; die "not everything became healthy: docker compose logs <service>"; }
    printf 'ready http://127.0.0.1:%s\n' "${HTTP_PORT:-8000}"
}

case "${1:-}" in
    up) shift; up "$@" ;;
    down) need_docker; docker compose --profile observability down --timeout 40 ;;
    reset) need_docker; docker compose --profile observability down --timeout 40 --volumes; rm -rf "$secrets" ;;
    token) need_docker; docker compose exec -T issuer plumbline token --role "${2:-customer}" ;;
    secrets) make_secrets ;;
    *) die "usage: compose.sh up [--observability] | down | reset | token [role] | secrets" ;;
esac
