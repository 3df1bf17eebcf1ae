{{/* The non-secret environment of every process; names as in the service's settings. One process per pod. */}}
{{- define "orders.ownEnvironment" -}}
{{- $v := .Values -}}
APP_ENV: {{ $v.config.appEnv }}
APP_SECRETS_DIR: /var/run/secrets/plumbline
PLUMBLINE_HOME: /tmp/plumbline
HTTP_PORT: "8000"
OPS_PORT: "9000"
APP_HTTP_HOST: 0.0.0.0
APP_HTTP_OPS_HOST: 0.0.0.0
APP_HTTP_ALLOWED_HOSTS: {{ join "," $v.config.publicHosts | quote }}
TRUSTED_PROXIES: {{ join "," $v.networkPolicy.albSubnetCidrs | quote }}
APP_HTTP_KEEP_ALIVE_S: {{ $v.api.keepAliveSeconds | quote }}
APP_HTTP_DRAIN_WAIT_S: {{ $v.api.drainWaitSeconds | quote }}
APP_HTTP_DRAIN_TIMEOUT_S: {{ $v.api.drainTimeoutSeconds | quote }}
APP_REPLICAS: {{ include "orders.apiMin" . | quote }}
APP_DB_POOL_SIZE: {{ $v.database.poolSize | quote }}
APP_DB_PROCESSES: {{ include "orders.processes" . | quote }}
APP_DB_CONNECTION_BUDGET: {{ $v.database.connectionBudget | quote }}
APP_DB_SSL: {{ $v.database.ssl }}
APP_DB_AUTH: {{ $v.database.auth }}
APP_REDIS_AUTH: {{ $v.redis.auth }}
APP_REDIS_IAM_CACHE: {{ $v.redis.iamCache | quote }}
KAFKA_BOOTSTRAP: {{ $v.kafka.bootstrapServers | quote }}
APP_KAFKA_AUTH: {{ eq $v.kafka.auth "aws_msk_iam" | ternary "iam" "none" }}
APP_KAFKA_REPLICATION_FACTOR: {{ $v.kafka.replicationFactor | quote }}
APP_AUTH_ISSUER: {{ $v.auth.issuer | quote }}
APP_AUTH_AUDIENCE: {{ $v.auth.audience | quote }}
APP_AUTH_JWKS_URL: {{ $v.auth.jwksUrl | quote }}
APP_PAYMENTS_URL: {{ $v.payments.url | quote }}
APP_WORKER_NOTIFY_URL: {{ $v.notifications.webhookUrl | quote }}
APP_WORKER_HANDLER_TIMEOUT_S: {{ $v.background.handlerTimeoutSeconds | quote }}
APP_WORKER_DRAIN_TIMEOUT_S: {{ $v.background.drainTimeoutSeconds | quote }}
APP_TELEMETRY_OTLP_URL: {{ $v.telemetry.otlpUrl | quote }}
APP_TELEMETRY_SAMPLE_RATIO: {{ $v.telemetry.sampleRatio | quote }}
APP_TELEMETRY_LOG_LEVEL: {{ $v.config.logLevel }}
APP_TELEMETRY_LOG_FORMAT: json
{{- end -}}

{{/* Who a component is to RDS and ElastiCache: one user a service account. (dict "root" $ "account" "api") */}}
{{- define "orders.identity" -}}
{{- $v := .root.Values -}}
{{- if eq $v.database.auth "iam" }}
- {name: APP_DB_IAM_USER, value: {{ printf "%s%s" $v.database.iamUserPrefix .account | quote }}}
{{- end }}
{{- if eq $v.redis.auth "iam" }}
- {name: APP_REDIS_IAM_USER, value: {{ printf "%s%s" $v.redis.iamUserPrefix .account | quote }}}
{{- end }}
{{- end -}}

{{- define "orders.environment" -}}
{{ include "orders.ownEnvironment" . }}
{{- range $name, $value := .Values.config.extra }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end -}}
