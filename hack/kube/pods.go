package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"
	nodestages "sigs.k8s.io/kwok/kustomize/stage/node/fast"
	podstages "sigs.k8s.io/kwok/kustomize/stage/pod/fast"
	"sigs.k8s.io/kwok/pkg/apis/internalversion"
	kwokconfig "sigs.k8s.io/kwok/pkg/config"
	"sigs.k8s.io/kwok/pkg/kwok/controllers"
	kwokclient "sigs.k8s.io/kwok/pkg/utils/client"
)

// Pods without machines: kwok says of a cluster's one node and of the pods on it that they run, and the node's kubelet
// (see kubelet.go) does for them what can be done without containers. kwok has a kubelet's port of its own, but what is
// executed there learns nothing of the end of its standard input, and its exit code is lost.

// nodeName is the one node of each cluster with pods.
const nodeName = "node-0"

// Files that this process finds in its cluster's folder, which is where it runs.
const (
	fileAdminConfig   = "admin.kubeconfig"
	fileKubeletCert   = "kubelet.crt"
	fileKubeletKey    = "kubelet.key"
	fileKubeletCaller = "kubelet-client.crt"
	fileCallerKey     = "kubelet-client.key"
)

// startPods starts what keeps a ready cluster's pods.
func (c *cluster) startPods() (*server, error) {
	if err := writeKubeconfig(filepath.Join(c.dir, fileAdminConfig), []*cluster{c}); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	pods, err := startProgram("pods", c.dir, self, []string{commandPods})
	if err != nil {
		return nil, err
	}
	c.servers = append(c.servers, pods)
	return pods, nil
}

// podsReady waits until pods can be put on the node.
func (c *cluster) podsReady(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(c.config())
	if err != nil {
		return err
	}
	return until(ctx, nodeName+" of "+c.name+" to be ready", func() error {
		node, err := client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return errors.New("it is not")
	})
}

// servePods keeps the pods of the cluster in whose folder it runs.
func servePods() (int, error) {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	config, err := clientcmd.BuildConfigFromFlags("", fileAdminConfig)
	if err != nil {
		return 1, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return 1, err
	}
	listener, err := kubeletListener()
	if err != nil {
		return 1, err
	}
	port := listener.Addr().(*net.TCPAddr).Port
	if err := createNode(ctx, client, port); err != nil {
		return 1, err
	}
	if err := startKwok(ctx, port); err != nil {
		return 1, fmt.Errorf("kwok: %w", err)
	}
	service := &http.Server{
		Handler:           newKubelet(client).routes(),
		ReadHeaderTimeout: 10 * time.Second,
	}
	go func() {
		<-ctx.Done()
		_ = service.Close() // Ends Serve, which tells of failures.
	}()
	if err := service.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return 1, err
	}
	return 0, nil
}

// kubeletListener listens on a free port of loopback for those whom the cluster's authority knows: what comes in here
// may run commands.
func kubeletListener() (net.Listener, error) {
	ca, err := os.ReadFile(fileCA)
	if err != nil {
		return nil, err
	}
	callers := x509.NewCertPool()
	if !callers.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s: no certificate in it", fileCA)
	}
	serving, err := tls.LoadX509KeyPair(fileKubeletCert, fileKubeletKey)
	if err != nil {
		return nil, err
	}
	return tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{serving},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    callers,
		MinVersion:   tls.VersionTLS12,
	})
}

// createNode creates the node, if an earlier life of this process did not, and says where its kubelet is.
func createNode(ctx context.Context, client kubernetes.Interface, port int) error {
	nodes := client.CoreV1().Nodes()
	node, err := nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: nodeName, Labels: map[string]string{corev1.LabelHostname: nodeName},
	}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		node, err = nodes.Get(ctx, nodeName, metav1.GetOptions{})
	}
	if err != nil {
		return err
	}
	node.Status.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}, {Type: corev1.NodeHostName, Address: nodeName},
	}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(port)
	_, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}

// startKwok starts kwok's controllers with the stages that its project recommends for clusters that need no delays.
func startKwok(ctx context.Context, port int) error {
	stages := map[internalversion.StageResourceRef][]*internalversion.Stage{}
	for _, text := range []string{
		nodestages.DefaultNodeInit, podstages.DefaultPodReady, podstages.DefaultPodComplete, podstages.DefaultPodDelete,
	} {
		stage, err := kwokconfig.UnmarshalWithType[*internalversion.Stage](text)
		if err != nil {
			return err
		}
		stages[stage.Spec.ResourceRef] = append(stages[stage.Spec.ResourceRef], stage)
	}
	clients, err := kwokclient.NewClientset("", fileAdminConfig)
	if err != nil {
		return err
	}
	config, err := clients.ToRESTConfig()
	if err != nil {
		return err
	}
	restClient, err := rest.RESTClientFor(config)
	if err != nil {
		return err
	}
	mapper, err := clients.ToRESTMapper()
	if err != nil {
		return err
	}
	dynamicClient, err := clients.ToDynamicClient()
	if err != nil {
		return err
	}
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	id, err := controllers.Identity()
	if err != nil {
		return err
	}
	controller, err := controllers.NewController(controllers.Config{
		Clock:                         clock.RealClock{},
		DynamicClient:                 dynamicClient,
		RESTClient:                    restClient,
		RESTMapper:                    mapper,
		ImpersonatingDynamicClient:    clients.ToImpersonatingDynamicClient(),
		ImpersonatingTypedClient:      clients.ToImpersonatingTypedClient(),
		TypedClient:                   typed,
		ManageSingleNode:              nodeName,
		CIDR:                          "10.0.1.0/24",
		NodeIP:                        "127.0.0.1",
		NodeName:                      nodeName,
		NodePort:                      port,
		LocalStages:                   stages,
		PodPlayStageParallelism:       2,
		NodePlayStageParallelism:      1,
		PodsOnNodeSyncParallelism:     1,
		EnablePodsOnNodeSyncListPager: true,
		ID:                            id,
	})
	if err != nil {
		return err
	}
	return controller.Start(ctx)
}
