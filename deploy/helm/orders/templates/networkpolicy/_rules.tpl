{{/* Pieces of egress. All take the root, or (dict "cidrs" list "port" number). */}}
{{- define "orders.egressDns" -}}
- to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: kube-system}
      podSelector:
        matchLabels: {k8s-app: kube-dns}
  ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end -}}

{{- define "orders.egressCidrs" -}}
{{- if .cidrs -}}
- to:
    {{- range .cidrs }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  ports:
    - {protocol: TCP, port: {{ .port }}}
{{- end -}}
{{- end -}}

{{- define "orders.egressAgents" -}}
- to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ .Values.networkPolicy.collectorNamespace }}}
  ports:
    - {protocol: TCP, port: 4317}
    - {protocol: TCP, port: 4318}
{{- if .Values.networkPolicy.podIdentityAgent }}
{{ include "orders.egressIdentity" . }}
{{- end }}
{{- end -}}

{{- define "orders.egressIdentity" -}}
- to:
    - ipBlock: {cidr: 169.254.170.23/32}
    - ipBlock: {cidr: "fd00:ec2::23/128"}
  ports:
    - {protocol: TCP, port: 80}
{{- end -}}

{{/* Database, Redis, Kafka, endpoints: what API and workers share. */}}
{{- define "orders.egressShared" -}}
{{- $e := .Values.networkPolicy.egress -}}
{{ include "orders.egressDns" . }}
{{ include "orders.egressCidrs" (dict "cidrs" $e.databaseCidrs "port" .Values.database.port) }}
{{ include "orders.egressCidrs" (dict "cidrs" $e.redisCidrs "port" .Values.redis.port) }}
{{ include "orders.egressCidrs" (dict "cidrs" $e.kafkaCidrs "port" .Values.kafka.port) }}
{{- with include "orders.egressCidrs" (dict "cidrs" $e.vpcEndpointCidrs "port" 443) }}
{{ . }}
{{- end }}
{{ include "orders.egressAgents" . }}
{{- end -}}

{{- define "orders.ingressScrape" -}}
- from:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ .Values.networkPolicy.monitoringNamespace }}}
  ports:
    - {protocol: TCP, port: 9000}
{{- end -}}
