package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The contexts of hack/kube.sh, and what their clusters are here. An agent is called like its mode.
const (
	controlPlane    = "control-plane"
	agentManaged    = "managed"
	agentAutonomous = "autonomous"
)

// stack is all that runs: Argo CD without a controller beside the control plane, and with one beside each
// workload cluster; a principal and two agents; Git.
type stack struct {
	options
	dir       string
	control   *cluster
	workloads map[string]*cluster
	git       *repository
	argo      argo
	ca        *authority
	ports     map[string]int
	processes []*process
	// fail ends all that waits, because a process has ended.
	fail context.CancelCauseFunc
}

// The listeners that need a port of their own.
const (
	portServer        = "argocd-server"
	portServerMetrics = "argocd-server metrics"
	portPrincipal     = "principal"
	portResourceProxy = "resource proxy"
	portRedisProxy    = "redis proxy"
)

// portOf is the name of a port of what runs beside every cluster.
func portOf(cluster, what string) string { return cluster + " " + what }

func newStack(o options, dir string, fail context.CancelCauseFunc) (*stack, error) {
	s := &stack{options: o, dir: dir, workloads: map[string]*cluster{}, ports: map[string]int{}, fail: fail}
	var err error
	if s.control, err = openCluster(o.kubeconfig, "cluster-0", controlPlane, dir); err != nil {
		return nil, err
	}
	for name, context := range map[string]string{agentManaged: "cluster-1", agentAutonomous: "cluster-2"} {
		if s.workloads[name], err = openCluster(o.kubeconfig, context, name, dir); err != nil {
			return nil, err
		}
	}
	names := []string{
		portServer, portServerMetrics, portPrincipal, portResourceProxy, portRedisProxy,
	}
	for _, name := range []string{controlPlane, agentManaged, agentAutonomous} {
		for _, what := range []string{"redis", "repo-server", "repo-server metrics", "controller metrics"} {
			names = append(names, portOf(name, what))
		}
	}
	free, err := freePorts(len(names))
	if err != nil {
		return nil, err
	}
	for i, name := range names {
		s.ports[name] = free[i]
	}
	s.argo.base = "http://" + s.address(portServer)
	s.ca, err = newAuthority()
	return s, err
}

// up starts everything, one after the other as each needs what comes before. It says whether all came up.
func (s *stack) up(ctx context.Context, r *report) bool {
	started := func(start func() error, ready ...func(context.Context) error) func(context.Context) error {
		return func(ctx context.Context) error {
			if err := start(); err != nil {
				return err
			}
			for _, wait := range ready {
				if err := wait(ctx); err != nil {
					return err
				}
			}
			return nil
		}
	}
	answers := func(port, path string) func(context.Context) error {
		return func(ctx context.Context) error { return s.answers(ctx, port, path) }
	}
	return r.step(ctx, "Git over HTTP", started(s.startGit)) &&
		r.step(ctx, "settings, certificates and Secrets", s.seed) &&
		r.step(ctx, "controllers of the workload clusters", func(ctx context.Context) error {
			return errors.Join(
				s.startControllers(ctx, s.workloads[agentManaged]), s.startControllers(ctx, s.workloads[agentAutonomous]))
		}) &&
		r.step(ctx, "Redis and Argo CD's repo-servers and controllers", started(s.startArgo,
			answers(portOf(controlPlane, "repo-server metrics"), "/healthz"),
			answers(portOf(agentManaged, "repo-server metrics"), "/healthz"),
			answers(portOf(agentAutonomous, "repo-server metrics"), "/healthz"),
			answers(portOf(agentManaged, "controller metrics"), "/healthz"),
			answers(portOf(agentAutonomous, "controller metrics"), "/healthz"))) &&
		r.step(ctx, "principal", started(s.startPrincipal,
			s.listens(portPrincipal), s.listens(portResourceProxy), s.listens(portRedisProxy))) &&
		r.step(ctx, "Argo CD's server, with the principal for its Redis", started(s.startServer,
			answers(portServer, "/healthz?full=true"))) &&
		r.step(ctx, "log in", func(ctx context.Context) error { return s.argo.login(ctx, "admin", adminPassword) }) &&
		r.step(ctx, "agents connect: Argo CD shows their clusters as connected", started(s.startAgents, s.connected))
}

func (s *stack) startGit() error {
	var err error
	s.git, err = newRepository(filepath.Join(s.dir, "git"), "shop")
	return err
}

