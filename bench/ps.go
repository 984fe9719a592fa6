// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/bench/figures"
)

const notePs = "3 whole peers in one process hold 1,000 replicas, 50 each of 20 services, on in-memory engines, all ready; " +
	"one peer is asked for all of them. The call is ListReplicas over the control socket, decoded; the command is a whole run of bin/shoal ps."

// listings measures what a listing of 1,000 replicas takes.
func (b *bench) listings(ctx context.Context) (err error) {
	const peers, services, each = 3, 20, 50
	in, err := b.startInside(ctx, "ps", peers)
	if err != nil {
		return err
	}
	defer func() {
		if closing := in.close(); err == nil {
			err = closing
		}
	}()
	var specs []shoal.Spec
	for i := range services {
		specs = append(specs, service(fmt.Sprintf("service-%02d", i), each))
	}
	asked := in.members[0]
	if _, err := asked.client.Deploy(ctx, shoal.DeployWish{Specs: specs}, api.WishOptions{}); err != nil {
		return err
	}
	if err := until(ctx, "1,000 replicas are ready", func() bool {
		v, ok := asked.view()
		return ok && readyIn(v) == services*each
	}); err != nil {
		return err
	}
	if err := sleep(ctx, 2*time.Second); err != nil { // the last beats and lists
		return err
	}
	var call, command figures.Series
	for range b.lists {
		from := time.Now()
		list, err := asked.client.Replicas(ctx)
		call.AddTime(time.Since(from))
		if err != nil {
			return err
		}
		if n := len(list.Items); n != services*each {
			return fmt.Errorf("ListReplicas lists %d replicas, want %d", n, services*each)
		}
	}
	for range b.shows {
		from := time.Now()
		if _, err := output(ctx, "bin/shoal", "-H", "unix://"+asked.socket, "ps"); err != nil {
			return err
		}
		command.AddTime(time.Since(from))
	}
	b.add(
		figures.NewRow("ps", "ListReplicas, 1,000 replicas (in-memory engines)", peers, &call, figures.Seconds),
		figures.NewRow("ps", "shoal ps, 1,000 replicas (in-memory engines)", peers, &command, figures.Seconds),
	)
	return nil
}

// readyIn counts the replicas that a view shows ready.
func readyIn(v *shoal.View) int {
	n := 0
	for _, c := range v.Desired().Claims {
		if st, ok := v.Replica(c.Replica); ok && st.Phase == shoal.PhaseReady {
			n++
		}
	}
	return n
}

var errNotBuilt = errors.New("is not there; run make bench at the root of the repository")
