// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	dockerimage "github.com/docker/docker/api/types/image"

	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/bench/figures"
)

const noteImages = "3 built daemons on one machine; an image of one layer that nothing compresses, 256 MiB (full: 1 GiB). It is imported at one, pulled to the second, then to the third " +
	"from both. Memory is the most that was seen every 50 ms while it was pulled to the second, over what that daemon took before the import. " +
	"Beside it: the same bytes by plain HTTP on loopback, written to the same disk and hashed. The engine pulls from its own peer's registry, and loads the same archive. " +
	"First byte: of 50 layers of 64 KiB, each asked for once at the registry of a peer that has nothing of it, then at that of the one that holds it, on a connection that stands."

// movedName is the image that is moved.
const movedName = "shoal-bench-moved:1"

// moving measures what it takes to move an image between peers and into the engine.
func (b *bench) moving(ctx context.Context) error {
	d, err := b.settled(ctx)
	if err != nil {
		return err
	}
	file := filepath.Join(b.dir, "moved.tar")
	id, err := archived{movedName, 1, b.moved}.write(file)
	if err != nil {
		return err
	}
	idle, err := d.usage()
	if err != nil {
		return err
	}
	from := time.Now()
	img, err := d.bring(ctx, file)
	if err != nil {
		return err
	}
	imported := time.Since(from)
	if err := d.known(ctx, img); err != nil {
		return err
	}
	m, err := d.carry(ctx, b.moved, idle)
	if err != nil {
		return err
	}
	plain, err := b.plainHTTP(ctx, file)
	if err != nil {
		return err
	}
	pulled, loaded, err := b.feeding(ctx, d.list[1], file, id)
	if err != nil {
		return err
	}
	speed := func(took time.Duration) float64 { return float64(b.moved) / took.Seconds() }
	row := func(what string, value float64, unit figures.Unit) figures.Row {
		return figures.NewRow("images", what, daemonCount, one(value), unit)
	}
	b.add(
		row("import of an archive, a second", speed(imported), figures.Bytes),
		row("peer to peer, a second", speed(m.two), figures.Bytes).Against("plain HTTP", figures.Of(speed(plain), figures.Bytes)),
		row("the third from two, a second", speed(m.third), figures.Bytes).Against("plain HTTP", figures.Of(speed(plain), figures.Bytes)),
		row("processor for a gigabyte, both ends", m.cpu, figures.Seconds).Aims("at most 3 s", m.cpu <= 3),
		row("memory that the receiver took for it", m.receiver, figures.Bytes).Aims("below 64 MB", m.receiver < 64e6),
		row("memory that the sender took for it", m.sender, figures.Bytes).Aims("below 64 MB", m.sender < 64e6),
		row("engine's pull from its own peer", pulled.Seconds(), figures.Seconds).Against("docker load", figures.Of(loaded.Seconds(), figures.Seconds)),
	)
	return b.firstBytes(ctx, d)
}

// bring imports an archive at the first daemon.
func (d *daemons) bring(ctx context.Context, file string) (api.Image, error) {
	in, err := os.Open(file)
	if err != nil {
		return api.Image{}, err
	}
	list, err := d.list[0].client.ImportImage(ctx, in, "", nil)
	if err == nil && len(list) != 1 {
		err = fmt.Errorf("%d images were imported, want one", len(list))
	}
	if err != nil {
		return api.Image{}, err
	}
	return list[0], nil
}

// known waits until all daemons know an image, and hear that somebody holds it.
func (d *daemons) known(ctx context.Context, img api.Image) error {
	return until(ctx, "all know the image", func() bool {
		for _, at := range d.list {
			list, err := at.client.Images(ctx)
			if err != nil || !slices.ContainsFunc(list.Items, func(i api.Image) bool { return i.Digest == img.Digest && i.Copies > 0 }) {
				return false
			}
		}
		return true
	})
}

// carried is what it took to move an image from peer to peer.
type carried struct {
	two, third       time.Duration // from one, then from both
	cpu              float64       // seconds for a gigabyte, of both
	sender, receiver float64       // bytes of memory more than when they were idle
}

// carry pulls the image from the first daemon to the second, then to the third.
func (d *daemons) carry(ctx context.Context, size int64, idle []usage) (m carried, err error) {
	before, err := d.usage()
	if err != nil {
		return m, err
	}
	from := time.Now()
	most, err := peaks([]int{d.list[0].cmd.Process.Pid, d.list[1].cmd.Process.Pid}, func() error {
		_, err := d.list[1].client.PullImage(ctx, movedName, nil)
		return err
	})
	if err != nil {
		return m, err
	}
	m.two = time.Since(from)
	after, err := d.usage()
	if err != nil {
		return m, err
	}
	m.cpu = (after[0].cpu - before[0].cpu + after[1].cpu - before[1].cpu) / (float64(size) / 1e9)
	m.sender, m.receiver = float64(most[0]-idle[0].rss), float64(most[1]-idle[1].rss)
	from = time.Now()
	_, err = d.list[2].client.PullImage(ctx, movedName, nil)
	m.third = time.Since(from)
	return m, err
}

// plainHTTP takes the time of the same file from a server on loopback to the same disk.
func (b *bench) plainHTTP(ctx context.Context, file string) (time.Duration, error) {
	address, stop, err := serve(ctx, http.FileServer(http.Dir(filepath.Dir(file))))
	if err != nil {
		return 0, err
	}
	defer stop()
	from := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+filepath.Base(file), nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	out, err := os.Create(file + ".copy")
	if err != nil {
		return 0, err
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(out, sum), resp.Body); err != nil {
		return 0, err
	}
	if err := out.Sync(); err != nil {
		return 0, err
	}
	return time.Since(from), out.Close()
}

// feeding takes the times of the engine's pull from a peer's registry, and of a load of the
// same archive.
func (b *bench) feeding(ctx context.Context, one *daemon, file, id string) (pulled, loaded time.Duration, err error) {
	login, err := one.client.RegistryLogin(ctx)
	if err != nil {
		return 0, 0, err
	}
	auth, err := json.Marshal(map[string]string{"username": login.User, "password": login.Password, "serveraddress": login.Address})
	if err != nil {
		return 0, 0, err
	}
	forget := func() error {
		_, err := b.engine.client.ImageRemove(ctx, id, dockerimage.RemoveOptions{Force: true})
		return err
	}
	from := time.Now()
	stream, err := b.engine.client.ImagePull(ctx, login.Address+"/"+movedName, dockerimage.PullOptions{RegistryAuth: base64.URLEncoding.EncodeToString(auth)})
	if err != nil {
		return 0, 0, err
	}
	said, err := io.ReadAll(stream)
	_ = stream.Close() // it was only read
	if err != nil {
		return 0, 0, err
	}
	pulled = time.Since(from)
	if err := forget(); err != nil {
		return 0, 0, fmt.Errorf("%w; the pull said %s", err, said)
	}
	in, err := os.Open(file)
	if err != nil {
		return 0, 0, err
	}
	defer in.Close() //nolint:errcheck // it was only read
	from = time.Now()
	answer, err := b.engine.client.ImageLoad(ctx, in)
	if err != nil {
		return 0, 0, err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	_ = answer.Body.Close() // it was only read
	if err != nil {
		return 0, 0, err
	}
	return pulled, time.Since(from), forget()
}
