{{/*
Locust, distributed: the master says what, the workers share the rate; both are Jobs, and the master's exit code is the verdict.
As with orders.job the name carries the hash of what is in it: another rate is another Job.
(dict "root" $ "component" "load-master" "role" "master")
*/}}
{{- define "orders.loadArguments" -}}
{{- $l := .root.Values.load -}}
- --locustfile=/app/loadtests/locustfile.py
- --host=http://{{ include "orders.fullname" .root }}-api
- --public-name={{ first .root.Values.config.publicHosts }}
- --i-own
- --tokens=/tokens/tokens
- --shape={{ $l.shape }}
- --rate={{ $l.rate }}
- --seconds={{ $l.seconds }}
- --mix={{ $l.mix }}
- --generators={{ $l.workers }}
{{- if eq .role "master" }}
- --master
- --headless
- --only-summary
- --expect-workers={{ $l.workers }}
- --users={{ $l.workers }}
- --spawn-rate={{ $l.workers }}
- --exit-code-on-error=0
{{- else }}
- --worker
- --master-host={{ include "orders.fullname" .root }}-load-master
{{- end }}
{{- end -}}

{{- define "orders.loadJobSpec" -}}
{{- $l := .root.Values.load -}}
{{- $count := eq .role "master" | ternary 1 $l.workers -}}
parallelism: {{ $count }}
completions: {{ $count }}
backoffLimit: 0
activeDeadlineSeconds: {{ add $l.seconds 600 }}
ttlSecondsAfterFinished: 86400
template:
  metadata:
    labels: {{- include "orders.podLabels" . | nindent 6 }}
  spec:
    restartPolicy: Never
    serviceAccountName: {{ include "orders.fullname" .root }}-api
    automountServiceAccountToken: false
    enableServiceLinks: false
    {{- with include "orders.placement" .root | trim }}{{ . | nindent 4 }}{{ end }}
    securityContext: {{- include "orders.podSecurity" . | nindent 6 }}
    containers:
      - name: locust
        image: "{{ $l.image.repository }}@{{ $l.image.digest }}"
        imagePullPolicy: {{ .root.Values.image.pullPolicy }}
        command: [locust]
        args: {{- include "orders.loadArguments" . | nindent 10 }}
        securityContext: {{- include "orders.containerSecurity" . | nindent 10 }}
        resources: {{- toYaml $l.resources | nindent 10 }}
        volumeMounts:
          - {name: tmp, mountPath: /tmp}
          - {name: tokens, mountPath: /tokens, readOnly: true}
    volumes:
      - name: tmp
        emptyDir: {sizeLimit: 64Mi}
      - name: tokens
        secret: {secretName: {{ $l.tokensSecret }}, defaultMode: 0440}
{{- end -}}

{{- define "orders.loadJob" -}}
{{- $spec := include "orders.loadJobSpec" . -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ include "orders.fullname" .root }}-{{ .component }}-{{ sha256sum $spec | trunc 8 }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "orders.labels" . | nindent 4 }}
spec: {{- $spec | nindent 2 }}
{{- end -}}
