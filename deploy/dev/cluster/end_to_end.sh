#!/usr/bin/env bash
# The chart on a real cluster (kubectl's current context) that already has the image plumbline:ci: install, helm test,
# roll every pod under 50 requests/s with no failed request, roll back, uninstall. Needs kubectl, helm, python3.
# Exit 1: something did not hold; the last lines say what the cluster saw.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
n=orders
k() { kubectl --namespace "$n" "$@"; }
say() { printf '%4d s  %s\n' "$SECONDS" "$*"; }
on_error() { say "FAILED; pods and events:"; k get pods -o wide || true; k get events --sort-by=.lastTimestamp | tail -30 || true; k logs deployment/orders-api --tail 40 || true; }
trap on_error ERR

kubectl apply -f deploy/namespace.yaml >/dev/null
password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
url="postgresql://plumbline:$password@postgres:5432/plumbline"
secret() { k create secret generic "$@" --dry-run=client -o yaml | k apply -f - >/dev/null; }
secret postgres --from-literal="password=$password"
secret orders-secrets --from-literal="DATABASE_URL=$url" --from-literal="REDIS_URL=redis://valkey:6379/0"
secret orders-migrate-secrets --from-literal="DATABASE_URL=$url"
kubectl apply -f deploy/dev/cluster/dependencies.yaml >/dev/null
k rollout status deployment --timeout 180s >/dev/null; say "PostgreSQL, Valkey, Kafka, issuer and provider are up"

secret orders-smoke-token --from-literal="token=$(k exec deployment/stand-ins -c issuer -- plumbline token --sub customer-1)"
helm upgrade --install orders deploy/helm/orders --namespace "$n" --values deploy/helm/orders/ci/kind-values.yaml --wait --timeout 5m >/dev/null
say "installed"
k exec deployment/orders-api -c api -- plumbline seed; say "seeded"
helm test orders --namespace "$n" --timeout 3m >/dev/null; say "helm test passed"

port=$(k get service orders-api -o jsonpath='{.spec.clusterIP}')
load() { # seconds: from inside the cluster, through the Service, a new connection a request
    k run "load-$SECONDS" --image plumbline:ci --image-pull-policy Never --restart Never --attach --rm --quiet \
        --overrides "$(python3 deploy/dev/cluster/load_pod.py "http://$port" "$1")"
}
k create configmap load --from-file=deploy/dev/cluster/load.py --dry-run=client -o yaml | k apply -f - >/dev/null
load 60 >"${TMPDIR:-/tmp}/load.$$" & judge=$!
sleep 3
k rollout restart deployment/orders-api >/dev/null
k rollout status deployment/orders-api --timeout 180s >/dev/null; say "rolled under load"
wait "$judge" || { cat "${TMPDIR:-/tmp}/load.$$"; false; }
tail -1 "${TMPDIR:-/tmp}/load.$$"; rm -f "${TMPDIR:-/tmp}/load.$$"

helm upgrade orders deploy/helm/orders --namespace "$n" --reuse-values --set config.logLevel=debug --wait --timeout 5m >/dev/null; say "upgraded"
helm rollback orders 1 --namespace "$n" --wait --timeout 5m >/dev/null; say "rolled back"
helm uninstall orders --namespace "$n" --wait >/dev/null
left=$(k get all,configmap,secret,serviceaccount,networkpolicy,poddisruptionbudget -l app.kubernetes.io/instance=orders -o name)
[ -z "$left" ] || { say "left behind: $left"; exit 1; }
say "uninstalled, nothing left"
