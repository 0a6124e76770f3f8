package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
	clientexec "k8s.io/client-go/util/exec"
)

// TestMain lets the test binary be the program too: it starts itself again for each server.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "up", commandEtcd, commandAPIServer, commandGuard, commandPods:
			main()
		}
	}
	os.Exit(m.Run())
}

// patience bounds every wait; it is reached only by a failure.
const patience = 2 * time.Minute

func upCommand(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var talk bytes.Buffer
	// The thread that starts the program is any of the test's and may end before it.
	cmd := exec.Command(self, append([]string{"up", "--outlive-parent"}, args...)...)
	cmd.Stderr = &talk
	// Whoever is left behind holds the pipe of standard error: fail then instead of waiting.
	cmd.WaitDelay = 5 * time.Second
	return cmd, &talk
}

// begin starts the program and returns when it says that it is ready.
func begin(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd, talk := upCommand(t, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	line := make([]byte, len("ready\n"))
	if _, err := out.Read(line); err != nil || string(line) != "ready\n" {
		_ = cmd.Wait()
		t.Fatalf("not ready: %q %v\n%s", line, err, talk)
	}
	return cmd
}

// descendants are the processes below pid, as /proc tells.
func descendants(t *testing.T, pid int) []int {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var all []int
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // A thread that has ended meanwhile.
		}
		for _, field := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			all = append(append(all, child), descendants(t, child)...)
		}
	}
	return all
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := bytes.Cut(stat, []byte(") "))
	return !bytes.HasPrefix(after, []byte("Z"))
}

func waitUntil(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came true: %s", what)
		}
	}
}

func waitGone(t *testing.T, pids []int) {
	t.Helper()
	for _, pid := range pids {
		waitUntil(t, fmt.Sprintf("process %d has ended", pid), func() bool { return !alive(pid) })
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestACommandSeesEveryClusterAndItsCodeIsPassedOn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	seen := filepath.Join(t.TempDir(), "seen")
	cmd, talk := upCommand(t, "--clusters", "2", "--dir", dir, "--",
		"sh", "-c", `test "$KUBECONFIG" = "$TIPHYS_TEST_KUBECONFIG" && cp "$KUBECONFIG" "$1" && exit 7`, "sh", seen)
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != 7 {
		t.Fatalf("want exit code 7: %v\n%s", err, talk)
	}
	config, err := clientcmd.LoadFromFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cluster-0", "cluster-1"} {
		if config.Contexts[name] == nil {
			t.Errorf("no context %s", name)
		}
	}
	if exists(dir) {
		t.Errorf("%s is still there", dir)
	}
}

