package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	corev1 "k8s.io/api/core/v1"
	criapi "k8s.io/cri-api/pkg/apis"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	crilogs "k8s.io/cri-client/pkg/logs"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// folderPods is where in a cluster's folder the files of its pods are.
const folderPods = "pods"

// container stands for a container whose only process repeats what it reads: what is attached to it and says something
// reads the same, which is also the container's log.
type container struct {
	// dir is where commands are executed: the same for all containers of a pod.
	dir string
	// log is a file in the format of container runtimes, so that the kubelet's own code can read it.
	log string

	lock     sync.Mutex
	attached map[io.Writer]struct{}
}

// containers are those that somebody has asked for. A pod that is made anew under an old name has another UID.
type containers struct {
	lock sync.Mutex
	made map[string]*container
}

func (all *containers) get(pod *corev1.Pod, name string) (*container, error) {
	all.lock.Lock()
	defer all.lock.Unlock()
	folder, err := filepath.Abs(filepath.Join(folderPods, string(pod.UID)))
	if err != nil {
		return nil, err
	}
	key := filepath.Join(folder, name)
	if c, ok := all.made[key]; ok {
		return c, nil
	}
	c := &container{
		dir:      filepath.Join(folder, "files"),
		log:      filepath.Join(folder, "logs", name, "0.log"),
		attached: map[io.Writer]struct{}{},
	}
	for _, dir := range []string{c.dir, filepath.Dir(c.log)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if err := c.say(fmt.Sprintf("%s of %s runs\n", name, pod.Name)); err != nil {
		return nil, err
	}
	if all.made == nil {
		all.made = map[string]*container{}
	}
	all.made[key] = c
	return c, nil
}

// say writes a line to the log and to all who are attached.
func (c *container) say(line string) error {
	c.lock.Lock()
	defer c.lock.Unlock()
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(log, "%s stdout F %s\n", time.Now().UTC().Format(time.RFC3339Nano), strings.TrimSuffix(line, "\n"))
	if err = errors.Join(err, log.Close()); err != nil {
		return err
	}
	for out := range c.attached {
		if _, err := io.WriteString(out, line); err != nil {
			delete(c.attached, out) // It has left.
		}
	}
	return nil
}

// read writes out what `kubectl logs` asks for. A log that is followed ends with its pod.
func (c *container) read(
	ctx context.Context, asked corev1.PodLogOptions, exists func(context.Context) (bool, error), out io.Writer,
) error {
	options := &crilogs.LogOptions{
		TailLines: asked.TailLines, LimitBytes: asked.LimitBytes, Follow: asked.Follow, Timestamp: asked.Timestamps,
	}
	if asked.SinceSeconds != nil {
		options.Since = time.Now().Add(-time.Duration(*asked.SinceSeconds) * time.Second)
	}
	if asked.SinceTime != nil {
		options.Since = asked.SinceTime.Time
	}
	return crilogs.ReadLogs(ctx, c.log, "", options, life{exists: exists}, out, out)
}

// life is all that the reader of logs wants to know of a container runtime.
type life struct {
	criapi.RuntimeService
	exists func(context.Context) (bool, error)
}

func (l life) ContainerStatus(ctx context.Context, _ string, _ bool) (*cri.ContainerStatusResponse, error) {
	exists, err := l.exists(ctx)
	if err != nil {
		return nil, err
	}
	state := cri.ContainerState_CONTAINER_RUNNING
	if !exists {
		state = cri.ContainerState_CONTAINER_EXITED
	}
	return &cri.ContainerStatusResponse{Status: &cri.ContainerStatus{State: state}}, nil
}

// AttachContainer lasts until the client has nothing more to say, or for good if it cannot say anything.
func (c *container) AttachContainer(
	ctx context.Context, _, _, _ string, in io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize,
) error {
	if out != nil {
		c.lock.Lock()
		c.attached[out] = struct{}{}
		c.lock.Unlock()
		defer func() {
			c.lock.Lock()
			delete(c.attached, out)
			c.lock.Unlock()
		}()
	}
	if in == nil {
		<-ctx.Done()
		return nil
	}
	for lines := bufio.NewReader(in); ; {
		line, err := lines.ReadString('\n')
		if line != "" {
			if err := c.say(line); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// ExecInContainer runs a command of this machine in the pod's folder, to its end.
func (c *container) ExecInContainer(
	_ context.Context, _, _, _ string, line []string, in io.Reader, out, errOut io.WriteCloser, tty bool,
	resize <-chan remotecommand.TerminalSize, _ time.Duration,
) error {
	if len(line) == 0 {
		return errors.New("a command is missing")
	}
	// The kernel kills the command when the thread that started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	command := exec.Command(line[0], line[1:]...)
	command.Dir = c.dir
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if tty {
		return withTerminal(command, in, out, resize)
	}
	if in != nil {
		pipe, err := command.StdinPipe()
		if err != nil {
			return err
		}
		// Not waited for: a command may end before its input does.
		go func() {
			_, _ = io.Copy(pipe, in) // The command learns of it by the end.
			_ = pipe.Close()
		}()
	}
	if out != nil {
		command.Stdout = out
	}
	if errOut != nil {
		command.Stderr = errOut
	}
	return exitOf(command.Run())
}

// withTerminal runs a command on a terminal of its own.
func withTerminal(command *exec.Cmd, in io.Reader, out io.Writer, resize <-chan remotecommand.TerminalSize) error {
	terminal, err := pty.Start(command)
	if err != nil {
		return err
	}
	defer terminal.Close()
	go func() {
		for size := range resize {
			_ = pty.Setsize(terminal, &pty.Winsize{Rows: size.Height, Cols: size.Width}) // Fails once it is closed.
		}
	}()
	if in != nil {
		go func() { _, _ = io.Copy(terminal, in) }()
	}
	if out != nil {
		_, _ = io.Copy(out, terminal) // Reading fails when the command has ended.
	}
	return exitOf(command.Wait())
}

// exitOf makes an exit code of an error one that is passed on to the client.
func exitOf(err error) error {
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return utilexec.CodeExitError{Err: err, Code: exitCode(failed.ProcessState)}
	}
	return err
}
