package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// journey is what a user does with one application of one agent, by Argo CD's API at the control plane.
type journey struct {
	*stack
	agent    string
	workload *cluster
	// project is what the application's project is called at the control plane.
	project string
	// revision is the commit that is to be on the cluster, and colour what it sets.
	revision, colour string
	// tree is the application's tree as it was read last.
	tree []node
}

func newJourney(s *stack, agent string) *journey {
	project := "default"
	if agent == agentAutonomous {
		project = agent + "-" + project
	}
	return &journey{stack: s, agent: agent, workload: s.workloads[agent], project: project}
}

// walk goes through all steps. Without the first ones the others make no sense.
func (j *journey) walk(ctx context.Context, r *report) {
	step := func(what string, do func(context.Context) error) bool {
		return r.step(ctx, j.agent+": "+what, do)
	}
	if !(step("commit to Git", func(context.Context) error { return j.commit("blue") }) &&
		step("create the application", j.create) &&
		step("it is compared with Git and shows as OutOfSync", j.outOfSync) &&
		step("sync it by Argo CD's API", j.sync) &&
		step("it shows as Synced and Healthy", j.synced)) {
		return
	}
	step("its resources are on the cluster", j.deployed)
	if step("read its tree: Deployment, ReplicaSet, Pod", j.readTree) {
		step("read live manifests", j.liveManifests)
		step("read events of a resource", j.events)
		step("read logs of a pod", j.logs)
		step("follow logs of a pod", j.followLogs)
		step("run a command in a terminal", j.terminal)
		step("read the actions for a resource", j.actions)
		step("delete a pod: another takes its place", j.deletePod)
	}
	step("read what is managed, with its differences", j.managedResources)
	step("read the manifests from Git", j.manifests)
	step("restart the Deployment by a resource action", j.restart)
	step("follow the tree while it is restarted again", j.treePushed)
	if step("edit a live resource: it shows as OutOfSync", j.edit) &&
		step("sync it: the edit is undone", j.sync) {
		step("it shows as Synced and Healthy", j.synced)
		step("its resources are as in Git", j.deployed)
	}
	colour, revision := j.colour, j.revision
	if step("commit again", func(context.Context) error { return j.commit("green") }) &&
		step("refresh: it shows as OutOfSync", j.refreshed) &&
		step("sync it again", j.sync) &&
		step("it shows as Synced and Healthy again", j.synced) &&
		step("the change is on the cluster", j.deployed) {
		step("roll back to the first commit", func(ctx context.Context) error { return j.rollBack(ctx, colour, revision) })
	}
	step("delete it: application and resources vanish from both sides", j.delete)
}

func (j *journey) commit(colour string) error {
	var err error
	j.colour = colour
	j.revision, err = j.git.commit("paint it "+colour+" for "+j.agent, shopFiles(j.agent, colour))
	return err
}

// create makes the application where its owner is.
func (j *journey) create(ctx context.Context) error {
	if j.agent == agentAutonomous {
		return j.workload.create(ctx, application(argoNamespace, j.agent, j.git.address, "in-cluster"))
	}
	made := application(j.agent, j.agent, j.git.address, j.agent)
	return j.argo.call(ctx, http.MethodPost, "/api/v1/applications", nil, made, nil)
}

// about is the path of something of the application, and query says which application.
func (j *journey) about(what string) string { return "/api/v1/applications/" + shop + what }
func (j *journey) query(more ...string) url.Values {
	query := url.Values{"appNamespace": {j.agent}, "project": {j.project}}
	for i := 0; i+1 < len(more); i += 2 {
		query.Set(more[i], more[i+1])
	}
	return query
}

// shown waits until the application, as Argo CD shows it at the control plane, is as CHECK wants it.
func (j *journey) shown(ctx context.Context, check func(app map[string]any) error) error {
	return until(ctx, func() error {
		var app map[string]any
		if err := j.argo.call(ctx, http.MethodGet, j.about(""), j.query(), nil, &app); err != nil {
			return err
		}
		if err := check(app); err != nil {
			return fmt.Errorf("%w; conditions: %v; operation: %s", err,
				dig(app, "status", "conditions"), text(app, "status.operationState.message"))
		}
		return nil
	})
}

