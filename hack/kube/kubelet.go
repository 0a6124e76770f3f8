package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/util/flushwriter"
	"k8s.io/client-go/kubernetes"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
)

const (
	// streamIdle is the kubelet's own default of --streaming-connection-idle-timeout.
	streamIdle = 4 * time.Hour
	// streamCreation is how long a client may take to open the streams of a connection.
	streamCreation = 30 * time.Second
)

// kubelet answers what API servers ask of a node's port: the protocols are those of the kubelet, by its own packages;
// what stands behind them are commands and ports of this machine.
type kubelet struct {
	client     kubernetes.Interface
	containers containers
}

func newKubelet(client kubernetes.Interface) *kubelet {
	return &kubelet{client: client}
}

func (k *kubelet) routes() http.Handler {
	routes := http.NewServeMux()
	routes.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", k.logs)
	routes.HandleFunc("/exec/{namespace}/{pod}/{container}", k.exec)
	routes.HandleFunc("/attach/{namespace}/{pod}/{container}", k.attach)
	routes.HandleFunc("/portForward/{namespace}/{pod}", k.portForward)
	return routes
}

// pod is the pod that a request is about, or an answer that there is none.
func (k *kubelet) pod(w http.ResponseWriter, r *http.Request) (*corev1.Pod, bool) {
	pod, err := k.client.CoreV1().Pods(r.PathValue("namespace")).Get(r.Context(), r.PathValue("pod"), metav1.GetOptions{})
	if err == nil {
		return pod, true
	}
	code := http.StatusInternalServerError
	if apierrors.IsNotFound(err) {
		code = http.StatusNotFound
	}
	http.Error(w, err.Error(), code)
	return nil, false
}

// container is the container that a request is about, or an answer that there is none.
func (k *kubelet) container(w http.ResponseWriter, r *http.Request) (*container, bool) {
	pod, ok := k.pod(w, r)
	if !ok {
		return nil, false
	}
	name := r.PathValue("container")
	for _, c := range pod.Spec.Containers {
		if c.Name == name {
			found, err := k.containers.get(pod, name)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
			return found, err == nil
		}
	}
	http.Error(w, fmt.Sprintf("pod %s has no container %q", pod.Name, name), http.StatusNotFound)
	return nil, false
}

func (k *kubelet) logs(w http.ResponseWriter, r *http.Request) {
	c, ok := k.container(w, r)
	if !ok {
		return
	}
	var options corev1.PodLogOptions
	err := legacyscheme.ParameterCodec.DecodeParameters(r.URL.Query(), corev1.SchemeGroupVersion, &options)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	exists := func(ctx context.Context) (bool, error) {
		_, err := k.client.CoreV1().Pods(r.PathValue("namespace")).Get(ctx, r.PathValue("pod"), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	}
	w.Header().Set("Content-Type", "text/plain")
	if err := c.read(r.Context(), options, exists, flushwriter.Wrap(w)); err != nil && r.Context().Err() == nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (k *kubelet) exec(w http.ResponseWriter, r *http.Request) {
	k.stream(w, r, func(c *container, options *remotecommand.Options) {
		remotecommand.ServeExec(w, r, c, "", "", "", r.URL.Query()["command"], options,
			streamIdle, streamCreation, remotecommand.SupportedStreamingProtocols)
	})
}

func (k *kubelet) attach(w http.ResponseWriter, r *http.Request) {
	k.stream(w, r, func(c *container, options *remotecommand.Options) {
		remotecommand.ServeAttach(w, r, c, "", "", "", options,
			streamIdle, streamCreation, remotecommand.SupportedStreamingProtocols)
	})
}

func (k *kubelet) stream(w http.ResponseWriter, r *http.Request, serve func(*container, *remotecommand.Options)) {
	c, ok := k.container(w, r)
	if !ok {
		return
	}
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	serve(c, options)
}

func (k *kubelet) portForward(w http.ResponseWriter, r *http.Request) {
	pod, ok := k.pod(w, r)
	if !ok {
		return
	}
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	portforward.ServePortForward(w, r, hostPorts{}, pod.Name, string(pod.UID), options,
		streamIdle, streamCreation, portforward.SupportedProtocols)
}

// hostPorts takes the ports of pods to be those of this machine's loopback.
type hostPorts struct{}

// PortForward copies both ways until the server has said all it has to say.
func (hostPorts) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	defer connection.Close()
	go func() {
		_, _ = io.Copy(connection, stream) // Whoever stops reading or writing is noticed below.
		_ = connection.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(stream, connection)
	return err
}
