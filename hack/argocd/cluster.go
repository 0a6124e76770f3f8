package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"
)

// argoNamespace is where Argo CD, principal and agents live on every cluster.
const argoNamespace = "argocd"

// cluster is one API server, as Argo CD and Tiphys beside it see it.
type cluster struct {
	name string
	// dir has the kubeconfig, and the logs and data of what runs beside this cluster.
	dir        string
	kubeconfig string
	access     *rest.Config
	objects    dynamic.Interface
}

// openCluster writes a kubeconfig for one context alone: what runs beside a cluster knows no other.
func openCluster(kubeconfig, contextName, name, root string) (*cluster, error) {
	c := &cluster{name: name, dir: filepath.Join(root, name)}
	c.kubeconfig = filepath.Join(c.dir, "kubeconfig")
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, err
	}
	config, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		return nil, err
	}
	config.CurrentContext = contextName
	if err := api.MinifyConfig(config); err != nil {
		return nil, fmt.Errorf("%s: %w", kubeconfig, err)
	}
	config.Contexts[contextName].Namespace = argoNamespace
	if err := clientcmd.WriteToFile(*config, c.kubeconfig); err != nil {
		return nil, err
	}
	if c.access, err = clientcmd.BuildConfigFromFlags("", c.kubeconfig); err != nil {
		return nil, err
	}
	c.objects, err = dynamic.NewForConfig(c.access)
	return c, err
}

var (
	applications = schema.GroupVersionResource{Group: "argoproj.io", Version: "v1alpha1", Resource: "applications"}
	configMaps   = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	nodes        = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	deployments  = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
)

// create creates objects, each in the namespace that it names.
func (c *cluster) create(ctx context.Context, objects ...*unstructured.Unstructured) error {
	for _, object := range objects {
		resource, _ := meta.UnsafeGuessKindToResource(object.GroupVersionKind())
		_, err := c.objects.Resource(resource).Namespace(object.GetNamespace()).Create(ctx, object, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("%s: create %s %s: %w", c.name, object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}

func (c *cluster) get(
	ctx context.Context, resource schema.GroupVersionResource, namespace, name string,
) (*unstructured.Unstructured, error) {
	return c.objects.Resource(resource).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
}

// object builds an object from what a manifest says besides FIELDS. NAMESPACE is empty where there is none.
func object(apiVersion, kind, namespace, name string, fields map[string]any) *unstructured.Unstructured {
	made := &unstructured.Unstructured{Object: fields}
	if made.Object == nil {
		made.Object = map[string]any{}
	}
	made.SetAPIVersion(apiVersion)
	made.SetKind(kind)
	made.SetNamespace(namespace)
	made.SetName(name)
	return made
}

// text is a string field of an object, empty if it is not there. PATH has its steps joined by dots.
func text(object map[string]any, path string) string {
	found, _, _ := unstructured.NestedString(object, strings.Split(path, ".")...)
	return found
}
