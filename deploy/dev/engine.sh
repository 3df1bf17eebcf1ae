#!/usr/bin/env bash
# A Docker Engine for this machine's own tests, where no image registry can be reached: Debian's docker.io started as
# root on a socket of its own, and images of the same names as the ones compose.yaml and the chart ask for, made from
# Debian's packages (stand-ins/Dockerfile). An engine that answers already is used as it is and pulls the real images.
#   engine.sh env [node]   print the shell settings that reach the engine; starts and fills it when needed (cold: 3-4 min);
#                     node: also the image of cluster.sh's machines
#   engine.sh stop    remove what runs on our engine and end it; the images stay in the cache
# Exit 2: something cannot be had; the line says what. Tested by `verify.py containers`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
home=${PLUMBLINE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/plumbline}/docker
python_image=python:3.13-slim-trixie
say() { printf 'engine: %4d s  %s\n' "$SECONDS" "$*" >&2; }
die() { say "$*"; exit 2; }
ours() { [ -s "$home/pid" ] && kill -0 "$(cat "$home/pid")" 2>/dev/null; }

install_packages() {
    local missing=()
    command -v dockerd >/dev/null || missing+=(docker.io iptables)
    command -v debootstrap >/dev/null || missing+=(debootstrap)
    [ ${#missing[@]} = 0 ] && return
    if [ ! -x /usr/bin/apt-get ] || [ "$(id -u)" != 0 ]; then die "no Docker engine answers, and ${missing[*]} cannot be installed without root and apt-get: start an engine or set DOCKER_HOST"; fi
    [ ! -d /run/systemd/system ] || die "no Docker engine answers: systemctl start docker (Debian: apt-get install docker.io)"
    say "installing ${missing[*]} (about 20 s)"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$home/log/apt.log" 2>&1 || die "apt-get failed, see $home/log/apt.log"
}

start() {
    ours && return
    command -v setsid >/dev/null || die "setsid is missing: install util-linux"
    rm -f "$home/pid"
    # A small range of its own: the defaults would cover half of the private addresses.
    PATH=/usr/sbin:/usr/bin:/sbin:/bin setsid nice -n 5 dockerd --host "$DOCKER_HOST" --data-root "$home/data" --exec-root "$home/exec" --pidfile "$home/pid" \
        --storage-driver overlay2 --bip 172.29.0.1/24 --default-address-pool base=172.29.16.0/20,size=24 </dev/null >"$home/log/dockerd.log" 2>&1 &
    for _ in $(seq 150); do docker info >/dev/null 2>&1 && return; sleep 0.2; done
    die "dockerd did not answer within 30 s, see $home/log/dockerd.log"
}

# Debian 13 with Python 3.13 and this machine's certificates, so that an unchanged Dockerfile can reach what the machine can.
base_image() {
    docker image inspect debian:trixie-slim >/dev/null 2>&1 && return
    local root; root=$(mktemp -d "$home/root.XXXX")
    say "base image: debootstrap of Debian trixie with Python 3.13 (about 50 s)"
    nice -n 10 debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv trixie "$root" >"$home/log/debootstrap.log" 2>&1 || die "debootstrap failed, see $home/log/debootstrap.log"
    for name in python python3; do ln -sf /usr/bin/python3 "$root/usr/local/bin/$name"; done
    cat /etc/ssl/certs/ca-certificates.crt >"$root/etc/ssl/certs/ca-certificates.crt"
    rm -rf "$root"/usr/share/{doc,locale,man}/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*
    tar -C "$root" -c --exclude='./proc/*' --exclude='./sys/*' . | docker import -c 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8' - "$python_image" >/dev/null
    docker tag "$python_image" debian:trixie-slim; rm -rf "$root"
}

# Compose and buildx as plugins, from Debian 13: this machine's Debian may be older and lack them.
plugins() {
    [ -x "$DOCKER_CONFIG/cli-plugins/docker-buildx" ] && return
    local packages=$home/plugins; mkdir -p "$packages" "$DOCKER_CONFIG/cli-plugins"
    docker run --rm -v "$packages:/out" -w /out debian:trixie-slim sh -c 'apt-get update -qq && apt-get download -qq -o APT::Sandbox::User=root docker-compose docker-buildx && for p in *.deb; do dpkg-deb -x "$p" x; done' \
        >"$home/log/plugins.log" 2>&1 || die "Compose and buildx could not be fetched, see $home/log/plugins.log"
    cp "$packages"/x/usr/libexec/docker/cli-plugins/* "$DOCKER_CONFIG/cli-plugins/"; rm -rf "$packages"
}

kafka_jars() {
    [ -d "$home/kafka" ] && return
    command -v mvn >/dev/null || die "mvn is missing: install Maven and Java 17 or newer (Debian: maven)"
    nice -n 10 mvn -q -B -f ../../service/dev/kafka.pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$home/kafka.part" >"$home/log/mvn.log" 2>&1 || die "Maven could not fetch Apache Kafka, see $home/log/mvn.log"
    mv "$home/kafka.part" "$home/kafka"
}

# target of stand-ins/Dockerfile, name
stand_in() {
    docker image inspect "$2" >/dev/null 2>&1 && return
    say "stand-in for $2"
    local context; context=$(mktemp -d "$home/context.XXXX")
    cp -r stand-ins/. "$context"
    if [ "$1" = kafka ]; then kafka_jars; cp -rl "$home/kafka" "$context/kafka/libs"; fi
    nice -n 10 docker build --quiet --target "$1" --tag "$2" "$context" >/dev/null 2>"$home/log/$1.log" || die "$2 could not be made, see $home/log/$1.log"
    rm -rf "$context"
}

# shellcheck disable=SC2016 # the reader's own PATH
env_lines() { printf 'export DOCKER_HOST=%q DOCKER_CONFIG=%q DOCKER_BUILDKIT=1 PATH=%q:"$PATH"\n' "$DOCKER_HOST" "$DOCKER_CONFIG" "$home/bin"; }

case "${1:-}" in
    env)
        mkdir -p "$home"/{log,bin,config}
        if ! ours && docker compose version >/dev/null 2>&1 && docker info >/dev/null 2>&1; then
            if [ "${2:-}" = node ]; then stand_in node plumbline-node:1; fi
            exit 0
        fi
        exec 9>"$home/lock"; flock 9
        install_packages
        # The engine's own client: a newer one may miss plugins.
        ln -sf /usr/bin/docker "$home/bin/docker"; PATH=$home/bin:$PATH
        export DOCKER_HOST=unix://$home/socket DOCKER_CONFIG=$home/config DOCKER_BUILDKIT=1
        start 9>&-; base_image; plugins
        stand_in postgres postgres:17.6; stand_in valkey valkey/valkey:8.1.3; stand_in kafka apache/kafka:4.3.1
        if [ "${2:-}" = node ]; then stand_in node plumbline-node:1; fi
        env_lines ;;
    stop)
        ours || exit 0
        PATH=$home/bin:$PATH; export DOCKER_HOST=unix://$home/socket
        docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
        pid=$(cat "$home/pid"); kill "$pid"; while kill -0 "$pid" 2>/dev/null; do sleep 0.2; done; say "stopped" ;;
    *) die "usage: engine.sh env [node] | stop" ;;
esac
