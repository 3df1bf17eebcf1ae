#!/bin/bash
# Inside a node's container: containerd, kubelet, kube-proxy. NODE names it, ZONE places it; /images/*.tar are imported.
logs=/var/log/cluster; mkdir -p "$logs" /etc/containerd /etc/cni/net.d /var/lib/kubelet /private
[ -f /pki/routes ] && sh /pki/routes
mount --make-rshared /
mount -o remount,rw /sys; mount -o remount,rw /sys/fs/cgroup
awk '$5 ~ "^/sys/fs/cgroup/" {print $5}' /proc/self/mountinfo | while read -r place; do mount -o remount,rw,bind "$place"; done
# The kubelet would set these for the whole machine: it gets private files instead.
while read -r name value; do
    file=/private/${name//\//_}; echo "$value" >"$file"; mount --bind "$file" "/proc/sys/$name"
done <<'SETTINGS'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
SETTINGS
cat >/etc/containerd/config.toml <<'TOML'
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "localhost/pause:1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
TOML
echo 'nameserver 127.0.0.1' >/etc/kubelet-resolv.conf
cat >/var/lib/kubelet/config.yaml <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: /pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: /pki/$NODE.crt
tlsPrivateKeyFile: /pki/$NODE.key
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: /etc/kubelet-resolv.conf
failSwapOn: false
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {imagefs.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%"}
nodeStatusUpdateFrequency: 4s
protectKernelDefaults: false
YAML
cat >/var/lib/kubelet/proxy.yaml <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
hostnameOverride: $NODE
clientConnection: {kubeconfig: /pki/proxy.conf}
clusterCIDR: 10.244.0.0/16
oomScoreAdj: 0
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
iptables: {minSyncPeriod: 1s}
YAML
containerd >"$logs/containerd.log" 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.1; done
for file in /images/*.tar /images/"$NODE"/*.tar; do [ -f "$file" ] && ctr --namespace k8s.io images import "$file" >>"$logs/import.log" 2>&1; done
address=$(hostname -i | cut -d' ' -f1)
/opt/kubernetes/kubelet --config=/var/lib/kubelet/config.yaml --kubeconfig="/pki/$NODE.conf" --hostname-override="$NODE" --node-ip="$address" \
    --node-labels="topology.kubernetes.io/zone=$ZONE" >"$logs/kubelet.log" 2>&1 &
/opt/kubernetes/kube-proxy --config=/var/lib/kubelet/proxy.yaml >"$logs/kube-proxy.log" 2>&1 &
iptables -t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE
trap 'kill $(jobs -p); wait; exit 0' TERM INT
wait -n; echo "a process of the node ended: see $logs"; sleep 2; exit 1
