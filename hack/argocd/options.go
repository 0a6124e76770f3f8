package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// options are what the user asked of `run`.
type options struct {
	tiphys      string
	redisServer string
	dir         string
	patience    time.Duration
	limit       time.Duration
	stay        bool
	kubeconfig  string
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("tiphys-argocd run", flag.ContinueOnError)
	flags.StringVar(&o.tiphys, "tiphys", "tiphys", "the tiphys binary")
	flags.StringVar(&o.redisServer, "redis-server", os.Getenv("REDIS_SERVER"),
		"a redis-server binary (default: $REDIS_SERVER; without it an in-memory one that is built in)")
	flags.StringVar(&o.dir, "dir", "", "where logs and data go, and stay (default: a temporary folder, removed if all is well)")
	flags.DurationVar(&o.patience, "patience", 2*time.Minute, "how long a step may take")
	flags.DurationVar(&o.limit, "limit", 20*time.Minute, "how long all steps together may take")
	flags.BoolVar(&o.stay, "stay", false, "when all steps are done, go on running until SIGTERM or SIGINT")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.kubeconfig = os.Getenv("KUBECONFIG"); o.kubeconfig == "" {
		return o, errors.New("KUBECONFIG is not set; run this by hack/argocd.sh")
	}
	for _, program := range []*string{&o.tiphys, &o.redisServer} {
		if *program == "" {
			continue
		}
		path, err := exec.LookPath(*program)
		if err != nil {
			return o, err
		}
		if *program, err = filepath.Abs(path); err != nil {
			return o, err
		}
	}
	return o, nil
}
