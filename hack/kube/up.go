package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// fleet is all that one `up` has made, so that all of it can be taken away again.
type fleet struct {
	dir      string
	ownsDir  bool
	lock     *os.File
	clusters []*cluster
}

func up(args []string) (int, error) {
	o, err := parse(args)
	if err != nil {
		return exitOfParse(err)
	}
	// Children are tied to the thread that starts them: all are started from here, and this goroutine keeps its
	// thread until the process ends.
	runtime.LockOSThread()
	if !o.outliveParent {
		if err := endWithParent(); err != nil {
			return 1, err
		}
	}
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it for us.
		signal.Notify(stop, syscall.SIGHUP)
	}

	definitions, err := readDefinitions(o.crds)
	if err != nil {
		return 1, err
	}
	f, err := newFleet(o.dir)
	if err != nil {
		return 1, err
	}
	code, err := f.run(o, definitions, stop)
	if problem := f.remove(); problem != nil {
		err = errors.Join(err, problem)
		if code == 0 {
			code = 1
		}
	}
	return code, err
}

// newFleet takes the folder, so that two fleets cannot share one, and clears what a killed one left in it.
func newFleet(dir string) (*fleet, error) {
	f := &fleet{dir: dir}
	if dir == "" {
		made, err := os.MkdirTemp("", "tiphys-kube-")
		if err != nil {
			return nil, err
		}
		f.dir, f.ownsDir = made, true
	} else if err := os.Mkdir(dir, 0o700); err == nil {
		f.ownsDir = true
	} else if !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("--dir: %w", err)
	}
	var err error
	if f.dir, err = filepath.Abs(f.dir); err != nil {
		return nil, err
	}
	if f.lock, err = os.Open(f.dir); err != nil {
		return nil, fmt.Errorf("--dir: %w", err)
	}
	if err := unix.Flock(int(f.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("--dir %s: in use by another tiphys-kube (%w)", f.dir, err), f.lock.Close())
	}
	if _, err := os.Stat(f.dataPath()); err == nil {
		return f, f.clear()
	}
	if _, err := os.Lstat(f.kubeconfigPath()); err == nil {
		return nil, errors.Join(fmt.Errorf("--dir: %s exists and is not ours", f.kubeconfigPath()), f.lock.Close())
	}
	return f, nil
}

// dataPath is the folder for all that the servers read and write. That it exists also says that the kubeconfig
// beside it is ours.
func (f *fleet) dataPath() string       { return filepath.Join(f.dir, ".tiphys-kube") }
func (f *fleet) kubeconfigPath() string { return filepath.Join(f.dir, "kubeconfig") }

// run starts everything and stays until a signal, the end of the user's command, or a failure.
func (f *fleet) run(o options, definitions []*unstructured.Unstructured, stop <-chan os.Signal) (int, error) {
	begun := time.Now()
	for i := range o.clusters {
		name := fmt.Sprintf("cluster-%d", i)
		c, err := newCluster(name, filepath.Join(f.dataPath(), name), o.authorization)
		f.clusters = append(f.clusters, c)
		if err != nil {
			return 1, fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := writeKubeconfig(f.kubeconfigPath(), f.clusters); err != nil {
		return 1, err
	}
	// Nobody listens any more when servers are stopped on purpose.
	died := make(chan *server, maxServers*len(f.clusters))
	for _, c := range f.clusters {
		for _, s := range c.servers {
			s.report(died)
		}
	}

	ctx, cancel := context.WithTimeoutCause(context.Background(), o.timeout, fmt.Errorf("not done within %s", o.timeout))
	defer cancel()
	code, err := await(died, stop, func() error {
		return f.all(func(c *cluster) error { return c.ready(ctx, o.namespaces, definitions) })
	})
	if code != 0 {
		return code, err
	}
	if o.pods {
		for _, c := range f.clusters {
			pods, err := c.startPods()
			if err != nil {
				return 1, fmt.Errorf("%s: %w", c.name, err)
			}
			pods.report(died)
		}
		code, err := await(died, stop, func() error {
			return f.all(func(c *cluster) error { return c.podsReady(ctx) })
		})
		if code != 0 {
			return code, err
		}
	}
	fmt.Fprintf(os.Stderr, "tiphys-kube: %d clusters ready after %.1fs: %s\n",
		o.clusters, time.Since(begun).Seconds(), f.kubeconfigPath())

	if len(o.exec) > 0 {
		return f.exec(o.exec, died, stop)
	}
	fmt.Println("ready")
	select {
	case s := <-died:
		return 1, s.failure()
	case <-stop:
		return 0, nil
	}
}

// exec runs the user's command to its end.
func (f *fleet) exec(command []string, died <-chan *server, stop <-chan os.Signal) (int, error) {
	child, err := startGuarded(command, append(os.Environ(),
		"KUBECONFIG="+f.kubeconfigPath(), "TIPHYS_TEST_KUBECONFIG="+f.kubeconfigPath()))
	if err != nil {
		return 127, err
	}
	end := func() {
		_ = child.cmd.Process.Signal(syscall.SIGTERM) // The only error is that it has ended already.
		<-child.ended
	}
	select {
	case <-child.ended:
		return exitCode(child.cmd.ProcessState), nil
	case s := <-died:
		end()
		return 1, s.failure()
	case s := <-stop:
		end()
		return 128 + int(s.(syscall.Signal)), nil
	}
}

// await waits for something to come about, and gives 0 once it has. It gives up when a server dies or a signal comes.
func await(died <-chan *server, stop <-chan os.Signal, what func() error) (int, error) {
	done := make(chan error, 1)
	go func() { done <- what() }()
	select {
	case err := <-done:
		if err != nil {
			return 1, err
		}
		return 0, nil
	case s := <-died:
		return 1, s.failure()
	case s := <-stop:
		return 128 + int(s.(syscall.Signal)), nil
	}
}

// all does something with all clusters at once.
func (f *fleet) all(what func(*cluster) error) error {
	problems := make([]error, len(f.clusters))
	var group sync.WaitGroup
	for i, c := range f.clusters {
		group.Go(func() { problems[i] = what(c) })
	}
	group.Wait()
	return errors.Join(problems...)
}

// remove stops what runs and takes away every file that was made, and the folder too if it was made.
func (f *fleet) remove() error {
	problems := []error{f.all((*cluster).stop), f.clear()}
	if f.ownsDir {
		// The user's command may have left something of its own there, which stays.
		if err := os.Remove(f.dir); !errors.Is(err, syscall.ENOTEMPTY) {
			problems = append(problems, err)
		}
	}
	return errors.Join(append(problems, f.lock.Close())...)
}

// clear removes what this program writes, and nothing that somebody else may have put into the folder. The data
// goes last: it is the sign that the rest is ours.
func (f *fleet) clear() error {
	if err := os.Remove(f.kubeconfigPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.RemoveAll(f.dataPath())
}
