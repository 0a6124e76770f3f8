{{- define "tiphys.name" -}}
{{- default "argocd-agent-agent" .Values.fullnameOverride -}}
{{- end }}

{{- define "tiphys.serviceAccount" -}}
{{- default (include "tiphys.name" .) .Values.serviceAccount.name -}}
{{- end }}

{{- /* What never changes: a Deployment's selector cannot. */ -}}
{{- define "tiphys.selector" -}}
app.kubernetes.io/name: {{ include "tiphys.name" . }}
app.kubernetes.io/part-of: argocd-agent
app.kubernetes.io/component: agent
{{- end }}

{{- define "tiphys.metadata" -}}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "tiphys.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "tiphys.clusterMetadata" -}}
labels:
  {{- include "tiphys.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "tiphys.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{- define "tiphys.subject" -}}
- kind: ServiceAccount
  name: {{ include "tiphys.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{- /* Text of a value. Large numbers would otherwise be written with an exponent. */ -}}
{{- define "tiphys.text" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ toString . }}{{ end -}}
{{- end }}

{{- /* A parameter as text, empty if it is not there: (list . "agent.x") */ -}}
{{- define "tiphys.param" -}}
{{- $value := get (index . 0).Values.params (index . 1) -}}
{{- if not (kindIs "invalid" $value) }}{{ include "tiphys.text" $value }}{{ end -}}
{{- end }}

{{- /* The port that a parameter names, or its default: (list . "agent.x" 8000) */ -}}
{{- define "tiphys.port" -}}
{{- $value := include "tiphys.param" . -}}
{{- if $value }}{{ int $value }}{{ else }}{{ index . 2 }}{{ end -}}
{{- end }}