func TestTermTakesAwayProcessesAndFilesButNothingForeign(t *testing.T) {
	dir := t.TempDir()
	foreign := filepath.Join(dir, "cluster-0")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := begin(t, "--dir", dir)
	pids := descendants(t, cmd.Process.Pid)
	if len(pids) != 2 {
		t.Fatalf("want etcd and kube-apiserver, found %v", pids)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	waitGone(t, pids)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || !exists(foreign) {
		t.Errorf("left behind: %v", entries)
	}
}

func TestAKilledParentLeavesNoProcessAndItsFolderCanBeUsedAgain(t *testing.T) {
	dir := t.TempDir()
	cmd := begin(t, "--dir", dir)
	pids := descendants(t, cmd.Process.Pid)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // Killed.
	waitGone(t, pids)
	again, talk := upCommand(t, "--dir", dir, "--", "true")
	if err := again.Run(); err != nil {
		t.Fatalf("%v\n%s", err, talk)
	}
}

func TestAKilledParentTakesTheCommandAndItsDescendantsAlong(t *testing.T) {
	dir := t.TempDir()
	pidFile := filepath.Join(dir, "pid")
	cmd, talk := upCommand(t, "--dir", dir, "--", "sh", "-c", `sleep 1000 & echo $! > "$1.new"; mv "$1.new" "$1"; wait`, "sh", pidFile)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the command has started", func() bool { return exists(pidFile) || !alive(cmd.Process.Pid) })
	pids := descendants(t, cmd.Process.Pid)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // Killed.
	if len(pids) != 5 {
		t.Fatalf("want etcd, kube-apiserver, guard, sh and sleep, found %v\n%s", pids, talk)
	}
	waitGone(t, pids)
}

func TestTheFleetEndsWithItsParentAndLeavesNoFile(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	f := fleet{dir: dir}
	parent := exec.Command("sh", "-c", `"$1" up --dir "$2" 2>"$2/talk" | { read line; echo "$line"; }`, "sh", self, dir)
	// A pipe keeps the shell waiting for the fleet after it has read the line; killed, it leaves the fleet alone.
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("ready\n"))
	if _, err := out.Read(line); err != nil || string(line) != "ready\n" {
		talk, _ := os.ReadFile(filepath.Join(dir, "talk"))
		t.Fatalf("not ready: %q %v\n%s", line, err, talk)
	}
	pids := descendants(t, parent.Process.Pid)
	if len(pids) < 3 || !exists(f.dataPath()) {
		t.Fatalf("want tiphys-kube, etcd and kube-apiserver, found %v", pids)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // Killed.
	waitGone(t, pids)
	if exists(f.dataPath()) || exists(f.kubeconfigPath()) {
		t.Error("files are left")
	}
}

func TestTheServersOfKubebuilderAssetsAreUsedIfNamed(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	assets := t.TempDir()
	for name, command := range map[string]string{"etcd": commandEtcd, "kube-apiserver": commandAPIServer} {
		script := fmt.Sprintf("#!/bin/sh\n: > '%s/%s-used'\nexec '%s' %s \"$@\"\n", assets, name, self, command)
		if err := os.WriteFile(filepath.Join(assets, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd, talk := upCommand(t, "--", "true")
	cmd.Env = append(os.Environ(), "KUBEBUILDER_ASSETS="+assets)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, talk)
	}
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if !exists(filepath.Join(assets, name+"-used")) {
			t.Errorf("%s was not used", name)
		}
	}
}

func TestAServerThatDiesEndsTheFleetAndIsNamed(t *testing.T) {
	dir := t.TempDir()
	started := filepath.Join(dir, "started")
	cmd, talk := upCommand(t, "--dir", dir, "--", "sh", "-c", `: > "$1"; exec sleep 1000`, "sh", started)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the command has started", func() bool { return exists(started) || !alive(cmd.Process.Pid) })
	pids, killed := descendants(t, cmd.Process.Pid), 0
	for _, pid := range pids {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			t.Fatal(err)
		}
		if arguments := bytes.Split(line, []byte{0}); len(arguments) > 1 && string(arguments[1]) == commandEtcd {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			killed++
		}
	}
	if killed != 1 {
		t.Fatalf("want one etcd among %v, found %d", pids, killed)
	}
	err := cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(talk.String(), "etcd in ") {
		t.Fatalf("want exit code 1 and etcd named: %v\n%s", err, talk)
	}
	waitGone(t, pids)
}

func TestAFolderInUseAndAForeignKubeconfigAreRefused(t *testing.T) {
	dir := t.TempDir()
	f, err := newFleet(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newFleet(dir); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("want a refusal, got %v", err)
	}
	if err := f.remove(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.kubeconfigPath(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newFleet(dir); err == nil || !strings.Contains(err.Error(), "not ours") {
		t.Errorf("want a refusal, got %v", err)
	}
}

func TestAPodRunsAndAnswersAsAKubeletDoes(t *testing.T) {
	dir := t.TempDir()
	cmd := begin(t, "--dir", dir, "--pods")
	if pids := descendants(t, cmd.Process.Pid); len(pids) != 3 {
		t.Fatalf("want etcd, kube-apiserver and what keeps pods, found %v", pids)
	}
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, pods := context.Background(), client.CoreV1().Pods("default")
	_, err = pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "sample"},
		Spec:       corev1.PodSpec{NodeName: nodeName, Containers: []corev1.Container{{Name: "main", Image: "example.com/main"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the pod runs", func() bool {
		pod, err := pods.Get(ctx, "sample", metav1.GetOptions{})
		return err == nil && pod.Status.Phase == corev1.PodRunning
	})

	// A command learns of the end of its input, and its exit code is passed on.
	url := client.CoreV1().RESTClient().Post().Resource("pods").Namespace("default").Name("sample").SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{
			Container: "main", Command: []string{"sh", "-c", "cat; exit 7"}, Stdin: true, Stdout: true,
		}, scheme.ParameterCodec).URL()
	executor, err := remotecommand.NewSPDYExecutor(config, "POST", url)
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &said})
	var exit clientexec.CodeExitError
	if !errors.As(err, &exit) || exit.Code != 7 || said.String() != "hello" {
		t.Errorf("want hello and exit code 7, got %q and %v", said.String(), err)
	}
	log, err := pods.GetLogs("sample", &corev1.PodLogOptions{}).DoRaw(ctx)
	if err != nil || string(log) != "main of sample runs\n" {
		t.Errorf("got the log %q and %v", log, err)
	}

	// Nobody but the API server may run commands.
	node, err := client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stranger := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	port := node.Status.DaemonEndpoints.KubeletEndpoint.Port
	answer, err := stranger.Get(fmt.Sprintf("https://127.0.0.1:%d/containerLogs/default/sample/main", port))
	if err == nil {
		_ = answer.Body.Close()
		t.Errorf("a stranger was answered with %s", answer.Status)
	}
}

