// Command tiphys-argocd runs Argo CD, as it is published, over Tiphys on throw-away clusters, and goes through what
// a user does with it: everything on loopback, with an API server, a Redis and a repo-server for each side.
//
// The components of Argo CD, Redis, and what makes pods of Deployments, are built into this binary from their
// published modules; each runs in a process of its own, which is this binary started again.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
)

const usage = `tiphys-argocd: Argo CD over Tiphys on throw-away clusters

Usage:
  tiphys-argocd run [flags]    needs KUBECONFIG with the contexts cluster-0, cluster-1 and cluster-2, as
                               hack/kube.sh makes them; hack/argocd.sh does both

Flags of run:
`

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "tiphys-argocd: "+err.Error())
	}
	os.Exit(code)
}

func run(args []string) (int, error) {
	if len(args) == 0 {
		return 2, errors.New("a command is missing; try tiphys-argocd run --help")
	}
	if serve, ok := components[args[0]]; ok {
		return serve(args[1:])
	}
	switch args[0] {
	case "run":
		o, err := parse(args[1:])
		if errors.Is(err, flag.ErrHelp) {
			return 0, nil
		} else if err != nil {
			return 2, err
		}
		return runAll(o)
	case "help", "-h", "--help":
		_, err := parse([]string{"--help"})
		if errors.Is(err, flag.ErrHelp) {
			err = nil
		}
		return 0, err
	}
	return 2, fmt.Errorf("unknown command %q; try tiphys-argocd run --help", args[0])
}
