#!/usr/bin/env bash
# Certificates and kubeconfigs of a cluster for tests: pki.sh FOLDER ADDRESS PORT NODE…  (ADDRESS: the control plane's,
# PORT: where this machine reaches it). Valid for a week. Used by cluster.sh.
set -euo pipefail
folder=$1 address=$2 port=$3; shift 3
mkdir -p "$folder"; cd "$folder"
quiet() { openssl "$@" 2>>openssl.log; }

authority() { # name
    quiet ecparam -genkey -name prime256v1 -noout -out "$1.key"
    quiet req -x509 -new -key "$1.key" -subj "/CN=$1" -days 7 -out "$1.crt" -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
}
certificate() { # name, subject, authority, further names
    quiet ecparam -genkey -name prime256v1 -noout -out "$1.key"
    quiet req -new -key "$1.key" -subj "$2" -out "$1.csr"
    printf 'keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n%s\n' "${4:+subjectAltName=$4}" >"$1.ext"
    quiet x509 -req -in "$1.csr" -CA "$3.crt" -CAkey "$3.key" -CAcreateserial -days 7 -extfile "$1.ext" -out "$1.crt"
    rm "$1.csr" "$1.ext"
}
kubeconfig() { # name, server
    printf '{"apiVersion":"v1","kind":"Config","clusters":[{"name":"c","cluster":{"server":"%s","certificate-authority-data":"%s"}}],"users":[{"name":"u","user":{"client-certificate-data":"%s","client-key-data":"%s"}}],"contexts":[{"name":"x","context":{"cluster":"c","user":"u"}}],"current-context":"x"}\n' \
        "$2" "$(base64 -w0 ca.crt)" "$(base64 -w0 "$1.crt")" "$(base64 -w0 "$1.key")" >"$1.conf"
}

authority ca; authority front-proxy-ca
certificate apiserver /CN=kube-apiserver ca "IP:127.0.0.1,IP:$address,IP:10.96.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost"
certificate apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client ca
certificate front-proxy-client /CN=front-proxy-client front-proxy-ca
certificate admin /O=system:masters/CN=admin ca; kubeconfig admin "https://127.0.0.1:$port"
for pair in controller-manager:system:kube-controller-manager scheduler:system:kube-scheduler proxy:system:kube-proxy; do
    certificate "${pair%%:*}" "/CN=${pair#*:}" ca; kubeconfig "${pair%%:*}" "https://$address:6443"
done
for node in "$@"; do
    certificate "$node" "/O=system:nodes/CN=system:node:$node" ca "DNS:$node"; kubeconfig "$node" "https://$address:6443"
done
quiet genrsa -out sa.key 2048; quiet rsa -in sa.key -pubout -out sa.pub
