// Command tiphys-kube runs throw-away Kubernetes control planes for tests: one etcd and one kube-apiserver
// per cluster, on loopback, both built into this binary from their published modules.
//
// There is no controller manager, no scheduler and, unless asked for with --pods, no kubelet. A kube-apiserver keeps its feature gates and
// flags in globals, so that each one needs a process of its own: the binary starts itself again for each server
// and supervises what it started.
package main

import (
	"errors"
	"fmt"
	"os"
)

// The hidden commands by which the binary starts itself again.
const (
	commandEtcd      = "serve-etcd"
	commandAPIServer = "serve-kube-apiserver"
	commandGuard     = "guard"
	commandPods      = "serve-pods"
)

const usage = `tiphys-kube: real Kubernetes API servers for tests

Usage:
  tiphys-kube up [flags]                 run until SIGTERM or SIGINT; prints "ready" on standard output
  tiphys-kube up [flags] -- COMMAND...   run COMMAND once ready, tear down, exit with its code

COMMAND sees KUBECONFIG and TIPHYS_TEST_KUBECONFIG. The contexts are cluster-0, cluster-1 and so on.
With KUBEBUILDER_ASSETS set, the etcd and kube-apiserver found there are run instead of the built-in ones.

Flags of up:
`

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "tiphys-kube: "+err.Error())
	}
	os.Exit(code)
}

func run(args []string) (int, error) {
	if len(args) == 0 {
		return 2, errors.New("a command is missing; try tiphys-kube up --help")
	}
	switch args[0] {
	case "up":
		return up(args[1:])
	case commandEtcd:
		return serveEtcd(args[1:])
	case commandAPIServer:
		return serveAPIServer(args[1:])
	case commandGuard:
		return guard(args[1:])
	case commandPods:
		return servePods()
	case "help", "-h", "--help":
		_, err := parse([]string{"--help"})
		return exitOfParse(err)
	}
	return 2, fmt.Errorf("unknown command %q; try tiphys-kube up --help", args[0])
}
