{{/* Refusals: what a schema cannot say because it spans values. Each has a failing-values test in tests/helm/test_guards.py. */}}
{{- define "orders.validate" -}}
{{- include "orders.validateShutdown" . -}}
{{- include "orders.validateScaling" . -}}
{{- include "orders.validateGroups" . -}}
{{- include "orders.validateNetwork" . -}}
{{- include "orders.validateSecrets" . -}}
{{- include "orders.validateLoad" . -}}
{{- if eq .Values.environment "prod" -}}{{- include "orders.validateProd" . -}}{{- end -}}
{{- end -}}

{{- define "orders.validateShutdown" -}}
{{- $a := .Values.api -}}
{{- $need := add $a.preStopSeconds $a.drainWaitSeconds $a.drainTimeoutSeconds 5 -}}
{{- if lt (int $a.terminationGracePeriodSeconds) (int $need) -}}
{{- fail (printf "api.terminationGracePeriodSeconds is %d, but preStop + drain + 5 s need %d: raise it, or lower api.preStopSeconds, drainWaitSeconds or drainTimeoutSeconds" (int $a.terminationGracePeriodSeconds) (int $need)) -}}
{{- end -}}
{{- $b := .Values.background -}}
{{- $need = add $b.handlerTimeoutSeconds $b.drainTimeoutSeconds 5 -}}
{{- if lt (int $b.terminationGracePeriodSeconds) (int $need) -}}
{{- fail (printf "background.terminationGracePeriodSeconds is %d, but handler timeout + drain + 5 s need %d: raise it" (int $b.terminationGracePeriodSeconds) (int $need)) -}}
{{- end -}}
{{- if and (ne .Values.ingress.mode "none") (le (int $a.keepAliveSeconds) (int .Values.ingress.idleTimeoutSeconds)) -}}
{{- fail (printf "api.keepAliveSeconds (%d) must be above ingress.idleTimeoutSeconds (%d): otherwise the load balancer reuses a connection the server just closed, and answers 502" (int $a.keepAliveSeconds) (int .Values.ingress.idleTimeoutSeconds)) -}}
{{- end -}}
{{- end -}}

{{- define "orders.validateScaling" -}}
{{- $root := . -}}
{{- if and (eq .Values.api.scaler "hpa") (gt (int .Values.api.hpa.minReplicas) (int .Values.api.hpa.maxReplicas)) -}}
{{- fail "api.hpa.minReplicas is above api.hpa.maxReplicas: lower the first or raise the second" -}}
{{- end -}}
{{- range $name, $worker := .Values.workers -}}{{- if $worker -}}
{{- $partitions := include "orders.partitions" (dict "root" $root "worker" $worker) | int -}}
{{- $most := include "orders.workerMax" $worker | int -}}
{{- if gt $most $partitions -}}
{{- fail (printf "workers.%s may have %d replicas, but its topics have %d partitions: the rest would idle; lower maxReplicas (or replicas)" $name $most $partitions) -}}
{{- end -}}
{{- if gt (int $worker.minReplicas) (int $worker.maxReplicas) -}}
{{- fail (printf "workers.%s.minReplicas is above maxReplicas: lower the first or raise the second" $name) -}}
{{- end -}}
{{- if and (eq $worker.scaler "keda") (eq $root.Values.kafka.auth "aws_msk_iam") (not $root.Values.kafka.region) -}}
{{- fail "kafka.region is empty: kafka.auth=aws_msk_iam needs it for the scaler; set it to the cluster's region" -}}
{{- end -}}
{{- end -}}{{- end -}}
{{- $connections := mul (include "orders.processes" . | int) (int .Values.database.poolSize) -}}
{{- if gt (int $connections) (int .Values.database.connectionBudget) -}}
{{- fail (printf "database: %s processes at most (rollout surge included) x poolSize %d = %d connections, above connectionBudget %d: lower poolSize or the replica limits, or raise the database and the budget" (include "orders.processes" .) (int .Values.database.poolSize) (int $connections) (int .Values.database.connectionBudget)) -}}
{{- end -}}
{{- end -}}

