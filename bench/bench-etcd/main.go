// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Command bench-etcd runs etcd members in this process, offers them durable puts at a
// given rate and prints what each took, in seconds, as a JSON list. The bench starts
// it: etcd's and libp2p's messages cannot be linked into one program. It refuses to
// tune etcd; members have their defaults, but for quiet logs.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/shoalnet/shoal/bench/figures"
)

// valueBytes is about the size of one of our records of a deploy.
const valueBytes = 512

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-etcd:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	members := flag.Int("members", 1, "how many")
	rate := flag.Float64("rate", 20, "puts a second")
	n := flag.Int("n", 100, "puts")
	dir := flag.String("dir", "", "directory for the stores; must not exist; removed at the end")
	flag.Parse()
	if err := os.Mkdir(*dir, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(*dir)) }()
	endpoints, stop, err := start(ctx, *members, *dir)
	if err != nil {
		return err
	}
	defer stop()
	took, err := offer(ctx, endpoints, *rate, *n)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(took)
}

// start runs members and returns where they answer.
func start(ctx context.Context, members int, dir string) (endpoints []string, stop func(), err error) {
	var running []*embed.Etcd
	stop = func() {
		for _, e := range running {
			e.Close()
		}
	}
	configs, err := configure(members, dir)
	if err != nil {
		return nil, nil, err
	}
	for _, cfg := range configs {
		e, err := embed.StartEtcd(cfg)
		if err != nil {
			stop()
			return nil, nil, fmt.Errorf("start a member: %w", err)
		}
		running = append(running, e)
		endpoints = append(endpoints, cfg.ListenClientUrls[0].String())
	}
	for _, e := range running {
		select {
		case <-e.Server.ReadyNotify():
		case err := <-e.Err():
			stop()
			return nil, nil, fmt.Errorf("run a member: %w", err)
		case <-ctx.Done():
			stop()
			return nil, nil, ctx.Err()
		}
	}
	return endpoints, stop, nil
}

func configure(members int, dir string) ([]*embed.Config, error) {
	var all []*embed.Config
	var names []string
	for i := range members {
		cfg := embed.NewConfig()
		cfg.Name, cfg.Dir = fmt.Sprintf("e%d", i), filepath.Join(dir, fmt.Sprint(i))
		cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
		client, err := freeURL()
		if err != nil {
			return nil, err
		}
		peer, err := freeURL()
		if err != nil {
			return nil, err
		}
		cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
		cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		names = append(names, cfg.Name+"="+peer.String())
		all = append(all, cfg)
	}
	for _, cfg := range all {
		cfg.InitialCluster = strings.Join(names, ",")
	}
	return all, nil
}

// freeURL returns an address on loopback that nobody listens on now.
func freeURL() (url.URL, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		return url.URL{}, err
	}
	defer l.Close() //nolint:errcheck // it was only to find a port
	return url.URL{Scheme: "http", Host: l.Addr().String()}, nil
}

// offer puts, after a few puts that do not count, and returns what each took.
func offer(ctx context.Context, endpoints []string, rate float64, n int) ([]float64, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		return nil, err
	}
	defer client.Close() //nolint:errcheck // nothing is written by it
	value := make([]byte, valueBytes)
	for i := range value {
		value[i] = byte('a' + rand.IntN(26))
	}
	const warm = 20
	var mu sync.Mutex
	var took []float64
	err = figures.Pace(ctx, rate, warm+n, func(ctx context.Context, i int) error {
		from := time.Now()
		_, err := client.Put(ctx, fmt.Sprintf("/services/probe-%d", i%len(endpoints)), string(value))
		if i >= warm {
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(from).Seconds())
		}
		return err
	})
	return took, err
}