func dig(app map[string]any, path ...string) any {
	found, _, _ := unstructured.NestedFieldNoCopy(app, path...)
	return found
}

func wanted(what, is, want string) error {
	if is != want {
		return fmt.Errorf("%s is %q, not %q", what, is, want)
	}
	return nil
}

func (j *journey) outOfSync(ctx context.Context) error {
	return j.shown(ctx, func(app map[string]any) error {
		return errors.Join(
			wanted("sync status", text(app, "status.sync.status"), "OutOfSync"),
			wanted("compared revision", text(app, "status.sync.revision"), j.revision))
	})
}

func (j *journey) refreshed(ctx context.Context) error {
	err := j.argo.call(ctx, http.MethodGet, j.about(""), j.query("refresh", "normal"), nil, nil)
	if err != nil {
		return err
	}
	return j.outOfSync(ctx)
}

func (j *journey) sync(ctx context.Context) error {
	return j.argo.call(ctx, http.MethodPost, j.about("/sync"), nil, map[string]any{
		"appNamespace": j.agent, "project": j.project,
	}, nil)
}

func (j *journey) synced(ctx context.Context) error {
	return j.shown(ctx, func(app map[string]any) error {
		return errors.Join(
			wanted("phase of the operation", text(app, "status.operationState.phase"), "Succeeded"),
			wanted("synced revision", text(app, "status.operationState.syncResult.revision"), j.revision),
			wanted("sync status", text(app, "status.sync.status"), "Synced"),
			wanted("compared revision", text(app, "status.sync.revision"), j.revision),
			wanted("health", text(app, "status.health.status"), "Healthy"))
	})
}

// deployed looks at the cluster itself, beside Tiphys.
func (j *journey) deployed(ctx context.Context) error {
	if err := j.coloured(ctx, j.colour); err != nil {
		return err
	}
	_, err := j.workload.get(ctx, deployments, shopNamespace, shop)
	return err
}

// restart runs an action that changes a live resource.
func (j *journey) restart(ctx context.Context) error {
	before, err := j.workload.get(ctx, deployments, shopNamespace, shop)
	if err != nil {
		return err
	}
	target := node{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: shopNamespace, Name: shop}
	body := map[string]any{
		"name": shop, "appNamespace": j.agent, "project": j.project, "action": "restart",
	}
	for i, named := 0, target.named(); i < len(named); i += 2 {
		body[named[i]] = named[i+1]
	}
	const mark = "kubectl.kubernetes.io/restartedAt"
	// The mark has whole seconds: a second restart within one changes nothing.
	return until(ctx, func() error {
		if err := j.argo.call(ctx, http.MethodPost, j.about("/resource/actions/v2"), nil, body, nil); err != nil {
			return err
		}
		after, err := j.workload.get(ctx, deployments, shopNamespace, shop)
		if err != nil {
			return err
		}
		if dig(after.Object, "spec", "template", "metadata", "annotations", mark) == nil ||
			after.GetGeneration() == before.GetGeneration() {
			return errors.New("the Deployment on the cluster was not restarted")
		}
		return nil
	})
}

// delete deletes the application where its owner is.
func (j *journey) delete(ctx context.Context) error {
	var err error
	if j.agent == agentAutonomous {
		err = j.workload.objects.Resource(applications).Namespace(argoNamespace).Delete(ctx, shop, metav1.DeleteOptions{})
	} else {
		err = j.argo.call(ctx, http.MethodDelete, j.about(""), j.query("cascade", "true"), nil, nil)
	}
	if err != nil {
		return err
	}
	return until(ctx, func() error {
		_, settings := j.workload.get(ctx, configMaps, shopNamespace, shop)
		_, deployment := j.workload.get(ctx, deployments, shopNamespace, shop)
		_, copied := j.workload.get(ctx, applications, argoNamespace, shop)
		_, shown := j.control.get(ctx, applications, j.agent, shop)
		for what, err := range map[string]error{
			"config map": settings, "deployment": deployment, "application on the cluster": copied,
			"application at the control plane": shown,
		} {
			if err == nil {
				return fmt.Errorf("the %s is still there", what)
			} else if !apierrors.IsNotFound(err) {
				return err
			}
		}
		return nil
	})
}
