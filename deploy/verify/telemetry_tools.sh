#!/usr/bin/env bash
# Installs promtool, Prometheus, amtool and Alertmanager from the distribution's packages: for the rules' tests.
# Does nothing when they are there. Exit 2: one cannot be had. Never leaves a service started: it refuses where it might.
set -euo pipefail
missing=()
for tool in promtool prometheus amtool prometheus-alertmanager; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
[ ${#missing[@]} -eq 0 ] && exit 0
say() { printf 'telemetry tools: %s\n' "$*" >&2; }
cure="install ${missing[*]} (Debian: apt-get install --no-install-recommends prometheus prometheus-alertmanager)"
command -v apt-get >/dev/null || { say "no apt-get here: $cure"; exit 2; }
[ "$(id -u)" = 0 ] || { say "not root: $cure"; exit 2; }
if [ -d /run/systemd/system ]; then say "installing here would start services: $cure, then systemctl disable --now prometheus prometheus-alertmanager"; exit 2; fi
say "Debian packages prometheus and prometheus-alertmanager (about 15 s)"
DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends prometheus prometheus-alertmanager >/dev/null \
    || { say "apt-get failed; run apt-get update, or $cure"; exit 2; }
