#!/usr/bin/env bash
# Builds a real Kubernetes (API server … kubelet, kubectl, CoreDNS) and Helm from their Go modules into the cache folder
# that it prints, once. For machines that reach package registries only; elsewhere use kind. Ends: 21 min of two cores.
# Exit 2: Go is missing, or a build failed; its log is named. Used by cluster.sh, tested by `verify.py cluster`.
set -euo pipefail
kubernetes=v1.35.4
helm=v4.1.4      # the release whose client is of the same Kubernetes minor, so both share one build
coredns=v1.14.4
home=${PLUMBLINE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/plumbline}/kubernetes-$kubernetes
say() { printf 'binaries: %4d s  %s\n' "$SECONDS" "$*" >&2; }
die() { say "$*"; exit 2; }

commands=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl)
packages=("${commands[@]/#/k8s.io/kubernetes/cmd/}" helm.sh/helm/v4/cmd/helm ./coredns ./pause)

# Kubernetes names its staging modules v0.0.0 and replaces them by folders of its own tree: here by their releases.
write_module() {
    local gomod
    gomod=$(cd "$home" && go mod download -json "k8s.io/kubernetes@$kubernetes" | sed -n 's/.*"GoMod": "\(.*\)",/\1/p')
    [ -n "$gomod" ] || die "cannot fetch k8s.io/kubernetes@$kubernetes: is a module proxy reachable?"
    {
        printf 'module plumbline.test/cluster\n\n'
        sed -n -e '/^go /p' -e '/^godebug /p' "$gomod"
        printf '\nrequire (\n\tk8s.io/kubernetes %s\n\thelm.sh/helm/v4 %s\n\tgithub.com/coredns/coredns %s\n)\n\nreplace (\n' "$kubernetes" "$helm" "$coredns"
        grep -oE '^[[:space:]]*k8s\.io/[a-z0-9-]+ v0\.0\.0( |$)' "$gomod" | awk -v v="v0.${kubernetes#v1.}" '{print "\t" $1 " => " $1 " " v}' | sort -u
        printf ')\n'
    } >go.mod
    mkdir -p tools coredns pause
    { printf '//go:build tools\n\npackage tools\n\nimport (\n'; printf '\t_ "%s"\n' "${packages[@]:0:7}"; printf ')\n'; } >tools/tools.go
    # Only what a cluster's DNS needs: the full server brings the clients of three clouds.
    { printf 'package main\n\nimport (\n\t_ "github.com/coredns/coredns/core/dnsserver"\n\t"github.com/coredns/coredns/coremain"\n'
      printf '\t_ "github.com/coredns/coredns/plugin/%s"\n' cache errors health kubernetes ready
      printf ')\n\nfunc main() { coremain.Run() }\n'; } >coredns/main.go
    # Holds a pod's network open until it is told to end.
    printf 'package main\n\nimport (\n\t"os"\n\t"os/signal"\n\t"syscall"\n)\n\nfunc main() {\n\tc := make(chan os.Signal, 1)\n\tsignal.Notify(c, syscall.SIGTERM, syscall.SIGINT)\n\t<-c\n}\n' >pause/main.go
}

build() {
    command -v go >/dev/null || die "go is missing: install Go 1.25 or newer"
    mkdir -p "$home/build" "$home/bin"; cd "$home/build"
    say "building Kubernetes $kubernetes, Helm $helm, CoreDNS $coredns into $home (21 min on two quiet cores)"
    export CGO_ENABLED=0 GOFLAGS="-buildvcs=false -mod=mod" GOTOOLCHAIN=local
    write_module
    nice -n 19 go mod tidy -e >tidy.log 2>&1 || die "go mod tidy failed, see $home/build/tidy.log"
    local version="-X k8s.io/component-base/version.gitVersion=$kubernetes -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${kubernetes:3:2}"
    local package name
    for package in "${packages[@]}"; do
        name=$(basename "$package")
        [ -x "$home/bin/$name" ] && continue
        nice -n 19 go build -trimpath -ldflags "-s -w $version" -o "$home/bin/.$name" "$package" >"$name.log" 2>&1 || die "$name did not build, see $home/build/$name.log"
        mv "$home/bin/.$name" "$home/bin/$name"; say "$name $(du -m "$home/bin/$name" | cut -f1) MB"
    done
}

missing=0
for package in "${packages[@]}"; do [ -x "$home/bin/$(basename "$package")" ] || missing=1; done
[ "$missing" = 0 ] || build
printf '%s\n' "$home/bin"
