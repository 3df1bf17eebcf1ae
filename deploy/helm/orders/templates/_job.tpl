{{/*
A plain Job, not a hook: hooks run before the ServiceAccount, ConfigMap and Secret they need exist. A Job's pod cannot be
changed, so its name carries the hash of everything in it: any change makes a new Job, no change leaves the old one.
(dict "root" $ "component" "migrate" "args" (list …) "secret" name)
*/}}
{{- define "orders.jobSpec" -}}
backoffLimit: {{ .root.Values.migrate.backoffLimit }}
activeDeadlineSeconds: {{ .root.Values.migrate.activeDeadlineSeconds }}
template:
  metadata:
    labels: {{- include "orders.podLabels" . | nindent 6 }}
    annotations:
      checksum/config: {{ include "orders.environment" .root | sha256sum }}
  spec:
    restartPolicy: Never
    serviceAccountName: {{ include "orders.fullname" .root }}-migrate
    automountServiceAccountToken: false
    enableServiceLinks: false
    {{- with include "orders.placement" .root | trim }}{{ . | nindent 4 }}{{ end }}
    securityContext: {{- include "orders.podSecurity" . | nindent 6 }}
    containers:
      - name: {{ .component }}
        args: {{ toJson .args }}
        {{- include "orders.containerCommon" . | nindent 8 }}
        resources: {{- toYaml .root.Values.migrate.resources | nindent 10 }}
    volumes: {{- include "orders.volumes" . | nindent 6 }}
{{- end -}}

{{- define "orders.job" -}}
{{- $spec := include "orders.jobSpec" . -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ include "orders.fullname" .root }}-{{ .component }}-{{ sha256sum $spec | trunc 8 }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "orders.labels" . | nindent 4 }}
  annotations:
    argocd.argoproj.io/sync-wave: "-1"
spec: {{- $spec | nindent 2 }}
{{- end -}}
