package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

// options are what the user asked of `up`.
type options struct {
	clusters      int
	dir           string
	crds          string
	namespaces    []string
	authorization string
	timeout       time.Duration
	outliveParent bool
	pods          bool
	exec          []string
}

func parse(args []string) (options, error) {
	var o options
	var namespaces string
	flags := flag.NewFlagSet("tiphys-kube up", flag.ContinueOnError)
	flags.IntVar(&o.clusters, "clusters", 1, "how many clusters to run")
	flags.StringVar(&o.dir, "dir", "", "where kubeconfig, logs and data go until the end (default: a new temporary folder)")
	flags.StringVar(&o.crds, "crds", "", "folder with custom resource definitions to create in each cluster")
	flags.StringVar(&namespaces, "namespaces", "argocd", "namespaces to create in each cluster, separated by commas")
	flags.StringVar(&o.authorization, "authorization", "AlwaysAllow", "AlwaysAllow or RBAC")
	flags.DurationVar(&o.timeout, "timeout", 3*time.Minute, "how long the clusters may take until they are ready")
	flags.BoolVar(&o.outliveParent, "outlive-parent", false, "go on when the process (strictly: the thread) that started this one ends")
	flags.BoolVar(&o.pods, "pods", false, "give each cluster a node, node-0: pods whose nodeName it is run, and answer logs, attach, exec (commands "+
		"of this machine) and port-forward (ports of this machine's loopback)")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.exec = flags.Args()
	if consumed := len(args) - len(o.exec); len(o.exec) > 0 && (consumed == 0 || args[consumed-1] != "--") {
		return o, fmt.Errorf("unexpected argument %q; a command to run stands after --", o.exec[0])
	}
	if o.clusters < 1 || o.clusters > 64 {
		return o, fmt.Errorf("--clusters %d: must be between 1 and 64", o.clusters)
	}
	if o.authorization != "AlwaysAllow" && o.authorization != "RBAC" {
		return o, fmt.Errorf("--authorization %q: must be AlwaysAllow or RBAC", o.authorization)
	}
	for _, name := range strings.Split(namespaces, ",") {
		if name = strings.TrimSpace(name); name != "" {
			o.namespaces = append(o.namespaces, name)
		}
	}
	if o.crds != "" {
		if info, err := os.Stat(o.crds); err != nil {
			return o, fmt.Errorf("--crds: %w", err)
		} else if !info.IsDir() {
			return o, fmt.Errorf("--crds %s: not a folder", o.crds)
		}
	}
	return o, nil
}

// exitOfParse is the exit code that goes with an error of parse; the flag package has already told the user of help.
func exitOfParse(err error) (int, error) {
	if errors.Is(err, flag.ErrHelp) {
		return 0, nil
	}
	return 2, err
}
