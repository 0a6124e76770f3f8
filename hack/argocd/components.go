package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alicebob/miniredis/v2"
	controller "github.com/argoproj/argo-cd/v3/cmd/argocd-application-controller/commands"
	reposerver "github.com/argoproj/argo-cd/v3/cmd/argocd-repo-server/commands"
	server "github.com/argoproj/argo-cd/v3/cmd/argocd-server/commands"
	"github.com/spf13/cobra"
)

// The hidden commands by which the binary starts itself again.
const (
	componentServer     = "argocd-server"
	componentRepoServer = "argocd-repo-server"
	componentController = "argocd-application-controller"
	componentRedis      = "redis"
)

var components = map[string]func(args []string) (int, error){
	componentServer:     cobraCommand(server.NewCommand),
	componentRepoServer: cobraCommand(reposerver.NewCommand),
	componentController: cobraCommand(controller.NewCommand),
	componentRedis:      serveRedis,

	componentControllers: serveControllers,
}

func cobraCommand(create func() *cobra.Command) func(args []string) (int, error) {
	return func(args []string) (int, error) {
		command := create()
		command.SetArgs(args)
		command.SilenceUsage, command.SilenceErrors = true, true
		if err := command.Execute(); err != nil {
			return 1, err
		}
		return 0, nil
	}
}

// serveRedis serves an in-memory Redis at an address until a signal. The password is in REDIS_PASSWORD, as for
// those who connect.
func serveRedis(args []string) (int, error) {
	if len(args) != 1 {
		return 2, errors.New("redis: the address is missing")
	}
	redis := miniredis.NewMiniRedis()
	redis.RequireAuth(os.Getenv(redisPasswordVariable))
	if err := redis.StartAddr(args[0]); err != nil {
		return 1, fmt.Errorf("redis: %w", err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
	redis.Close()
	return 0, nil
}