// seed creates what is there before anything starts, as the manifests of Argo CD and argocd-agentctl would.
func (s *stack) seed(ctx context.Context) error {
	ca := s.ca
	principal, err := ca.server("principal")
	if err != nil {
		return err
	}
	proxy, err := ca.server("resource-proxy")
	if err != nil {
		return err
	}
	signing, err := tokenKey()
	if err != nil {
		return err
	}
	common, err := settings()
	if err != nil {
		return err
	}
	objects := append(common,
		tlsSecret("argocd-agent-ca", ca.pair),
		tlsSecret("argocd-agent-principal-tls", principal),
		tlsSecret("argocd-agent-resource-proxy-tls", proxy),
		secret("argocd-agent-jwt", "Opaque", map[string]string{"jwt.key": string(signing)}),
		defaultProject("*"),
	)
	for agent, workload := range s.workloads {
		client, err := ca.client(agent)
		if err != nil {
			return err
		}
		known, err := clusterSecret(agent, s.ports[portResourceProxy], ca.cert, client)
		if err != nil {
			return err
		}
		objects = append(objects, known, object("v1", "Namespace", "", agent, nil))
		own, err := settings()
		if err != nil {
			return err
		}
		own = append(own,
			secret("argocd-agent-ca", "Opaque", map[string]string{"ca.crt": string(ca.cert)}),
			tlsSecret("argocd-agent-client-tls", client))
		if agent == agentAutonomous {
			own = append(own, defaultProject())
		}
		if err := workload.create(ctx, own...); err != nil {
			return err
		}
	}
	return s.control.create(ctx, objects...)
}

// startArgo starts Redis and the repo-server beside every cluster, and a controller beside the workload clusters.
func (s *stack) startArgo() error {
	for _, c := range []*cluster{s.control, s.workloads[agentManaged], s.workloads[agentAutonomous]} {
		redis := s.address(portOf(c.name, "redis"))
		if err := s.startRedis(c, redis); err != nil {
			return err
		}
		repoServer := s.ports[portOf(c.name, "repo-server")]
		err := s.startOwn(c, componentRepoServer,
			"--address=127.0.0.1", fmt.Sprintf("--port=%d", repoServer), "--disable-tls",
			"--metrics-address=127.0.0.1", fmt.Sprintf("--metrics-port=%d", s.ports[portOf(c.name, "repo-server metrics")]),
			"--redis="+redis)
		if err != nil {
			return err
		}
		if c == s.control {
			continue
		}
		err = s.startOwn(c, componentController,
			fmt.Sprintf("--metrics-port=%d", s.ports[portOf(c.name, "controller metrics")]),
			fmt.Sprintf("--repo-server=127.0.0.1:%d", repoServer), "--repo-server-plaintext",
			"--redis="+redis)
		if err != nil {
			return err
		}
	}
	return nil
}

// startServer starts Argo CD's server, whose Redis is the principal.
func (s *stack) startServer() error {
	return s.startOwn(s.control, componentServer,
		"--address=127.0.0.1", fmt.Sprintf("--port=%d", s.ports[portServer]), "--insecure",
		"--metrics-address=127.0.0.1", fmt.Sprintf("--metrics-port=%d", s.ports[portServerMetrics]),
		"--application-namespaces=*",
		fmt.Sprintf("--repo-server=127.0.0.1:%d", s.ports[portOf(controlPlane, "repo-server")]), "--repo-server-plaintext",
		"--redis="+s.address(portRedisProxy))
}

func (s *stack) startPrincipal() error {
	return s.startTiphys(s.control, "principal",
		"--listen-host=127.0.0.1", fmt.Sprintf("--listen-port=%d", s.ports[portPrincipal]),
		"--metrics-port=0", "--healthz-port=0", // They would be open on all interfaces.
		"--allowed-namespaces=*", "--auth=mtls:subject:CN=([^,]+)",
		"--redis-server-address="+s.address(portOf(controlPlane, "redis")),
		fmt.Sprintf("--redis-proxy-port=%d", s.ports[portRedisProxy]),
		"--resource-proxy-address="+s.address(portResourceProxy),
		fmt.Sprintf("--resource-proxy-listen-port=%d", s.ports[portResourceProxy]))
}

