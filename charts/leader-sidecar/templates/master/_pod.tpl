{{- define "leader-sidecar.sidecar-args" -}}
- run
- {{ printf "--election=%s" (include "leader-sidecar.election" .) | quote }}
- {{ printf "--endpoints=%s" (include "leader-sidecar.endpoints" .) | quote }}
- --ttl={{ .Values.sidecar.ttl }}
{{- with .Values.sidecar.margin }}
- --margin={{ . }}
{{- end }}
- --drain={{ .Values.sidecar.drain }}s
- --step-down-order={{ .Values.sidecar.stepDownOrder }}
- --ready-when={{ .Values.sidecar.readiness }}
- --priority={{ .Values.sidecar.priority }}
{{- with .Values.sidecar.health }}
{{- with .http }}
- {{ printf "--health-http=%s" . | quote }}
{{- end }}
{{- with .exec }}
- {{ printf "--health-exec=%s" . | quote }}
{{- end }}
{{- with .tcp }}
- {{ printf "--health-tcp=%s" . | quote }}
{{- end }}
{{- with .interval }}
- --health-interval={{ . }}
{{- end }}
{{- with .failures }}
- --health-failures={{ . }}
{{- end }}
{{- end }}
- --http=:{{ .Values.sidecar.statusPort }}
- --log-format={{ .Values.sidecar.logFormat }}
- --log-level={{ .Values.sidecar.logLevel }}
{{- if include "leader-sidecar.forwards" . }}
{{- $rules := list }}
{{- range .Values.master.ports }}{{ if .forwardPort }}{{ $rules = append $rules (printf ":%d=%d" (int .forwardPort) (int .containerPort)) }}{{ end }}{{ end }}
- --forward={{ join "," $rules }}
- --forward-wait={{ .Values.forwarder.wait }}
- --forward-drain={{ .Values.forwarder.drain }}
- --forward-linger={{ .Values.forwarder.linger }}s
{{- end }}
- --label={{ .Values.kube.labels }}
{{- range .Values.sidecar.extraArgs }}
- {{ tpl . $ | quote }}
{{- end }}
{{- end -}}

{{- define "leader-sidecar.program-env" -}}
{{- include "leader-sidecar.pod-env" . }}
{{- if .Values.master.etcdAccess.enabled }}
- {name: {{ .Values.master.etcdAccess.envPrefix }}ETCD, value: {{ include "leader-sidecar.endpoints" . | quote }}}
{{- include "leader-sidecar.credentials-env" (list . "master" .Values.master.etcdAccess.envPrefix) }}
{{- end }}
{{- end -}}

