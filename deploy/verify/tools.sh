#!/usr/bin/env bash
# Installs the checkers of `make verify-deploy` into build/verify: a Python environment pinned by hash, actionlint
# and the operators' own CRDs pinned by version and sum. Does nothing when they are there. Exit 2: one cannot be had.
#   tools.sh            install        tools.sh --compile   rewrite requirements/{verify,policy,build}.txt from their .in
#   tools.sh policy     checkov and pip-audit too, in an environment of their own: 120 packages that the fast checks do not need
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
home=${VERIFY_HOME:-$PWD/build/verify}
python=${PYTHON:-python3}

say() { printf 'tools: %s\n' "$*" >&2; }
die() { say "$*"; exit 2; }

if [ "${1:-}" = --compile ]; then
    command -v uv >/dev/null || PATH="$PWD/.venv/bin:$PATH"
    command -v uv >/dev/null || die "uv is missing: run make setup"
    for name in verify policy build; do
        uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --python-version 3.11 \
            --custom-compile-command "deploy/verify/tools.sh --compile" -o "requirements/$name.txt" "requirements/$name.in"
    done
    exit
fi

# Repository, version, sum as `go mod download` reports it, folder of the CRDs, file names.
crd_modules=(
    "github.com/kedacore/keda/v2 v2.20.2 h1:SR60v8uIcelbveS8n/1jcl8tLdBBIbHMxmdOHw8tKqA= config/crd/bases keda.sh_scaledobjects.yaml,keda.sh_triggerauthentications.yaml"
    "github.com/external-secrets/external-secrets v1.3.2 h1:u2J8RjlHIeF0oZCqtl92adI/uZWUwOesJIDkfql6LqQ= config/crds/bases external-secrets.io_externalsecrets.yaml,external-secrets.io_secretstores.yaml"
    "github.com/prometheus-operator/prometheus-operator v0.85.0 h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s= example/prometheus-operator-crd monitoring.coreos.com_servicemonitors.yaml,monitoring.coreos.com_prometheusrules.yaml"
)
go_tools=(
    "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
    "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0"
)

# uv where `make setup` put it: it fetches in parallel. Where it cannot reach the index as pip does, pip.
install_packages() { # environment, requirements
    if [ -x .venv/bin/uv ] && .venv/bin/uv pip install --quiet --python "$1/bin/python" --require-hashes -r "$2" 2>/dev/null; then return; fi
    "$1/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$2" || die "pip could not install $2: is a package index reachable?"
}

install_python() { # environment, requirements, what it is
    local stamp; stamp="$home/$1/.stamp-$(sha256sum "requirements/$2" | cut -c1-16)"
    [ -e "$stamp" ] && return
    say "$3"
    rm -rf "${home:?}/$1"
    "$python" -m venv "$home/$1" || die "python3 -m venv failed: install Python 3.11 or newer with venv"
    install_packages "$home/$1" "requirements/$2"
    touch "$stamp"
}

need_go() { command -v go >/dev/null || die "go is missing: install Go 1.25 or newer (it builds actionlint and kubeconform and fetches the CRDs)"; }

install_go() {
    local tool name
    for tool in "${go_tools[@]}"; do
        name=$(basename "${tool%@*}")
        [ -x "$home/bin/$name-${tool#*@}" ] && continue
        need_go; say "$name ${tool#*@} (about 20 s)"
        (cd "$home" && GOBIN="$home/bin" GOFLAGS="" nice go install "$tool") || die "go install $tool failed: is a module proxy reachable?"
        mv "$home/bin/$name" "$home/bin/$name-${tool#*@}"
        ln -sf "$name-${tool#*@}" "$home/bin/$name"
    done
}

install_crds() {
    local module version sum folder files got file
    for entry in "${crd_modules[@]}"; do
        read -r module version sum folder files <<<"$entry"
        [ -e "$home/crds/.have-$(basename "${module%/v2}")-$version" ] && continue
        need_go; say "CRDs of $module $version"
        got=$(cd "$home" && GOFLAGS=-mod=mod go mod download -json "$module@$version") || die "cannot fetch $module@$version: is a module proxy reachable?"
        grep -qF "\"Sum\": \"$sum\"" <<<"$got" || die "$module@$version has another sum than the one pinned here: do not use it"
        for file in ${files//,/ }; do
            install -m 0644 "$(sed -n 's/.*"Dir": "\(.*\)",/\1/p' <<<"$got")/$folder/$file" "$home/crds/$file"
        done
        touch "$home/crds/.have-$(basename "${module%/v2}")-$version"
    done
}

mkdir -p "$home/bin" "$home/crds"
# Side by side: one waits for the network while another compiles.
jobs=()
install_python venv verify.txt "Python checkers (510 MB)" & jobs+=($!)
if [ "${1:-}" = policy ]; then install_python policy policy.txt "checkov and pip-audit" & jobs+=($!); fi
install_go & jobs+=($!)
install_crds & jobs+=($!)
failed=0
for job in "${jobs[@]}"; do wait "$job" || failed=2; done
exit "$failed"
