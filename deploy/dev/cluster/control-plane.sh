#!/bin/bash
# Inside the control plane's container: etcd, API server, controller manager, scheduler. One that ends, ends all.
logs=/var/log/cluster; mkdir -p "$logs" /var/lib/etcd
address=$(hostname -i | cut -d' ' -f1)
etcd --data-dir /var/lib/etcd --unsafe-no-fsync --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 >"$logs/etcd.log" 2>&1 &
/opt/kubernetes/kube-apiserver --etcd-servers=http://127.0.0.1:2379 --advertise-address="$address" --secure-port=6443 --allow-privileged=true \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --client-ca-file=/pki/ca.crt --tls-cert-file=/pki/apiserver.crt --tls-private-key-file=/pki/apiserver.key \
    --kubelet-client-certificate=/pki/apiserver-kubelet-client.crt --kubelet-client-key=/pki/apiserver-kubelet-client.key --kubelet-preferred-address-types=InternalIP \
    --service-account-key-file=/pki/sa.pub --service-account-signing-key-file=/pki/sa.key --service-account-issuer=https://kubernetes.default.svc.cluster.local --service-cluster-ip-range=10.96.0.0/16 \
    --requestheader-client-ca-file=/pki/front-proxy-ca.crt --proxy-client-cert-file=/pki/front-proxy-client.crt --proxy-client-key-file=/pki/front-proxy-client.key \
    --requestheader-allowed-names=front-proxy-client --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- >"$logs/apiserver.log" 2>&1 &
until curl -skf https://127.0.0.1:6443/readyz >/dev/null; do sleep 0.3; done
identity() { printf -- '--kubeconfig=/pki/%s.conf --authentication-kubeconfig=/pki/%s.conf --authorization-kubeconfig=/pki/%s.conf --leader-elect=false' "$1" "$1" "$1"; }
# shellcheck disable=SC2046 # several options in one word
/opt/kubernetes/kube-controller-manager $(identity controller-manager) --use-service-account-credentials --service-account-private-key-file=/pki/sa.key --root-ca-file=/pki/ca.crt \
    --cluster-signing-cert-file=/pki/ca.crt --cluster-signing-key-file=/pki/ca.key --allocate-node-cidrs --cluster-cidr=10.244.0.0/16 --service-cluster-ip-range=10.96.0.0/16 >"$logs/controller-manager.log" 2>&1 &
# shellcheck disable=SC2046
/opt/kubernetes/kube-scheduler $(identity scheduler) >"$logs/scheduler.log" 2>&1 &
trap 'kill $(jobs -p); wait; exit 0' TERM INT
wait -n; echo "a process of the control plane ended: see $logs"
# shellcheck disable=SC2046 # several process ids
kill $(jobs -p); exit 1