{{- define "leader-sidecar.master-pod" -}}
metadata:
  labels:
    {{- include "leader-sidecar.selector" (list . "master") | nindent 4 }}
    {{- with .Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with .Values.master.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: master
    {{- with .Values.tls.rotate }}
    leader-sidecar.io/tls-rotate: {{ . | quote }}
    {{- end }}
    {{- with .Values.master.podAnnotations }}
    {{- tpl (toYaml .) $ | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "leader-sidecar.account" . }}
  automountServiceAccountToken: false
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  terminationGracePeriodSeconds: {{ include "leader-sidecar.grace" . }}
  securityContext:
    {{- toYaml .Values.master.podSecurityContext | nindent 4 }}
  {{- with .Values.master.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.master.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.master.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.master.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.master.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    -
      {{- toYaml . | nindent 6 }}
      {{- if not .labelSelector }}
      labelSelector:
        matchLabels:
          {{- include "leader-sidecar.selector" (list $ "master") | nindent 10 }}
      {{- end }}
    {{- end }}
  {{- end }}
  initContainers:
    {{- with .Values.master.initContainers }}
    {{- tpl (toYaml .) $ | nindent 4 }}
    {{- end }}
    # A native sidecar: it starts before the program and ends after it.
    - name: leader-sidecar
      {{- include "leader-sidecar.own-image" . | nindent 6 }}
      restartPolicy: Always
      args:
        {{- include "leader-sidecar.sidecar-args" . | nindent 8 }}
      env:
        {{- include "leader-sidecar.pod-env" . | nindent 8 }}
        {{- include "leader-sidecar.credentials-env" (list . "sidecar" "LEADER_SIDECAR_") | nindent 8 }}
        {{- with .Values.sidecar.extraEnv }}
        {{- tpl (toYaml .) $ | nindent 8 }}
        {{- end }}
      ports:
        - {name: status, containerPort: {{ .Values.sidecar.statusPort }}}
        {{- if include "leader-sidecar.forwards" . }}
        {{- range .Values.master.ports }}
        {{- if .forwardPort }}
        - {name: {{ include "leader-sidecar.forward-name" . }}, containerPort: {{ .forwardPort }}}
        {{- end }}
        {{- end }}
        {{- end }}
      # Only the first status must be there; it never waits for etcd.
      startupProbe:
        httpGet: {path: /livez, port: status}
        periodSeconds: 1
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /livez, port: status}
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: 3
      readinessProbe:
        httpGet: {path: /readyz, port: status}
        periodSeconds: 2
        failureThreshold: 5
      lifecycle:
        # A native sidecar gets its SIGTERM only after the program has ended, so the step-down starts here.
        preStop:
          exec:
            command: [leader-sidecar, retire, --wait]
      resources:
        {{- toYaml .Values.sidecar.resources | nindent 8 }}
      securityContext:
        {{- include "leader-sidecar.security" . | nindent 8 }}
      terminationMessagePolicy: FallbackToLogsOnError
      volumeMounts:
        - {name: leader-sidecar, mountPath: /run/leader-sidecar}
        {{- if .Values.kube.labels }}
        {{- include "leader-sidecar.token-mount" . | nindent 8 }}
        {{- end }}
        {{- include "leader-sidecar.credentials-mount" (list . "sidecar") | nindent 8 }}
  containers:
    - name: master
      image: {{ include "leader-sidecar.image" (list . .Values.master.image) }}
      imagePullPolicy: {{ .Values.master.image.pullPolicy }}
      {{- with .Values.master.command }}
      command:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.master.args }}
      args:
        {{- tpl (toYaml .) $ | nindent 8 }}
      {{- end }}
      env:
        {{- include "leader-sidecar.program-env" . | nindent 8 }}
        {{- with .Values.master.env }}
        {{- tpl (toYaml .) $ | nindent 8 }}
        {{- end }}
      {{- with .Values.master.envFrom }}
      envFrom:
        {{- tpl (toYaml .) $ | nindent 8 }}
      {{- end }}
      ports:
        {{- range .Values.master.ports }}
        - {name: {{ .name }}, containerPort: {{ .containerPort }}}
        {{- end }}
      {{- range $probe := list "startupProbe" "livenessProbe" "readinessProbe" }}
      {{- with get $.Values.master $probe }}
      {{ $probe }}:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- end }}
      {{- if and .Values.master.stopDelaySeconds (semverCompare ">=1.30-0" .Capabilities.KubeVersion.Version) }}
      lifecycle:
        # A pod's containers are told to end all at once; the sidecar needs a moment to step down.
        preStop:
          sleep: {seconds: {{ .Values.master.stopDelaySeconds }}}
      {{- end }}
      resources:
        {{- toYaml .Values.master.resources | nindent 8 }}
      securityContext:
        {{- toYaml .Values.master.securityContext | nindent 8 }}
      volumeMounts:
        - {name: leader-sidecar, mountPath: /run/leader-sidecar, readOnly: true}
        - {name: tmp, mountPath: /tmp}
        {{- if .Values.master.etcdAccess.enabled }}
        {{- include "leader-sidecar.credentials-mount" (list . "master") | nindent 8 }}
        {{- end }}
        {{- with .Values.master.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with .Values.master.extraContainers }}
    {{- tpl (toYaml .) $ | nindent 4 }}
    {{- end }}
  volumes:
    - name: leader-sidecar
      emptyDir: {medium: Memory, sizeLimit: 4Mi}
    - name: tmp
      emptyDir: {sizeLimit: 64Mi}
    {{- if .Values.kube.labels }}
    {{- include "leader-sidecar.token-volume" . | nindent 4 }}
    {{- end }}
    {{- include "leader-sidecar.credentials-volume" (list . "sidecar") | nindent 4 }}
    {{- if .Values.master.etcdAccess.enabled }}
    {{- include "leader-sidecar.credentials-volume" (list . "master") | nindent 4 }}
    {{- end }}
    {{- with .Values.master.extraVolumes }}
    {{- tpl (toYaml .) $ | nindent 4 }}
    {{- end }}
{{- end -}}
