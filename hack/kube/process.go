package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// server is a running child.
type server struct {
	name string
	log  string
	cmd  *exec.Cmd
	// ended is closed once the child has been waited for.
	ended chan struct{}
}

// start runs a server in dir, as startProgram does.
func start(name, builtIn, dir string, flags []string) (*server, error) {
	path, first, err := program(name, builtIn)
	if err != nil {
		return nil, err
	}
	return startProgram(name, dir, path, append(first, flags...))
}

// startProgram runs a program in dir with its output in dir/NAME.log. The kernel kills the child when the calling
// thread ends, whatever ends it: the caller must be locked to a thread that lives as long as the process.
func startProgram(name, dir, path string, arguments []string) (*server, error) {
	logPath := filepath.Join(dir, name+".log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(path, arguments...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own: Ctrl-C in a terminal must reach the parent only, which knows the order of ending.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	s := &server{name: name, log: logPath, cmd: cmd, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // How it ended is in cmd.ProcessState.
		close(s.ended)
	}()
	return s, nil
}

// stop ends the child at once: what it holds is thrown away, so there is nothing to finish.
func (s *server) stop() {
	_ = s.cmd.Process.Kill() // The only error is that it has ended already.
	<-s.ended
}

// report tells when the child ends.
func (s *server) report(died chan<- *server) {
	go func() {
		<-s.ended
		died <- s
	}()
}

// failure tells how a child ended that should not have, with the end of what it said.
func (s *server) failure() error {
	text, err := os.ReadFile(s.log)
	if err != nil {
		text = []byte(err.Error())
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) > 30 {
		lines = lines[len(lines)-30:]
	}
	return fmt.Errorf("%s in %s ended: %s; its last words:\n%s",
		s.name, filepath.Dir(s.log), s.cmd.ProcessState, strings.Join(lines, "\n"))
}

// reservePort binds a free port without listening on it. As long as the returned file is open nobody else gets
// the port, but a process of the same user that asks for port sharing, as the API server does, can listen on it.
func reservePort() (int, *os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, fmt.Errorf("reserve a port: %w", err)
	}
	file := os.NewFile(uintptr(fd), "reserved port")
	fail := func(err error) (int, *os.File, error) {
		return 0, nil, errors.Join(fmt.Errorf("reserve a port: %w", err), file.Close())
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return fail(err)
	}
	loopback := [4]byte(net.IPv4(127, 0, 0, 1).To4())
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback}); err != nil {
		return fail(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return fail(err)
	}
	address, ok := name.(*unix.SockaddrInet4)
	if !ok {
		return fail(errors.New("the kernel answered with another kind of address"))
	}
	return address.Port, file, nil
}

// endWithParent makes the kernel send SIGTERM to this process when the one that started it ends.
func endWithParent() error {
	parent := os.Getppid()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return fmt.Errorf("follow the parent process: %w", err)
	}
	if os.Getppid() != parent {
		return errors.New("the parent process has ended")
	}
	return nil
}

// startGuarded runs the user's command under a guard, a process of this binary that outlives us for a moment
// should we be killed, and takes the command and what that started along.
func startGuarded(command []string, environment []string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, append([]string{commandGuard}, command...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = environment
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", command[0], err)
	}
	s := &server{name: command[0], cmd: cmd, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(s.ended)
	}()
	return s, nil
}

// grace is how long the user's command may take to end after SIGTERM.
const grace = 10 * time.Second

// guard runs a command in a process group of its own. SIGTERM and SIGINT are passed on to the group; whatever is
// left of it after the command has ended, or after the time of grace, is killed.
func guard(command []string) (int, error) {
	if len(command) == 0 {
		return 2, errors.New("guard: a command is missing")
	}
	runtime.LockOSThread() // For the same reason as in up.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)

	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// An interactive command must be able to read the terminal.
	_, noTerminal := unix.IoctlGetTermios(0, unix.TCGETS)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Foreground: noTerminal == nil, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 127, err
	}
	group := -cmd.Process.Pid
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	var late <-chan time.Time
	for {
		select {
		case <-ended:
			_ = syscall.Kill(group, syscall.SIGKILL) // Fails when nothing is left, which is usual.
			return exitCode(cmd.ProcessState), nil
		case s := <-signals:
			_ = syscall.Kill(group, s.(syscall.Signal))
			if late == nil {
				late = time.After(grace)
			}
		case <-late:
			_ = syscall.Kill(group, syscall.SIGKILL)
		}
	}
}

// exitCode is the code as a shell gives it: 128 and the signal's number for what a signal ended.
func exitCode(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}

// firstLine shortens an error's text for a message of one line.
func firstLine(text []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(text), []byte("\n"))
	return string(line)
}
