package main

import (
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// Names of files in a cluster's folder. Both servers run in that folder, so that the paths of the sockets stay
// short whatever the folder is called: a socket's path may have 107 bytes. etcd insists on a port in every address,
// even where it then takes the whole for the name of a file.
const (
	fileEtcdSocket    = "client.sock:0"
	filePeerSocket    = "peer.sock:0"
	fileCA            = "ca.crt"
	fileServerCert    = "server.crt"
	fileServerKey     = "server.key"
	fileServiceSigner = "service-account.key"
)

// program says which executable to start for a server, and the arguments that must come first.
func program(name, builtIn string) (path string, first []string, err error) {
	if assets := os.Getenv("KUBEBUILDER_ASSETS"); assets != "" {
		path = filepath.Join(assets, name)
		if info, err := os.Stat(path); err != nil {
			return "", nil, fmt.Errorf("KUBEBUILDER_ASSETS is set: %w", err)
		} else if info.IsDir() || info.Mode()&0o111 == 0 {
			return "", nil, fmt.Errorf("KUBEBUILDER_ASSETS is set: %s is not executable", path)
		}
		path, err = filepath.Abs(path)
		return path, nil, err
	}
	path, err = os.Executable()
	return path, []string{builtIn}, err
}

// etcdFlags asks for a single member without any port, that trusts the page cache: its data outlives nothing.
func etcdFlags() []string {
	client, peer := "unix://"+fileEtcdSocket, "unix://"+filePeerSocket
	return []string{
		"--name=default",
		"--data-dir=etcd",
		"--listen-client-urls=" + client,
		"--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=default=" + peer,
		"--unsafe-no-fsync",
		"--log-level=warn",
	}
}

func apiServerFlags(port int, authorization string) []string {
	return []string{
		"--etcd-servers=unix://" + fileEtcdSocket,
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", port),
		// The parent keeps the port reserved by a socket of its own: see reservePort.
		"--permit-port-sharing",
		"--endpoint-reconciler-type=none",
		"--authorization-mode=" + authorization,
		"--anonymous-auth=false",
		// No controller makes the default service accounts that this plugin demands of every pod.
		"--disable-admission-plugins=ServiceAccount",
		"--allow-privileged",
		"--service-cluster-ip-range=10.0.0.0/24",
		"--client-ca-file=" + fileCA,
		"--tls-cert-file=" + fileServerCert,
		"--tls-private-key-file=" + fileServerKey,
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + fileServiceSigner,
		"--service-account-signing-key-file=" + fileServiceSigner,
		// For clusters with pods: see pods.go.
		"--kubelet-preferred-address-types=InternalIP",
		"--kubelet-certificate-authority=" + fileCA,
		"--kubelet-client-certificate=" + fileKubeletCaller,
		"--kubelet-client-key=" + fileCallerKey,
	}
}

func serveEtcd(args []string) (int, error) {
	etcdmain.Main(append([]string{"etcd"}, args...))
	return 0, nil
}

func serveAPIServer(args []string) (int, error) {
	command := app.NewAPIServerCommand()
	command.SetArgs(args)
	return cli.Run(command), nil
}
