package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// manifests reads what Git wants: the repo-server of the control plane makes it, and asks the cluster what it serves.
func (j *journey) manifests(ctx context.Context) error {
	var answer struct{ Manifests []string }
	// By the commit's name: what a branch is, this repo-server may know from minutes ago, as nothing refreshes it.
	query := j.query("revision", j.revision)
	if err := j.argo.call(ctx, http.MethodGet, j.about("/manifests"), query, nil, &answer); err != nil {
		return err
	}
	colour := fmt.Sprintf("%q:%q", "colour", j.colour)
	if !slices.ContainsFunc(answer.Manifests, func(m string) bool { return strings.Contains(m, colour) }) {
		return fmt.Errorf("no manifest with %s: %v", colour, answer.Manifests)
	}
	return nil
}

// actions reads which actions there are for a Deployment. What can be done depends on its live state.
func (j *journey) actions(ctx context.Context) error {
	n, err := j.inTree("Deployment")
	if err != nil {
		return err
	}
	type action struct{ Name string }
	var list struct{ Actions []action }
	err = j.argo.call(ctx, http.MethodGet, j.about("/resource/actions"), j.query(n.named()...), nil, &list)
	if err == nil && !slices.Contains(list.Actions, action{"restart"}) {
		err = fmt.Errorf("no action restart: %v", list.Actions)
	}
	return err
}

// deletePod deletes a pod, and waits until another has taken its place.
func (j *journey) deletePod(ctx context.Context) error {
	n, err := j.inTree("Pod")
	if err != nil {
		return err
	}
	if err := j.argo.call(ctx, http.MethodDelete, j.about("/resource"), j.query(n.named()...), nil, nil); err != nil {
		return err
	}
	return until(ctx, func() error {
		nodes, err := j.getTree(ctx)
		if err != nil {
			return err
		}
		pods := slices.DeleteFunc(nodes, func(n node) bool { return n.Kind != "Pod" })
		if len(pods) != 1 || pods[0].UID == n.UID {
			return fmt.Errorf("not one other pod than %s in the tree: %v", n.Name, pods)
		}
		return nil
	})
}

// edit changes a live resource, and waits until Argo CD shows that it is not what Git wants.
func (j *journey) edit(ctx context.Context) error {
	const other = "red"
	patch, err := json.Marshal(map[string]any{"data": map[string]any{"colour": other}})
	if err != nil {
		return err
	}
	target := node{Version: "v1", Kind: "ConfigMap", Namespace: shopNamespace, Name: shop}
	query := j.query(append(target.named(), "patchType", "application/merge-patch+json")...)
	if err := j.argo.call(ctx, http.MethodPost, j.about("/resource"), query, string(patch), nil); err != nil {
		return err
	}
	if err := j.coloured(ctx, other); err != nil {
		return err
	}
	return j.outOfSync(ctx)
}

// rollBack goes back to a commit that was synced before.
func (j *journey) rollBack(ctx context.Context, colour, revision string) error {
	var app struct {
		Status struct {
			History []struct {
				ID       int64
				Revision string
			}
		}
	}
	if err := j.argo.call(ctx, http.MethodGet, j.about(""), j.query(), nil, &app); err != nil {
		return err
	}
	id := int64(-1)
	for _, entry := range app.Status.History {
		if entry.Revision == revision {
			id = entry.ID
		}
	}
	if id < 0 {
		return errors.New("the commit is not in the history of the application")
	}
	err := j.argo.call(ctx, http.MethodPost, j.about("/rollback"), nil, map[string]any{
		"id": id, "appNamespace": j.agent, "project": j.project,
	}, nil)
	if err != nil {
		return err
	}
	err = j.shown(ctx, func(app map[string]any) error {
		return errors.Join(
			wanted("phase of the operation", text(app, "status.operationState.phase"), "Succeeded"),
			wanted("synced revision", text(app, "status.operationState.syncResult.revision"), revision),
			wanted("sync status", text(app, "status.sync.status"), "OutOfSync"))
	})
	if err != nil {
		return err
	}
	return j.coloured(ctx, colour)
}

// coloured looks at the cluster itself, which colour the config map sets there.
func (j *journey) coloured(ctx context.Context, colour string) error {
	settings, err := j.workload.get(ctx, configMaps, shopNamespace, shop)
	if err != nil {
		return err
	}
	return wanted("colour on the cluster", text(settings.Object, "data.colour"), colour)
}
