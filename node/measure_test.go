// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/links"
	"github.com/shoalnet/shoal/node/metrics"
)

// A peer has metrics before it is a member, and as one whose images and ports are not its
// own business.
func TestMeasure(t *testing.T) {
	id, err := links.OpenIdentity("", nil)
	if err != nil {
		t.Fatal(err)
	}
	p, stop := runPeer(t, partsOn(id, t.TempDir()))
	text := func() string {
		t.Helper()
		raw, err := metrics.New(p.measure, slog.New(slog.DiscardHandler)).Text()
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	if got := text(); !strings.Contains(got, "shoal_self_info{cluster=\"\"") || strings.Contains(got, "shoal_store_") {
		t.Errorf("a stranger tells\n%s", got)
	}
	if _, err := p.Init(t.Context(), shoal.InitOptions{Name: "one"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := p.awaitStack(ctx); err != nil {
		t.Fatal(err)
	}
	got := text()
	for _, want := range []string{"\nshoal_peers{state=\"alive\"} 1\n", "\nshoal_store_agreeing_peers 1\n", ",peer=\"one\","} {
		if !strings.Contains(got, want) {
			t.Errorf("a member does not tell %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "shoal_images_") || strings.Contains(got, "shoal_ingress_") {
		t.Errorf("it tells of what it does not do:\n%s", got)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestListenMetrics(t *testing.T) {
	for at, isRight := range map[string]bool{
		"": true, "127.0.0.1:4711": true, "0.0.0.0:1": true, "[::1]:65535": true,
		"127.0.0.1": false, ":4711": false, "127.0.0.1:0": false, "127.0.0.1:65536": false, "localhost:4711": false, "off": false, "::1:4711x": false,
	} {
		err := (&Config{Metrics: at}).checkMetrics()
		if _, isInvalid := errors.AsType[*shoal.InvalidError](err); isRight != (err == nil) || isInvalid == isRight {
			t.Errorf("checkMetrics of %q = %v, want right: %v", at, err, isRight)
		}
	}
	if l, err := (&Config{}).listenMetrics(t.Context()); l != nil || err != nil {
		t.Errorf("without an address it listens at %v, %v", l, err)
	}
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	if _, err := (&Config{Metrics: taken.Addr().String()}).listenMetrics(t.Context()); err == nil || !strings.Contains(err.Error(), "metrics.listen: ") {
		t.Errorf("listen at a port that is taken = %v, want the setting named", err)
	}
}
