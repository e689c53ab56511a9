package main

import (
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
)

const etcdStartTimeout = 60 * time.Second

type etcdOptions struct {
	name, dataDir, clientURL, peerURL, initialCluster string
	noFsync                                           bool
}

// newEtcdCommand gives a member of etcd with the few flags, named as etcd's own, that a test needs.
func newEtcdCommand() *cobra.Command {
	options := etcdOptions{}
	command := &cobra.Command{
		Use:          "etcd",
		Short:        "Run one etcd member",
		SilenceUsage: true,

		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return runEtcd(options) },
	}
	flags := command.Flags()
	flags.StringVar(&options.name, "name", "default", "name of this member")
	flags.StringVar(&options.dataDir, "data-dir", "default.etcd", "directory of the data")
	flags.StringVar(&options.clientURL, "listen-client-urls", "http://127.0.0.1:2379", "URL for clients")
	flags.StringVar(&options.peerURL, "listen-peer-urls", "http://127.0.0.1:2380", "URL for the other members")
	flags.StringVar(&options.initialCluster, "initial-cluster", "", "members as name=url,…; this member alone by default")
	flags.BoolVar(&options.noFsync, "unsafe-no-fsync", false, "never sync to disk: fast, and data may be lost in a power cut")
	// Accepted for likeness with etcd's command line: what is listened at is what is advertised.
	flags.String("advertise-client-urls", "", "ignored: the same as --listen-client-urls")
	flags.String("initial-advertise-peer-urls", "", "ignored: the same as --listen-peer-urls")
	return command
}

func runEtcd(options etcdOptions) error {
	config, err := etcdConfig(options)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	server, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer server.Close()
	select {
	case <-server.Server.ReadyNotify():
	case <-signals:
		return nil
	case <-time.After(etcdStartTimeout):
		return fmt.Errorf("etcd was not ready after %s", etcdStartTimeout)
	}
	select {
	case <-signals:
		return nil
	case err := <-server.Err():
		return err
	}
}

func etcdConfig(options etcdOptions) (*embed.Config, error) {
	client, err := url.Parse(options.clientURL)
	if err != nil {
		return nil, err
	}
	peer, err := url.Parse(options.peerURL)
	if err != nil {
		return nil, err
	}
	config := embed.NewConfig()
	config.Name = options.name
	config.Dir = options.dataDir
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	config.InitialCluster = options.initialCluster
	if config.InitialCluster == "" {
		config.InitialCluster = config.InitialClusterFromName(config.Name)
	}
	config.UnsafeNoFsync = options.noFsync
	config.LogLevel = "warn"
	return config, nil
}
