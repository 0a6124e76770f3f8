package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"
)

// poll is how often a condition is looked at again; the servers need seconds to start.
const poll = 50 * time.Millisecond

// maxServers is how many processes a cluster may have.
const maxServers = 3

// cluster is one etcd with one API server on it, and what keeps its pods if it has any.
type cluster struct {
	name    string
	dir     string
	port    int
	trust   pki
	servers []*server
	// reserved keeps the port ours: see reservePort.
	reserved *os.File
}

// newCluster makes folder and certificates and starts both servers, without waiting for them.
func newCluster(name, dir, authorization string) (*cluster, error) {
	c := &cluster{name: name, dir: dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return c, err
	}
	var err error
	if c.trust, err = newPKI(dir, name); err != nil {
		return c, err
	}
	if c.port, c.reserved, err = reservePort(); err != nil {
		return c, err
	}
	etcd, err := start("etcd", commandEtcd, dir, etcdFlags())
	if err != nil {
		return c, err
	}
	c.servers = append(c.servers, etcd)
	apiServer, err := start("kube-apiserver", commandAPIServer, dir, apiServerFlags(c.port, authorization))
	if err != nil {
		return c, err
	}
	c.servers = append(c.servers, apiServer)
	return c, nil
}

func (c *cluster) config() *rest.Config {
	return &rest.Config{
		Host: c.address(),
		TLSClientConfig: rest.TLSClientConfig{
			CAData: c.trust.ca, CertData: c.trust.admin.cert, KeyData: c.trust.admin.key,
		},
		// Readiness is asked for often on purpose.
		QPS: -1,
	}
}

func (c *cluster) address() string {
	return fmt.Sprintf("https://127.0.0.1:%d", c.port)
}

// ready waits until the API server says that it is ready, then creates what was asked for.
func (c *cluster) ready(ctx context.Context, namespaces []string, definitions []*unstructured.Unstructured) error {
	config := c.config()
	readiness, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return err
	}
	err = until(ctx, c.name+" to be ready", func() error {
		answer, err := readiness.RESTClient().Get().AbsPath("/readyz").Do(ctx).Raw()
		if err != nil && len(answer) > 0 {
			return fmt.Errorf("%w: %s", err, firstLine(answer))
		}
		return err
	})
	if err != nil {
		return err
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	for _, name := range namespaces {
		namespace := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name},
		}}
		// The API server makes some namespaces of its own; one of these may have been named.
		if err := create(ctx, objects.Resource(namespaceResource), namespace); err != nil {
			return fmt.Errorf("%s: create namespace %s: %w", c.name, name, err)
		}
	}
	for _, definition := range definitions {
		if err := create(ctx, objects.Resource(definitionResource), definition); err != nil {
			return fmt.Errorf("%s: create %s: %w", c.name, definition.GetName(), err)
		}
	}
	for _, definition := range definitions {
		if err := served(ctx, objects, definition); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

var (
	namespaceResource  = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	definitionResource = schema.GroupVersionResource{
		Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions",
	}
)

func create(ctx context.Context, resource dynamic.ResourceInterface, object *unstructured.Unstructured) error {
	_, err := resource.Create(ctx, object.DeepCopy(), metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// served waits until every served version of a definition can be listed.
func served(ctx context.Context, objects dynamic.Interface, definition *unstructured.Unstructured) error {
	group, _, err := unstructured.NestedString(definition.Object, "spec", "group")
	if err != nil {
		return err
	}
	plural, _, err := unstructured.NestedString(definition.Object, "spec", "names", "plural")
	if err != nil {
		return err
	}
	versions, _, err := unstructured.NestedSlice(definition.Object, "spec", "versions")
	if err != nil {
		return err
	}
	for _, version := range versions {
		fields, ok := version.(map[string]any)
		if !ok || fields["served"] != true {
			continue
		}
		name, _ := fields["name"].(string)
		resource := schema.GroupVersionResource{Group: group, Version: name, Resource: plural}
		err := until(ctx, definition.GetName()+" to be served", func() error {
			_, err := objects.Resource(resource).List(ctx, metav1.ListOptions{Limit: 1})
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// until repeats an attempt until it succeeds or the context ends, and tells why the last attempt failed.
func until(ctx context.Context, what string, attempt func() error) error {
	for {
		err := attempt()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; last: %w", what, context.Cause(ctx), err)
		case <-time.After(poll):
		}
	}
}

// stop ends the servers and frees the port.
func (c *cluster) stop() error {
	for i := len(c.servers) - 1; i >= 0; i-- {
		c.servers[i].stop()
	}
	if c.reserved == nil {
		return nil
	}
	return c.reserved.Close()
}

// readDefinitions reads every custom resource definition in the YAML and JSON files of a folder.
func readDefinitions(dir string) ([]*unstructured.Unstructured, error) {
	var definitions []*unstructured.Unstructured
	if dir == "" {
		return nil, nil
	}
	for _, pattern := range []string{"*.yaml", "*.yml", "*.json"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			found, err := readDefinitionFile(path)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			definitions = append(definitions, found...)
		}
	}
	if len(definitions) == 0 {
		return nil, fmt.Errorf("%s: no custom resource definitions there", dir)
	}
	return definitions, nil
}

func readDefinitionFile(path string) ([]*unstructured.Unstructured, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var definitions []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(file, 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			return definitions, nil
		} else if err != nil {
			return nil, err
		}
		// Other kinds are passed over: a kustomization is often beside the definitions.
		if object.GetKind() == "CustomResourceDefinition" {
			definitions = append(definitions, object)
		}
	}
}

// writeKubeconfig writes one context per cluster, named like the cluster; the first is the current one.
func writeKubeconfig(path string, clusters []*cluster) error {
	config := api.NewConfig()
	for _, c := range clusters {
		config.Clusters[c.name] = &api.Cluster{Server: c.address(), CertificateAuthorityData: c.trust.ca}
		config.AuthInfos[c.name] = &api.AuthInfo{
			ClientCertificateData: c.trust.admin.cert, ClientKeyData: c.trust.admin.key,
		}
		config.Contexts[c.name] = &api.Context{Cluster: c.name, AuthInfo: c.name, Namespace: "default"}
	}
	config.CurrentContext = clusters[0].name
	return clientcmd.WriteToFile(*config, path)
}
