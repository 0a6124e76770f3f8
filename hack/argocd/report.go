package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

var errStopped = errors.New("all is done")

// report prints each step as it ends, and counts.
type report struct {
	patience time.Duration
	done     int
	failed   int
	begun    time.Time
}

// step does one thing within the time that a step may take, and says whether it worked. Once all has ended it does
// nothing.
func (r *report) step(ctx context.Context, what string, do func(context.Context) error) bool {
	if ctx.Err() != nil {
		return false
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.patience, fmt.Errorf("not done within %s", r.patience))
	defer cancel()
	begun := time.Now()
	err := do(ctx)
	r.done++
	if err == nil {
		fmt.Printf("ok      %s (%.1fs)\n", what, time.Since(begun).Seconds())
		return true
	}
	// What ended everything says more than what was being waited for.
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w; %w", err, cause)
	}
	r.failed++
	fmt.Printf("FAILED  %s: %s\n", what, strings.ReplaceAll(err.Error(), "\n", "\n        "))
	return false
}

func (r *report) summary() string {
	return fmt.Sprintf("argocd: %d of %d steps ok, %.0f s", r.done-r.failed, r.done, time.Since(r.begun).Seconds())
}

// runAll starts everything, goes through all steps, and stops everything.
func runAll(o options) (int, error) {
	// Children are tied to the thread that starts them: all are started from here, and this goroutine keeps its
	// thread until the process ends.
	runtime.LockOSThread()
	dir, ours, err := folder(o.dir)
	if err != nil {
		return 1, err
	}
	interrupted, release := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer release()
	ctx, fail := context.WithCancelCause(interrupted)
	s, err := newStack(o, dir, fail)
	if err != nil {
		return 1, err
	}
	r := &report{patience: o.patience, begun: time.Now()}
	ended := s.walk(ctx, r)
	fmt.Println(r.summary())
	if ended == nil && o.stay {
		fmt.Printf("argocd: http://%s, user admin, password %s; logs in %s\n", s.address(portServer), adminPassword, dir)
		<-ctx.Done()
		if interrupted.Err() == nil {
			ended = context.Cause(ctx)
		}
	}
	err = errors.Join(ended, s.stop())
	if err != nil || r.failed > 0 {
		fmt.Println("argocd: logs are in " + dir)
		return 1, err
	}
	if ours {
		err = remove(dir)
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}

// walk goes through all steps, within the time for all of them. The error says why it came to no end.
func (s *stack) walk(ctx context.Context, r *report) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.limit, fmt.Errorf("not everything was done within %s", s.limit))
	defer cancel()
	if s.up(ctx, r) {
		for _, agent := range []string{agentManaged, agentAutonomous} {
			newJourney(s, agent).walk(ctx, r)
		}
	}
	return context.Cause(ctx)
}

// folder is where everything goes, and whether it is ours to remove.
func folder(wanted string) (dir string, ours bool, err error) {
	if wanted == "" {
		dir, err = os.MkdirTemp("", "tiphys-argocd-")
		return dir, true, err
	}
	if dir, err = filepath.Abs(wanted); err != nil {
		return "", false, err
	}
	return dir, false, os.MkdirAll(dir, 0o700)
}

// remove takes a folder away, also where the repo-server has taken its own right to look into a repository from it.
func remove(dir string) error {
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			err = os.Chmod(path, 0o700)
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(dir))
}
