package main

import (
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/crypto/bcrypt"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const (
	adminPassword         = "steersman-of-the-argo"
	redisPassword         = "redis-of-the-argo"
	redisPasswordVariable = "REDIS_PASSWORD"
)

const (
	labelSecretType = "argocd.argoproj.io/secret-type"
	labelAgentName  = "argocd-agent.argoproj-labs.io/agent-name"
	labelPartOf     = "app.kubernetes.io/part-of"
)

func secret(name, kind string, data map[string]string) *unstructured.Unstructured {
	fields := map[string]any{}
	for key, value := range data {
		fields[key] = value
	}
	return object("v1", "Secret", argoNamespace, name, map[string]any{"type": kind, "stringData": fields})
}

func tlsSecret(name string, p pair) *unstructured.Unstructured {
	return secret(name, "kubernetes.io/tls", map[string]string{"tls.crt": string(p.cert), "tls.key": string(p.key)})
}

// settings are what Argo CD's manifests install on every cluster.
func settings() ([]*unstructured.Unstructured, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(adminPassword), bcrypt.MinCost)
	if err != nil {
		return nil, err
	}
	made := []*unstructured.Unstructured{
		secret("argocd-secret", "Opaque", map[string]string{
			"admin.password":      string(hash),
			"admin.passwordMtime": time.Now().UTC().Format(time.RFC3339),
			"server.secretkey":    "a key for throw-away sessions, 32+",
		}),
		secret("argocd-redis", "Opaque", map[string]string{"auth": redisPassword}),
	}
	made = append(made,
		object("v1", "ConfigMap", argoNamespace, "argocd-rbac-cm", nil),
		// Argo CD has terminals only for those who ask for them.
		object("v1", "ConfigMap", argoNamespace, "argocd-cm", map[string]any{"data": map[string]any{"exec.enabled": "true"}}))
	for _, one := range made {
		one.SetLabels(map[string]string{labelPartOf: "argocd"})
	}
	return made, nil
}

// defaultProject allows everything. At the control plane it says, besides, from which namespaces.
func defaultProject(sourceNamespaces ...any) *unstructured.Unstructured {
	spec := map[string]any{
		"sourceRepos":              []any{"*"},
		"destinations":             []any{map[string]any{"name": "*", "server": "*", "namespace": "*"}},
		"clusterResourceWhitelist": []any{map[string]any{"group": "*", "kind": "*"}},
	}
	if len(sourceNamespaces) > 0 {
		spec["sourceNamespaces"] = sourceNamespaces
	}
	return object("argoproj.io/v1alpha1", "AppProject", argoNamespace, "default", map[string]any{"spec": spec})
}

// clusterSecret tells Argo CD of an agent's cluster, behind the resource proxy.
func clusterSecret(agent string, proxyPort int, ca []byte, client pair) (*unstructured.Unstructured, error) {
	config, err := json.Marshal(map[string]any{"tlsClientConfig": map[string]any{
		"caData": ca, "certData": client.cert, "keyData": client.key,
	}})
	if err != nil {
		return nil, err
	}
	made := secret("cluster-"+agent, "Opaque", map[string]string{
		"name":   agent,
		"server": fmt.Sprintf("https://127.0.0.1:%d?agentName=%s", proxyPort, agent),
		"config": string(config),
	})
	made.SetLabels(map[string]string{labelSecretType: "cluster", labelAgentName: agent})
	made.SetAnnotations(map[string]string{"argocd.argoproj.io/skip-reconcile": "true"})
	return made, nil
}

// The application in Git: what it is called, where it goes.
const (
	shop          = "shop"
	shopNamespace = "shop-front"
)

// shopFiles are the manifests of the application of one agent, in a folder that is called like the agent. The
// colour is what a commit changes. The node is named because no scheduler runs.
func shopFiles(agent, colour string) map[string]string {
	return map[string]string{
		agent + "/settings.yaml": fmt.Sprintf(`apiVersion: v1
kind: ConfigMap
metadata: {name: %s}
data: {colour: %s}
`, shop, colour),
		agent + "/deployment.yaml": fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      nodeName: %[2]s
      containers: [{name: %[1]s, image: "registry.invalid/shop:1"}]
`, shop, nodeName),
	}
}

// application is what a user asks for: the manifests of an agent from Git, on the cluster that DESTINATION names.
func application(namespace, agent, repository, destination string) *unstructured.Unstructured {
	made := object("argoproj.io/v1alpha1", "Application", namespace, shop, map[string]any{"spec": map[string]any{
		"project":     "default",
		"source":      map[string]any{"repoURL": repository, "path": agent, "targetRevision": "main"},
		"destination": map[string]any{"name": destination, "namespace": shopNamespace},
		"syncPolicy":  map[string]any{"syncOptions": []any{"CreateNamespace=true"}},
	}})
	made.SetFinalizers([]string{"resources-finalizer.argocd.argoproj.io"})
	return made
}
