package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/kubernetes/pkg/controller/deployment"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/replicaset"
)

// The pods of workload clusters are made and deleted as in any cluster, by Kubernetes' own controllers. hack/kube.sh
// gives each cluster a node on which they run.
const componentControllers = "kube-controllers"

// nodeName is the one node of each cluster of hack/kube.sh.
const nodeName = "node-0"

// startControllers starts what makes a workload cluster's pods.
func (s *stack) startControllers(ctx context.Context, c *cluster) error {
	if _, err := c.get(ctx, nodes, "", nodeName); err != nil {
		return fmt.Errorf("%s: its node (is hack/kube.sh run with --pods?): %w", c.name, err)
	}
	return s.startOwn(c, componentControllers)
}

// serveControllers makes ReplicaSets of Deployments and pods of ReplicaSets, and deletes what has lost its owner.
// kube-controller-manager would do it too, and 50 other things.
func serveControllers([]string) (int, error) {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return 1, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return 1, err
	}
	metadataClient, err := metadata.NewForConfig(config)
	if err != nil {
		return 1, err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	factory := informers.NewSharedInformerFactory(client, 0)
	sets, pods := factory.Apps().V1().ReplicaSets(), factory.Core().V1().Pods()
	deploymentController, err := deployment.NewDeploymentController(
		ctx, factory.Apps().V1().Deployments(), sets, pods, client)
	if err != nil {
		return 1, err
	}
	setController := replicaset.NewReplicaSetController(ctx, sets, pods, client, replicaset.BurstReplicas)
	started := make(chan struct{})
	collector, err := garbagecollector.NewGarbageCollector(ctx, client, metadataClient,
		restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery())),
		garbagecollector.DefaultIgnoredResources(),
		informerfactory.NewInformerFactory(factory, metadatainformer.NewSharedInformerFactory(metadataClient, 0)), started)
	if err != nil {
		return 1, err
	}
	factory.Start(ctx.Done())
	close(started)

	const resync = 5 * time.Second // New kinds are found so soon.
	go deploymentController.Run(ctx, 1)
	go setController.Run(ctx, 1)
	go collector.Run(ctx, 1, resync)
	collector.Sync(ctx, client.Discovery(), resync)
	return 0, nil
}
