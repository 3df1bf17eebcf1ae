#!/usr/bin/env bash
# The target `cluster` of deploy/verify/verify.py: image, cluster, end_to_end.sh, and everything taken down again.
# Cold about 25 min more, for Kubernetes' binaries. Closing line: end_to_end.sh's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
trap 'deploy/dev/cluster/cluster.sh down >&2 || true; deploy/dev/engine.sh stop' EXIT
settings=$(deploy/dev/engine.sh env node); eval "$settings"
nice -n 10 docker build --quiet --tag plumbline:ci --build-arg VERSION=ci . >/dev/null
settings=$(deploy/dev/cluster/cluster.sh up "${NODES:-3}"); eval "$settings"
deploy/dev/cluster/end_to_end.sh
