package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// repository is a Git repository with a server for it.
type repository struct {
	dir     string
	address string
	server  *http.Server
}

// gitEnvironment keeps the user's own configuration of git out.
var gitEnvironment = []string{
	"PATH=" + os.Getenv("PATH"), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
	"GIT_AUTHOR_NAME=tiphys", "GIT_AUTHOR_EMAIL=tiphys@localhost",
	"GIT_COMMITTER_NAME=tiphys", "GIT_COMMITTER_EMAIL=tiphys@localhost",
}

// newRepository makes an empty repository in a folder of its own and serves it by git's smart protocol over HTTP: the
// dumb one does not do, because Argo CD lists what a remote has without the git program.
func newRepository(root, name string) (*repository, error) {
	r := &repository{dir: filepath.Join(root, name)}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return nil, err
	}
	if _, err := r.git("init", "--quiet", "--initial-branch=main"); err != nil {
		return nil, err
	}
	programs, err := r.git("--exec-path")
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r.address = fmt.Sprintf("http://%s/%s", listener.Addr(), name)
	r.server = &http.Server{Handler: &cgi.Handler{
		Path: filepath.Join(programs, "git-http-backend"),
		Env:  append([]string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1"}, gitEnvironment...),
	}}
	go func() {
		if err := r.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, "tiphys-argocd: git server: "+err.Error())
		}
	}()
	return r, nil
}

// commit writes files and commits them. The result is the name of the commit.
func (r *repository) commit(message string, files map[string]string) (string, error) {
	for name, text := range files {
		path := filepath.Join(r.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return "", err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	if _, err := r.git("add", "--all"); err != nil {
		return "", err
	}
	if _, err := r.git("commit", "--quiet", "--message", message); err != nil {
		return "", err
	}
	return r.git("rev-parse", "HEAD")
}

func (r *repository) git(args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = r.dir, gitEnvironment
	output, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, output)
	}
	return strings.TrimSpace(string(output)), nil
}

func (r *repository) close() error { return r.server.Close() }
