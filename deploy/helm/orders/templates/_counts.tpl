{{/* How many processes can be alive at once: the sums behind the connection budget. */}}

{{- define "orders.apiMin" -}}
{{- if eq .Values.api.scaler "hpa" -}}{{ .Values.api.hpa.minReplicas }}{{- else -}}{{ .Values.api.replicas }}{{- end -}}
{{- end -}}

{{- define "orders.apiMax" -}}
{{- if eq .Values.api.scaler "hpa" -}}{{ .Values.api.hpa.maxReplicas }}{{- else -}}{{ .Values.api.replicas }}{{- end -}}
{{- end -}}

{{/* (worker entry) */}}
{{- define "orders.workerMax" -}}
{{- if eq .scaler "none" -}}{{ .replicas }}{{- else -}}{{ .maxReplicas }}{{- end -}}
{{- end -}}

{{/* A rollout surges a quarter, rounded up. (replicas) */}}
{{- define "orders.withSurge" -}}
{{- add (int .) (div (add (int .) 3) 4) -}}
{{- end -}}

{{- define "orders.processes" -}}
{{- $sum := include "orders.withSurge" (include "orders.apiMax" .) | int -}}
{{- range $name, $worker := .Values.workers -}}
{{- if $worker -}}{{- $sum = add $sum (include "orders.withSurge" (include "orders.workerMax" $worker) | int) -}}{{- end -}}
{{- end -}}
{{- $sum = add $sum (include "orders.withSurge" .Values.relay.replicas | int) 1 -}}
{{- $sum -}}
{{- end -}}

{{/* Partitions of the widest topic the entry reads. (dict "root" $ "worker" entry) */}}
{{- define "orders.partitions" -}}
{{- $most := 0 -}}
{{- range $group := .worker.groups -}}
{{- range $topic := (get $.root.Values.kafka.groups $group | default list) -}}
{{- $most = max $most (get $.root.Values.kafka.topics $topic | default 0 | int) -}}
{{- end -}}
{{- end -}}
{{- $most -}}
{{- end -}}