{{- define "orders.validateGroups" -}}
{{- $root := . -}}
{{- $run := list -}}
{{- range $name, $worker := .Values.workers -}}{{- if $worker -}}
{{- range $group := $worker.groups -}}
{{- if not (hasKey $root.Values.kafka.groups $group) -}}
{{- fail (printf "workers.%s runs the unknown group %q: add it to kafka.groups with its topics" $name $group) -}}
{{- end -}}
{{- if has $group $run -}}
{{- fail (printf "group %q is run by two entries of workers: keep it in one, so that one scaler owns it" $group) -}}
{{- end -}}
{{- $run = append $run $group -}}
{{- end -}}
{{- end -}}{{- end -}}
{{- range $group, $topics := .Values.kafka.groups -}}
{{- if not (has $group $run) -}}
{{- fail (printf "group %q is run by no entry of workers: its events would wait for ever; add it to one" $group) -}}
{{- end -}}
{{- range $topic := $topics -}}
{{- if not (hasKey $root.Values.kafka.topics $topic) -}}
{{- fail (printf "group %q reads the unknown topic %q: add it to kafka.topics with its partitions" $group $topic) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "orders.validateNetwork" -}}
{{- if .Values.networkPolicy.enabled -}}
{{- range $name := list "databaseCidrs" "redisCidrs" "kafkaCidrs" "jwksCidrs" "pspCidrs" -}}
{{- if not (get $.Values.networkPolicy.egress $name) -}}
{{- fail (printf "networkPolicy.egress.%s is empty: with the policies on, nothing reaches it; list its CIDRs" $name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.notifications.webhookUrl (not .Values.networkPolicy.egress.webhookCidrs) -}}
{{- fail "networkPolicy.egress.webhookCidrs is empty, but notifications.webhookUrl is set: list the webhook's CIDRs" -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.ingress.mode "alb" -}}
{{- if not .Values.networkPolicy.albSubnetCidrs -}}
{{- fail "networkPolicy.albSubnetCidrs is empty: ingress.mode=alb needs the load balancer's subnets, for the policies and for TRUSTED_PROXIES" -}}
{{- end -}}
{{- if not .Values.ingress.certificateArn -}}
{{- fail "ingress.certificateArn is empty: the listener is HTTPS only; name an ACM certificate" -}}
{{- end -}}
{{- end -}}
{{- if and (or .Values.monitoring.serviceMonitor.enabled .Values.monitoring.prometheusRule.enabled) (not .Values.monitoring.labels) -}}
{{- fail "monitoring.labels is empty: the Prometheus operator would ignore the objects; set the label it selects by (often release: …)" -}}
{{- end -}}
{{- end -}}

{{- define "orders.validateSecrets" -}}
{{- if and (eq .Values.redis.auth "iam") (not .Values.redis.iamCache) -}}
{{- fail "redis.iamCache is empty: the tokens of redis.auth=iam name the replication group; set its id" -}}
{{- end -}}
{{- if and (eq .Values.database.auth "iam") (has .Values.database.ssl (list "disable" "prefer")) -}}
{{- fail "database.auth=iam sends a token that must not be overheard: set database.ssl to require or verify-full" -}}
{{- end -}}
{{- $own := include "orders.ownEnvironment" . | fromYaml -}}
{{- range $name, $_ := .Values.config.extra -}}
{{- if hasKey $own $name -}}
{{- fail (printf "config.extra.%s is set by the chart itself: use the value it comes from (templates/_environment.tpl)" $name) -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.secrets.mode "external" -}}
{{- if and .Values.secrets.external.createStore (not .Values.secrets.external.region) -}}
{{- fail "secrets.external.region is empty: the SecretStore needs the region of AWS Secrets Manager" -}}
{{- end -}}
{{- if and (not .Values.secrets.external.createStore) (not .Values.secrets.external.storeName) -}}
{{- fail "secrets.external.storeName is empty: name the SecretStore to use, or set createStore: true" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "orders.validateLoad" -}}
{{- with .Values.load -}}{{- if .enabled -}}
{{- if eq $.Values.environment "prod" -}}{{- fail "load.enabled is refused in prod: load a copy of it" -}}{{- end -}}
{{- if not (and .image.repository .image.digest) -}}{{- fail "load.image is incomplete: name the repository and digest of an image with loadtests/" -}}{{- end -}}
{{- if not .tokensSecret -}}{{- fail "load.tokensSecret is empty: name a Secret whose key tokens has one access token a line" -}}{{- end -}}
{{- end -}}{{- end -}}
{{- end -}}

{{- define "orders.validateProd" -}}
{{- if not .Values.image.digest -}}{{- fail "image.digest is empty: prod runs what was signed, by digest; set it to sha256:…" -}}{{- end -}}
{{- if lt (include "orders.apiMin" . | int) 3 -}}{{- fail "prod needs at least 3 API replicas, one a zone: raise api.hpa.minReplicas (or api.replicas)" -}}{{- end -}}
{{- if ne .Values.secrets.mode "external" -}}{{- fail "prod takes its secrets from External Secrets: set secrets.mode: external" -}}{{- end -}}
{{- if not .Values.networkPolicy.enabled -}}{{- fail "prod runs behind network policies: set networkPolicy.enabled: true" -}}{{- end -}}
{{- if not .Values.networkPolicy.egress.webhookCidrs -}}{{- fail "networkPolicy.egress.webhookCidrs is empty: prod names where notifications go" -}}{{- end -}}
{{- if not .Values.notifications.webhookUrl -}}{{- fail "notifications.webhookUrl is empty: prod would write notifications to a file in a pod that goes away; name the webhook" -}}{{- end -}}
{{- if ne .Values.config.appEnv "production" -}}{{- fail "prod needs config.appEnv: production" -}}{{- end -}}
{{- if ne .Values.zoneSpread "DoNotSchedule" -}}{{- fail "prod spreads over zones: set zoneSpread: DoNotSchedule" -}}{{- end -}}
{{- if not (hasPrefix "verify" .Values.database.ssl | or (eq .Values.database.ssl "require")) -}}{{- fail "prod encrypts database connections: set database.ssl to require or verify-full" -}}{{- end -}}
{{- if not .Values.ingress.deletionProtection -}}{{- fail "prod keeps its load balancer: set ingress.deletionProtection: true" -}}{{- end -}}
{{- end -}}