func TestMistakesInFlagsAreNamed(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--clusters", "0"}, "between 1 and 64"},
		{[]string{"--authorization", "Webhook"}, "AlwaysAllow or RBAC"},
		{[]string{"--crds", "/does/not/exist"}, "no such file"},
		{[]string{"kubectl", "get"}, "after --"},
	} {
		if _, err := parse(c.args); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: want %q, got %v", c.args, c.want, err)
		}
	}
}

// TestTheProjectsDefinitionsKeepWhatArgoCDWrites holds manifests/crds to what a real API server makes of them.
func TestTheProjectsDefinitionsKeepWhatArgoCDWrites(t *testing.T) {
	dir := t.TempDir()
	begin(t, "--dir", dir, "--crds", filepath.Join("..", "..", "manifests", "crds"))
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	resource := func(plural string) dynamic.ResourceInterface {
		return client.Resource(schema.GroupVersionResource{Group: "argoproj.io", Version: "v1alpha1", Resource: plural}).
			Namespace("argocd")
	}
	object := func(kind string, parts map[string]any) *unstructured.Unstructured {
		parts["apiVersion"], parts["kind"] = "argoproj.io/v1alpha1", kind
		parts["metadata"] = map[string]any{"name": "sample"}
		return &unstructured.Unstructured{Object: parts}
	}
	kept := func(t *testing.T, o *unstructured.Unstructured, want string, path ...string) {
		t.Helper()
		if got, _, err := unstructured.NestedString(o.Object, path...); err != nil || got != want {
			t.Errorf("%s: want %q, got %q (%v)", strings.Join(path, "."), want, got, err)
		}
	}

	application, err := resource("applications").Create(ctx, object("Application", map[string]any{
		"spec": map[string]any{
			"project":     "default",
			"destination": map[string]any{"name": "agent", "namespace": "guestbook"},
			"source":      map[string]any{"repoURL": "https://git.test/x", "helm": map[string]any{"values": "a: b"}},
			"sourceHydrator": map[string]any{
				"drySource": map[string]any{"repoURL": "https://git.test/x", "path": "p", "targetRevision": "main"},
			},
		},
		"status": map[string]any{
			"sync":           map[string]any{"status": "Synced", "comparedTo": map[string]any{"destination": map[string]any{"name": "agent"}}},
			"operationState": map[string]any{"phase": "Running"},
		},
		"operation": map[string]any{"sync": map[string]any{"revision": "abc"}},
	}), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// No status subresource: a plain write takes status and operation along.
	kept(t, application, "a: b", "spec", "source", "helm", "values")
	kept(t, application, "p", "spec", "sourceHydrator", "drySource", "path")
	kept(t, application, "agent", "status", "sync", "comparedTo", "destination", "name")
	kept(t, application, "Running", "status", "operationState", "phase")
	kept(t, application, "abc", "operation", "sync", "revision")

	project, err := resource("appprojects").Create(ctx, object("AppProject", map[string]any{
		"spec": map[string]any{
			"sourceRepos":              []any{"*"},
			"clusterResourceWhitelist": []any{map[string]any{"group": "*", "kind": "*"}},
			"orphanedResources":        map[string]any{"note": "kept"},
		},
		"status": map[string]any{"jwtTokensByRole": map[string]any{"role": map[string]any{"note": "kept"}}},
	}), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kept(t, project, "kept", "spec", "orphanedResources", "note")
	kept(t, project, "kept", "status", "jwtTokensByRole", "role", "note")

	set, err := resource("applicationsets").Create(ctx, object("ApplicationSet", map[string]any{
		"spec": map[string]any{
			"generators": []any{map[string]any{"list": map[string]any{"elements": []any{}}}},
			"template":   map[string]any{"metadata": map[string]any{"name": "{{.name}}"}, "spec": map[string]any{"project": "x"}},
		},
		"status": map[string]any{"note": "dropped"},
	}), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kept(t, set, "{{.name}}", "spec", "template", "metadata", "name")
	// A status subresource: a plain write leaves status alone.
	kept(t, set, "", "status", "note")
	set.Object["status"] = map[string]any{"note": "kept"}
	set, err = resource("applicationsets").UpdateStatus(ctx, set, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kept(t, set, "kept", "status", "note")

	_, err = resource("applications").Create(ctx, object("Application", map[string]any{"spec": map[string]any{}}), metav1.CreateOptions{})
	if err == nil || !strings.Contains(err.Error(), "spec.destination") {
		t.Errorf("an application without a destination must be refused, got %v", err)
	}
}
