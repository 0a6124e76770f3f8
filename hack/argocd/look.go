package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// node is one resource in Argo CD's tree of an application.
type node struct {
	Group, Version, Kind, Namespace, Name, UID string
	ParentRefs                                 []struct{ UID string }
}

func (j *journey) readTree(ctx context.Context) error {
	return until(ctx, func() error {
		var err error
		if j.tree, err = j.getTree(ctx); err != nil {
			return err
		}
		above := ""
		for _, kind := range []string{"Deployment", "ReplicaSet", "Pod"} {
			at := slices.IndexFunc(j.tree, func(n node) bool {
				return n.Kind == kind && n.Namespace == shopNamespace &&
					(above == "" || len(n.ParentRefs) == 1 && n.ParentRefs[0].UID == above)
			})
			if at < 0 {
				return fmt.Errorf("no %s where it belongs in the tree: %v", kind, j.tree)
			}
			above = j.tree[at].UID
		}
		_, err = j.inTree("ConfigMap")
		return err
	})
}

func (j *journey) getTree(ctx context.Context) ([]node, error) {
	var tree struct{ Nodes []node }
	err := j.argo.call(ctx, http.MethodGet, j.about("/resource-tree"), j.query(), nil, &tree)
	return tree.Nodes, err
}

func (j *journey) inTree(kind string) (node, error) {
	for _, n := range j.tree {
		if n.Kind == kind {
			return n, nil
		}
	}
	return node{}, fmt.Errorf("no %s in the tree", kind)
}

// named are the parameters that name a resource of the application.
func (n node) named() []string {
	return []string{
		"namespace", n.Namespace, "resourceName", n.Name, "version", n.Version, "group", n.Group, "kind", n.Kind,
	}
}

// liveManifests reads manifests by the resource proxy, and compares them with what the cluster itself says.
func (j *journey) liveManifests(ctx context.Context) error {
	for _, kind := range []string{"ConfigMap", "Deployment", "Pod"} {
		n, err := j.inTree(kind)
		if err != nil {
			return err
		}
		var answer struct{ Manifest string }
		err = j.argo.call(ctx, http.MethodGet, j.about("/resource"), j.query(n.named()...), nil, &answer)
		if err != nil {
			return err
		}
		var live unstructured.Unstructured
		if err := json.Unmarshal([]byte(answer.Manifest), &live.Object); err != nil {
			return err
		}
		if string(live.GetUID()) != n.UID || live.GetResourceVersion() == "" {
			return fmt.Errorf("not the manifest of %s %s: %s", kind, n.Name, shortened([]byte(answer.Manifest)))
		}
	}
	return nil
}

func (j *journey) events(ctx context.Context) error {
	n, err := j.inTree("Deployment")
	if err != nil {
		return err
	}
	return until(ctx, func() error {
		var list struct{ Items []struct{ Reason string } }
		err := j.argo.call(ctx, http.MethodGet, j.about("/events"), j.query(
			"resourceNamespace", n.Namespace, "resourceName", n.Name, "resourceUID", n.UID), nil, &list)
		if err != nil {
			return err
		}
		for _, event := range list.Items {
			if event.Reason == "ScalingReplicaSet" {
				return nil
			}
		}
		return fmt.Errorf("no event says that the Deployment was scaled: %v", list.Items)
	})
}

func (j *journey) managedResources(ctx context.Context) error {
	return until(ctx, func() error {
		var list struct {
			Items []struct{ Kind, Name, LiveState, TargetState string }
		}
		err := j.argo.call(ctx, http.MethodGet, j.about("/managed-resources"), j.query(), nil, &list)
		if err != nil {
			return err
		}
		for _, item := range list.Items {
			if item.Kind == "ConfigMap" && strings.Contains(item.LiveState, `"colour"`) &&
				strings.Contains(item.TargetState, `"colour"`) {
				return nil
			}
		}
		return fmt.Errorf("no ConfigMap with its states among %d items", len(list.Items))
	})
}

// pushed waits for a tree that CHECK wants, as Argo CD pushes it to its user interface. Nobody can know when Argo CD
// has begun to listen to what is pushed, so CAUSE is done again and again.
func (j *journey) pushed(ctx context.Context, check func([]node) bool, cause func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		path := "/api/v1/stream/applications/" + shop + "/resource-tree"
		ended <- j.argo.stream(ctx, path, j.query(), func(part json.RawMessage) error {
			var tree struct{ Nodes []node }
			if err := json.Unmarshal(part, &tree); err != nil {
				return err
			}
			if check(tree.Nodes) {
				close(found)
				return errEnough
			}
			return nil
		})
	}()
	for {
		if err := cause(); err != nil {
			return err
		}
		select {
		case <-found:
			return nil
		case err := <-ended:
			return err
		case <-ctx.Done():
			return fmt.Errorf("no such tree is pushed: %w", context.Cause(ctx))
		case <-time.After(3 * time.Second):
		}
	}
}

// treePushed follows the stream on which Argo CD's user interface lives: by the Redis proxy, as all of the tree.
func (j *journey) treePushed(ctx context.Context) error {
	sets := func(nodes []node) int {
		count := 0
		for _, n := range nodes {
			if n.Kind == "ReplicaSet" {
				count++
			}
		}
		return count
	}
	before, err := j.getTree(ctx)
	if err != nil {
		return err
	}
	more := func(nodes []node) bool { return sets(nodes) > sets(before) }
	return j.pushed(ctx, more, func() error { return j.restart(ctx) })
}
