package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/gorilla/websocket"
	"k8s.io/client-go/tools/remotecommand"
)

// logs reads what a pod has said so far.
func (j *journey) logs(ctx context.Context) error {
	n, err := j.inTree("Pod")
	if err != nil {
		return err
	}
	_, err = j.readLog(ctx, func(line string) error {
		// As the node of hack/kube.sh has every container say it.
		if err := wanted("the first line of the log", line, shop+" of "+n.Name+" runs"); err != nil {
			return err
		}
		return errEnough
	})
	return err
}

// followLogs reads what a pod has said, has it say more, and reads that in the same answer.
func (j *journey) followLogs(ctx context.Context) error {
	n, err := j.inTree("Pod")
	if err != nil {
		return err
	}
	const more = "land under the keel"
	lines, err := j.readLog(ctx, func(line string) error {
		if line == more {
			return errEnough
		}
		// On the cluster itself: what is said to a container there, it says to its log.
		return j.workload.runInPod(ctx, n, "attach", url.Values{"container": {shop}}, strings.NewReader(more+"\n"), nil)
	}, "follow", "true")
	if err == nil && lines != 2 {
		err = fmt.Errorf("the log has %d lines, not 2", lines)
	}
	return err
}

// readLog reads the log of the application's pod, until EACH has had enough of its lines, and counts them.
func (j *journey) readLog(ctx context.Context, each func(line string) error, options ...string) (lines int, err error) {
	n, err := j.inTree("Pod")
	if err != nil {
		return 0, err
	}
	query := j.query(append(options, "namespace", n.Namespace, "podName", n.Name, "container", shop, "tailLines", "100")...)
	err = j.argo.stream(ctx, j.about("/logs"), query, func(part json.RawMessage) error {
		var line struct {
			Content string
			Last    bool
		}
		if err := json.Unmarshal(part, &line); err != nil {
			return err
		}
		if line.Last {
			return errors.New("the log has come to its end")
		}
		lines++
		return each(line.Content)
	})
	return lines, err
}

// terminal opens a shell in a pod as the user interface does, changes the size of its window, and runs a command.
func (j *journey) terminal(ctx context.Context) error {
	n, err := j.inTree("Pod")
	if err != nil {
		return err
	}
	connection, err := j.argo.terminal(ctx, url.Values{
		"pod": {n.Name}, "container": {shop}, "namespace": {n.Namespace}, "shell": {"sh"},
		"appName": {shop}, "appNamespace": {j.agent}, "projectName": {j.project},
	})
	if err != nil {
		return err
	}
	defer connection.Close()
	defer context.AfterFunc(ctx, func() { connection.Close() })()

	// What is typed shows as well, so what is waited for must not stand in it. The size comes beside what is typed.
	const typed = "until [ \"$(stty size)\" = '33 101' ]; do sleep 0.1; done; stty size > size-of-terminal; echo $((1000 * 1000))\n"
	const printed = "1000000"
	for _, message := range []terminalMessage{
		{Operation: "resize", Rows: 33, Cols: 101},
		{Operation: "stdin", Data: typed},
	} {
		if err := connection.WriteJSON(message); err != nil {
			return err
		}
	}
	var output strings.Builder
	for !strings.Contains(output.String(), printed) {
		var message terminalMessage
		if err := connection.ReadJSON(&message); err != nil {
			return fmt.Errorf("%w; the terminal shows %q", err, output.String())
		}
		output.WriteString(message.Data)
	}

	// The cluster itself knows of it.
	var size strings.Builder
	err = j.workload.runInPod(ctx, n, "exec",
		url.Values{"container": {shop}, "command": {"cat", "size-of-terminal"}}, nil, &size)
	if err == nil {
		err = wanted("the size of the terminal", size.String(), "33 101\n")
	}
	if err != nil {
		return err
	}

	// With the shell the terminal ends.
	if err := connection.WriteJSON(terminalMessage{Operation: "stdin", Data: "exit\n"}); err != nil {
		return err
	}
	for {
		if _, _, err := connection.ReadMessage(); err != nil {
			return context.Cause(ctx)
		}
	}
}

// runInPod executes a command in a pod, or attaches to it, at the cluster itself, until its input ends.
func (c *cluster) runInPod(
	ctx context.Context, pod node, what string, query url.Values, input io.Reader, output io.Writer,
) error {
	address, err := url.Parse(c.access.Host)
	if err != nil {
		return err
	}
	query.Set("stdin", strconv.FormatBool(input != nil))
	query.Set("stdout", strconv.FormatBool(output != nil))
	address = address.JoinPath("api/v1/namespaces", pod.Namespace, "pods", pod.Name, what)
	address.RawQuery = query.Encode()
	streams, err := remotecommand.NewWebSocketExecutor(c.access, http.MethodGet, address.String())
	if err != nil {
		return err
	}
	err = streams.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: input, Stdout: output})
	if err != nil {
		return fmt.Errorf("%s: %s %s: %w", c.name, what, pod.Name, err)
	}
	return nil
}

// terminalMessage is what goes over a terminal's WebSocket in both directions.
type terminalMessage struct {
	Operation string `json:"operation"`
	Data      string `json:"data"`
	Rows      uint16 `json:"rows"`
	Cols      uint16 `json:"cols"`
}

// terminal opens a terminal's WebSocket. It takes the session from the cookie, as of a browser.
func (a *argo) terminal(ctx context.Context, query url.Values) (*websocket.Conn, error) {
	address := "ws" + strings.TrimPrefix(a.base, "http") + "/terminal?" + query.Encode()
	connection, response, err := websocket.DefaultDialer.DialContext(ctx, address,
		map[string][]string{"Cookie": {"argocd.token=" + a.token}})
	if err != nil && response != nil {
		// The dialer keeps the beginning of the body, which says why.
		text := make([]byte, 1000)
		length, _ := response.Body.Read(text)
		return nil, fmt.Errorf("terminal: %w: %s: %s", err, response.Status, text[:length])
	}
	return connection, err
}
