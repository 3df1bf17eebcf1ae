#!/usr/bin/env bash
# A real Kubernetes in containers on this machine, where kind's images cannot be pulled: one control plane and nodes with
# kubelet, containerd and pods, from binaries.sh and the Docker engine that engine.sh gives. Reached on 127.0.0.1 only.
#   cluster.sh up [NODES]     print the shell settings for kubectl and helm (KUBECONFIG, PATH); default 3 nodes, one a zone
#   cluster.sh down           remove all of it
# Exit 2: something cannot be had or did not come up; the line says what. Tested by `verify.py cluster`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${PLUMBLINE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/plumbline}/cluster
network=plumbline-cluster; subnet=172.29.40
say() { printf 'cluster: %4d s  %s\n' "$SECONDS" "$*" >&2; }
die() { say "$*"; exit 2; }

# Root here may lack CAP_SYS_RESOURCE, and then --privileged fails: the capabilities there are, by name.
capabilities() {
    python3 - <<'PYTHON'
names = """CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST
NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ""".split()
bounding = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("CapBnd"))
print(*(f"--cap-add={name}" for bit, name in enumerate(names) if int(bounding, 16) >> bit & 1))
PYTHON
}

# What the nodes import: everything runs from images that are there already. The dependencies' only on the first node.
images() {
    local name
    rm -rf "$home/images"; mkdir -p "$home/images/n1"
    for name in pause coredns; do
        if ! docker image inspect "localhost/$name:1" >/dev/null 2>&1; then
            tar -C "$binaries" -c "$name" | docker import -c "ENTRYPOINT [\"/$name\"]" - "localhost/$name:1" >/dev/null
        fi
        docker save "localhost/$name:1" -o "$home/images/$name.tar"
    done
    docker image inspect plumbline:ci >/dev/null 2>&1 || die "no image plumbline:ci: docker build --tag plumbline:ci ."
    docker save plumbline:ci -o "$home/images/plumbline.tar"
    docker save postgres:17.6 valkey/valkey:8.1.3 apache/kafka:4.3.1 -o "$home/images/n1/dependencies.tar"
}

container() { # name, address, further options…, -- , command
    local name=$1 address=$2; shift 2
    docker run --detach --init --name "plumbline-$name" --hostname "$name" --network "$network" --ip "$address" \
        --volume "$home/pki:/pki:ro" --volume "$binaries:/opt/kubernetes:ro" --volume "$here:/scripts:ro" "$@" >/dev/null
}

# Every machine learns the way to every node's pods; a node that restarts replays it.
join() { # node, its number, all machines
    local node=$1 number=$2 range machine; shift 2
    until range=$(kubectl get node "$node" -o jsonpath='{.spec.podCIDR}' 2>/dev/null) && [ -n "$range" ]; do sleep 0.3; done
    printf '{"cniVersion":"0.4.0","name":"bridge","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,"hairpinMode":true,"ipam":{"type":"host-local","ranges":[[{"subnet":"%s"}]],"routes":[{"dst":"0.0.0.0/0"}]}},{"type":"portmap","capabilities":{"portMappings":true}}]}' "$range" |
        docker exec --interactive "plumbline-$node" sh -c 'cat >/etc/cni/net.d/10-bridge.conflist'
    echo "[ \$(hostname) = $node ] || ip route replace $range via $subnet.$((10 + number))" >>"$home/pki/routes"
    for machine in "$@"; do [ "$machine" = "$node" ] || docker exec "plumbline-$machine" ip route replace "$range" via "$subnet.$((10 + number))"; done
}

up() {
    local count=${1:-3} nodes=() number port; local -a privileges
    binaries=$("$here/binaries.sh") || die "no Kubernetes binaries, see above"
    settings=$("$here/../engine.sh" env node) || die "no Docker engine, see above"; eval "$settings"
    [ -z "$(docker ps --all --quiet --filter name='^plumbline-(cp|n[0-9]+)$')" ] || die "a cluster is there already: cluster.sh down"
    export KUBECONFIG=$home/pki/admin.conf PATH=$binaries:$PATH
    for number in $(seq "$count"); do nodes+=("n$number"); done
    port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
    rm -rf "$home/pki"; "$here/pki.sh" "$home/pki" "$subnet.10" "$port" "${nodes[@]}"; images; say "certificates and images"
    docker network create --subnet "$subnet.0/24" "$network" >/dev/null
    read -r -a privileges <<<"$(capabilities)"
    container cp "$subnet.10" --publish "127.0.0.1:$port:6443" --tmpfs /var/lib/etcd --cap-add NET_ADMIN plumbline-node:1 /scripts/control-plane.sh
    for number in $(seq "$count"); do
        container "n$number" "$subnet.$((10 + number))" --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined \
            --device /dev/kmsg --device-cgroup-rule 'a *:* rwm' --cgroupns private "${privileges[@]}" --env "NODE=n$number" --env "ZONE=zone-$number" \
            --tmpfs /run --tmpfs /tmp:exec --volume /var --volume "$home/images:/images:ro" plumbline-node:1 /scripts/node.sh
    done
    for _ in $(seq 400); do kubectl get --raw /readyz >/dev/null 2>&1 && break; sleep 0.3; done
    kubectl get --raw /readyz >/dev/null || { docker logs plumbline-cp >&2; die "the API server did not answer"; }
    say "API server ready"
    for number in $(seq "$count"); do join "n$number" "$number" cp "${nodes[@]}"; done
    kubectl wait --for=condition=Ready node --all --timeout=300s >/dev/null || die "not every node became ready: docker exec plumbline-n1 tail /var/log/cluster/kubelet.log"
    kubectl apply --filename "$here/dns.yaml" >/dev/null
    kubectl --namespace kube-system rollout status deployment/coredns --timeout=180s >/dev/null || die "the cluster's DNS did not start"
    say "$count nodes and DNS ready"
    # shellcheck disable=SC2016 # the reader's own PATH
    printf '%s\nexport KUBECONFIG=%q PATH=%q:"$PATH"\n' "$settings" "$KUBECONFIG" "$binaries"
}

down() {
    eval "$("$here/../engine.sh" env)"
    docker ps --all --quiet --filter name='^plumbline-(cp|n[0-9]+)$' | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
    docker network inspect "$network" >/dev/null 2>&1 && docker network rm "$network" >/dev/null
    rm -rf "$home"; say "removed"
}

case "${1:-}" in
    up) shift; up "$@" ;;
    down) down ;;
    *) die "usage: cluster.sh up [NODES] | down" ;;
esac
