// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"time"

	"github.com/shoalnet/shoal/bench/figures"
)

// What first bytes are taken of.
const (
	smallName  = "shoal-bench-small"
	smallBlobs = 50
	smallBytes = 64 << 10
)

// firstBytes takes the time from asking a registry for a blob to its first byte: at a peer
// that has nothing of it, then at the one that holds it, which is plain HTTP.
func (b *bench) firstBytes(ctx context.Context, d *daemons) error {
	file := filepath.Join(b.dir, "small.tar")
	if _, err := (archived{smallName + ":1", smallBlobs, smallBytes}).write(file); err != nil {
		return err
	}
	img, err := d.bring(ctx, file)
	if err != nil {
		return err
	}
	if err := d.known(ctx, img); err != nil {
		return err
	}
	all, err := d.list[0].client.Image(ctx, img.Name)
	if err != nil {
		return err
	}
	var elsewhere, holder figures.Series
	for i := range all.Blobs {
		if all.Blobs[i].Kind != "layer" {
			continue
		}
		for _, at := range []struct {
			*daemon
			took *figures.Series
		}{{d.list[1], &elsewhere}, {d.list[0], &holder}} {
			took, err := at.firstByte(ctx, all.Blobs[i].Digest)
			if err != nil {
				return err
			}
			at.took.AddTime(took)
		}
	}
	b.add(
		figures.NewRow("images", "first byte of a blob that another peer holds", daemonCount, &elsewhere, figures.Seconds).
			Against("at its holder", figures.Of(holder.At(50), figures.Seconds)),
		figures.NewRow("images", "first byte of it at its holder", daemonCount, &holder, figures.Seconds),
	)
	return nil
}

// firstByte asks this peer's registry for a layer.
func (one *daemon) firstByte(ctx context.Context, digest string) (time.Duration, error) {
	login, err := one.client.RegistryLogin(ctx)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+login.Address+"/v2/"+smallName+"/blobs/"+digest, nil)
	if err != nil {
		return 0, err
	}
	req.SetBasicAuth(login.User, login.Password)
	from := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	_, err = io.ReadFull(resp.Body, make([]byte, 1))
	took := time.Since(from)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET of blob %s: %s", digest, resp.Status)
	}
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body) // so that the connection stays
	return took, err
}