func (s *stack) startAgents() error {
	for agent, workload := range s.workloads {
		err := s.startTiphys(workload, "agent", "--agent-mode="+agent, "--creds=mtls:any",
			"--server-address=127.0.0.1", fmt.Sprintf("--server-port=%d", s.ports[portPrincipal]),
			"--metrics-port=0", "--healthz-port=0",
			"--redis-addr="+s.address(portOf(agent, "redis")))
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *stack) address(port string) string { return fmt.Sprintf("127.0.0.1:%d", s.ports[port]) }

func (s *stack) startTiphys(c *cluster, command string, args ...string) error {
	args = append([]string{command, "--kubeconfig=" + c.kubeconfig, "--namespace=" + argoNamespace}, args...)
	return s.start(c, "tiphys-"+command, s.tiphys, args, nil)
}

func (s *stack) startRedis(c *cluster, address string) error {
	if s.redisServer == "" {
		return s.startOwn(c, componentRedis, address)
	}
	_, port, _ := strings.Cut(address, ":")
	return s.start(c, componentRedis, s.redisServer,
		[]string{"--bind", "127.0.0.1", "--port", port, "--requirepass", redisPassword, "--save", ""}, nil)
}

// startOwn starts this binary again, as a component of Argo CD or as Redis.
func (s *stack) startOwn(c *cluster, component string, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	data := filepath.Join(c.dir, component)
	var environment []string
	// Where Argo CD's images have folders of their own.
	for variable, folder := range map[string]string{
		"TMPDIR": "tmp", "ARGOCD_TLS_DATA_PATH": "tls", "ARGOCD_SSH_DATA_PATH": "ssh",
		"ARGOCD_APP_CONF_PATH": "config", "ARGOCD_PLUGINSOCKFILEPATH": "plugins",
	} {
		path := filepath.Join(data, folder)
		if err := os.MkdirAll(path, 0o700); err != nil {
			return err
		}
		environment = append(environment, variable+"="+path)
	}
	environment = append(environment,
		// The cluster called in-cluster is that of KUBECONFIG, as there is no pod whose service account could say.
		"ARGOCD_FAKE_IN_CLUSTER=true",
		"ARGOCD_GPG_ENABLED=false",
		// Relative to the folder in which it runs: a socket's path may have 107 bytes.
		"ARGOCD_ASK_PASS_SOCK=ask-pass.sock",
		"GIT_CONFIG_GLOBAL=/dev/null",
	)
	return s.start(c, component, self, append([]string{component}, args...), environment)
}

func (s *stack) start(c *cluster, name, program string, args, environment []string) error {
	environment = append(environment,
		"PATH="+os.Getenv("PATH"), "HOME="+c.dir, "KUBECONFIG="+c.kubeconfig, redisPasswordVariable+"="+redisPassword)
	p, err := start(c.dir, name, program, args, environment)
	if err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	s.processes = append(s.processes, p)
	go func() {
		<-p.ended
		s.fail(fmt.Errorf("%s: %w", c.name, p.failure()))
	}()
	return nil
}

// answers waits until a URL is answered with 200.
func (s *stack) answers(ctx context.Context, port, path string) error {
	return until(ctx, func() error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address(port)+path, nil)
		if err != nil {
			return err
		}
		response, body, err := exchange(request)
		if err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s: %s", request.URL, response.Status, shortened(body))
		}
		return nil
	})
}

// listens waits until a port accepts connections.
func (s *stack) listens(port string) func(context.Context) error {
	return func(ctx context.Context) error {
		return until(ctx, func() error {
			connection, err := new(net.Dialer).DialContext(ctx, "tcp", s.address(port))
			if err != nil {
				return err
			}
			return connection.Close()
		})
	}
}

// connected waits until Argo CD shows the clusters of all agents as connected.
func (s *stack) connected(ctx context.Context) error {
	return until(ctx, func() error {
		type shown struct {
			Name string
			Info struct {
				ConnectionState struct{ Status, Message string }
			}
		}
		var list struct{ Items []shown }
		if err := s.argo.call(ctx, http.MethodGet, "/api/v1/clusters", nil, nil, &list); err != nil {
			return err
		}
		for agent := range s.workloads {
			at := slices.IndexFunc(list.Items, func(c shown) bool { return c.Name == agent })
			if at < 0 {
				return fmt.Errorf("Argo CD does not list the cluster %s", agent)
			}
			if state := list.Items[at].Info.ConnectionState; state.Status != "Successful" {
				return fmt.Errorf("the cluster %s is %q: %s", agent, state.Status, state.Message)
			}
		}
		return nil
	})
}

func (s *stack) stop() error {
	s.fail(errStopped)
	for i := len(s.processes) - 1; i >= 0; i-- {
		s.processes[i].stop()
	}
	if s.git == nil {
		return nil
	}
	return s.git.close()
}
