package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// process is a running child.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	// ended is closed once the child has been waited for.
	ended chan struct{}
}

// start runs a program in a folder, with its output in FOLDER/NAME.log and nothing but what is given in its
// environment. The kernel kills the child when the calling thread ends, whatever ends it: the caller must be locked
// to a thread that lives as long as the process.
func start(dir, name, program string, args, environment []string) (*process, error) {
	path := filepath.Join(dir, name+".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = dir, environment
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, log: path, cmd: cmd, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // How it ended is in cmd.ProcessState.
		close(p.ended)
	}()
	return p, nil
}

// stop ends the child and what it started: what they hold is thrown away, so there is nothing to finish.
func (p *process) stop() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // The only error is that all have ended already.
	<-p.ended
}

// failure tells how a child ended that should not have, with the end of what it said.
func (p *process) failure() error {
	return fmt.Errorf("%s ended: %s; its last words:\n%s", p.name, p.cmd.ProcessState, lastWords(p.log, 20))
}

func lastWords(path string, count int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-count):], "\n")
}

// freePorts names ports of loopback that nobody listens on. Who is to listen there does so a moment later.
func freePorts(count int) ([]int, error) {
	var ports []int
	for range count {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		// Kept to the end, so that no port is named twice.
		defer listener.Close()
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// poll is how often a condition is looked at again.
const poll = 200 * time.Millisecond

// until repeats an attempt until it succeeds or the context ends, and tells why the last attempt failed.
func until(ctx context.Context, attempt func() error) error {
	for {
		err := attempt()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), err)
		case <-time.After(poll):
		}
	}
}
