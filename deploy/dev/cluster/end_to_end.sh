#!/usr/bin/env bash
# The chart on a real cluster (kubectl's current context) that already has the image plumbline:ci: lint, admission, install,
# helm test, every pod rolled under 50 requests/s with no failed request, upgrade, rollback, a drain against the disruption
# budget, uninstall. Needs kubectl, helm, python3. Closing line: `N passed, M failed`; on a failure first what the cluster saw.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
n=orders
work=$(mktemp -d)
passed=0
k() { kubectl --namespace "$n" "$@"; }
held() { passed=$((passed + 1)); printf '%5d s  %s\n' "$SECONDS" "$*"; }
on_error() {
    printf '%5d s  FAILED at line %s; pods, events, logs:\n' "$SECONDS" "$1"
    k get pods -o wide || true; k get events --sort-by=.lastTimestamp | tail -30 || true
    k logs deployment/orders-api --all-containers --tail 30 || true; cat "$work"/* 2>/dev/null | tail -40
    rm -rf "$work"; printf '%d passed, 1 failed\n' "$passed"
    exit 1
}
trap 'on_error $LINENO' ERR
secret() { k create secret generic "$@" --dry-run=client -o yaml | k apply -f - >/dev/null; }
release=(orders deploy/helm/orders --namespace "$n" --values deploy/helm/orders/ci/kind-values.yaml)

kubectl apply -f deploy/namespace.yaml >/dev/null
# A second run finds the database of the first.
password=$(k get secret postgres --ignore-not-found -o jsonpath='{.data.password}' | base64 -d)
[ -n "$password" ] || password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
url="postgresql://plumbline:$password@postgres:5432/plumbline"
secret postgres --from-literal="password=$password"
secret orders-secrets --from-literal="DATABASE_URL=$url" --from-literal="REDIS_URL=redis://valkey:6379/0"
secret orders-migrate-secrets --from-literal="DATABASE_URL=$url"
kubectl apply -f deploy/dev/cluster/dependencies.yaml >/dev/null

for values in values{,-dev,-staging}.yaml values-prod.yaml,deploy/helm/orders/ci/prod-values.yaml ci/{everything,kind,minimal}-values.yaml; do
    for version in 1.30.0 1.33.0 1.37.0; do
        helm lint deploy/helm/orders --strict --kube-version "$version" --values "deploy/helm/orders/$values" >>"$work/lint" 2>&1
    done
done
if grep -qE 'WARN|ERROR' "$work/lint"; then false; fi
held "helm lint --strict: $(grep -c '1 chart(s) linted, 0 chart(s) failed' "$work/lint") times, 0 warnings"

# The server judges every object with Pod Security `restricted`; a Deployment's violation is only a warning, so warnings fail.
admit() { kubectl apply --namespace "$n" --server-side --dry-run=server --warnings-as-errors -f "$1"; }
# Without the test pods: their account does not exist yet, and `helm test` has them judged for good.
helm template "${release[@]}" --no-hooks >"$work/rendered.yaml"
admit "$work/rendered.yaml" >"$work/admitted"
held "admitted by the server without a warning: $(wc -l <"$work/admitted") objects"
sed 's/readOnlyRootFilesystem: true/privileged: true/; s/allowPrivilegeEscalation: false/allowPrivilegeEscalation: true/' "$work/rendered.yaml" >"$work/privileged.yaml"
if admit "$work/privileged.yaml" >"$work/refused" 2>&1; then false; fi
grep -q 'would violate PodSecurity' "$work/refused"
held "the same chart with privileged containers is refused"

k rollout status deployment --timeout 600s >/dev/null; held "PostgreSQL, Valkey, Kafka, issuer and provider are up"
secret orders-smoke-token --from-literal="token=$(k exec deployment/stand-ins -c issuer -- plumbline token --sub customer-1)"
helm upgrade --install "${release[@]}" --wait --timeout 10m >/dev/null
held "installed: $(k get pods -l app.kubernetes.io/instance=orders --field-selector status.phase=Running --no-headers | wc -l) pods ready"
k wait --for=condition=Complete job -l app.kubernetes.io/instance=orders --timeout 120s >/dev/null
took() { # component: seconds from the Job's start to its end
    local begin end
    read -r begin end <<<"$(k get job -l "app.kubernetes.io/component=$1" -o jsonpath='{.items[0].status.startTime} {.items[0].status.completionTime}')"
    echo $(($(date -d "$end" +%s) - $(date -d "$begin" +%s)))
}
held "the migration Job took $(took migrate) s, the topics Job $(took topics) s; other pods waited for the schema in db-wait"
k exec deployment/orders-api -c api -- plumbline seed >/dev/null; held "seeded"
helm test orders --namespace "$n" --timeout 5m >/dev/null; held "helm test: ready, a bad token refused, an order placed, read and cancelled"
read -r -a who <<<"$(k exec deployment/orders-api -c api -- python -c 'import os; print(os.getuid(), os.access("/app", os.W_OK), os.path.exists("/var/run/secrets/kubernetes.io"))')"
[ "${who[*]}" = "10001 False False" ]; held "pods run as uid 10001 on a read-only root, without a cluster token"

address=$(k get service orders-api -o jsonpath='{.spec.clusterIP}')
k create configmap load --from-file=deploy/dev/cluster/load.py --dry-run=client -o yaml | k apply -f - >/dev/null
# From inside the cluster, through the Service, a new connection a request; its log is the judge's.
start_load() { # name
    k run "$1" --image plumbline:ci --image-pull-policy Never --restart Never --overrides "$(python3 deploy/dev/cluster/load_pod.py "http://$address" 1800)" >/dev/null
    k wait --for=condition=Ready "pod/$1" --timeout 120s >/dev/null
}
# Still sending when what it watches is over: told to stop, it counts.
end_load() { # name
    k exec "$1" -- python -c 'import os, signal; os.kill(1, signal.SIGTERM)'
    k wait --for=jsonpath='{.status.containerStatuses[0].state.terminated}' "pod/$1" --timeout 600s >/dev/null
    k logs "$1" | tail -2 >"$work/load"
    grep -qE '^[0-9]+ requests, 0 failed$' "$work/load"; [ "$(k get pod "$1" -o jsonpath='{.status.containerStatuses[0].state.terminated.exitCode}')" = 0 ]
    k delete pod "$1" --wait=false >/dev/null
}

start_load load-roll
k rollout restart deployment/orders-api >/dev/null; k rollout status deployment/orders-api --timeout 600s >/dev/null
end_load load-roll; held "every API pod replaced under 50 requests/s: $(tail -1 "$work/load")"

# In every API pod that stays: one on its way out is still ready, and `kubectl exec deployment/…` would take it.
told() { # variable
    local pods pod
    pods=$(k get pods -l app.kubernetes.io/component=api -o go-template='{{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}}{{"\n"}}{{end}}{{end}}')
    for pod in $pods; do k exec "$pod" -c api -- printenv "$1"; done | sort -u
}
helm upgrade "${release[@]}" --set config.logLevel=debug --wait --timeout 10m >/dev/null
[ "$(told APP_TELEMETRY_LOG_LEVEL)" = debug ]
held "upgraded: every API pod has the new configuration; revision $(helm status orders --namespace "$n" -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["version"])')"
helm rollback orders 1 --namespace "$n" --wait --timeout 10m >/dev/null
[ "$(told APP_TELEMETRY_LOG_LEVEL)" = info ]; held "rolled back: every API pod has the old one"
helm test orders --namespace "$n" --timeout 5m >/dev/null; held "helm test again"

# The budget: with nowhere to go, one pod of a workload may leave, the next is refused.
if [ "$(kubectl get nodes --no-headers | wc -l)" -gt 1 ]; then
    node=$(k get pods -l app.kubernetes.io/component=api -o jsonpath='{range .items[*]}{.spec.nodeName}{"\n"}{end}' | grep -v '^n1$' | head -1)
    kubectl cordon "$node" >/dev/null   # the judge must not be drained with it
    start_load load-drain
    kubectl drain "$node" --ignore-daemonsets --delete-emptydir-data --force --timeout 300s >"$work/drain" 2>&1
    end_load load-drain; held "node $node drained under 50 requests/s: $(tail -1 "$work/load")"
    k rollout status deployment/orders-api --timeout 600s >/dev/null
    kubectl cordon -l kubernetes.io/os=linux >/dev/null
    evict() { # pod
        printf '{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"%s","namespace":"%s"}}' "$1" "$n" |
            kubectl create --raw "/api/v1/namespaces/$n/pods/$1/eviction" -f - 2>&1
    }
    read -r -a pods <<<"$(k get pods -l app.kubernetes.io/component=api --field-selector status.phase=Running -o jsonpath='{.items[*].metadata.name}')"
    evict "${pods[0]}" >"$work/first"; grep -q Success "$work/first"
    evict "${pods[1]}" >"$work/second" || true; grep -q "disruption budget" "$work/second"
    kubectl uncordon -l kubernetes.io/os=linux >/dev/null; k rollout status deployment/orders-api --timeout 600s >/dev/null
    held "a second eviction is refused by the disruption budget"
fi

helm uninstall orders --namespace "$n" --wait >/dev/null
k delete pods -l run --wait=true >/dev/null 2>&1 || true
k wait --for=delete pod -l app.kubernetes.io/instance=orders --timeout 180s >/dev/null
left=$(k get all,configmap,secret,serviceaccount,networkpolicy,poddisruptionbudget,horizontalpodautoscaler -l app.kubernetes.io/instance=orders -o name)
[ -z "$left" ] || { echo "left behind: $left" >"$work/left"; false; }
held "uninstalled, nothing left"
rm -rf "$work"; printf '%d passed, 0 failed\n' "$passed"
