// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	dockerimage "github.com/docker/docker/api/types/image"

	"github.com/shoalnet/shoal/bench/figures"
)

const noteImages = "3 built daemons on one machine; an image of one layer that nothing compresses. It is imported at one, pulled to the second, then to the third from both. " +
	"Beside it: the same bytes by plain HTTP on loopback, written to the same disk and hashed. The engine pulls from its own peer's registry, and loads the same archive."

// moveBytes is the size of the layer that is moved.
const moveBytes = 256 << 20

// movedName is the image that is moved.
const movedName = "shoal-bench-moved:1"

// moving measures what it takes to move an image between peers and into the engine.
func (b *bench) moving(ctx context.Context) error {
	d, err := b.settled(ctx)
	if err != nil {
		return err
	}
	file := filepath.Join(b.dir, "moved.tar")
	id, err := writeArchive(file)
	if err != nil {
		return err
	}
	speed := func(took time.Duration) float64 { return moveBytes / took.Seconds() }

	from := time.Now()
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	if _, err := d.list[0].client.ImportImage(ctx, in, "", nil); err != nil {
		return err
	}
	var imported figures.Series
	imported.Add(speed(time.Since(from)))

	if err := until(ctx, "all know the image", func() bool {
		for _, one := range d.list {
			if list, err := one.client.Images(ctx); err != nil || len(list.Items) == 0 {
				return false
			}
		}
		return true
	}); err != nil {
		return err
	}
	before, err := d.usage()
	if err != nil {
		return err
	}
	from = time.Now()
	if _, err := d.list[1].client.PullImage(ctx, movedName, nil); err != nil {
		return err
	}
	took := time.Since(from)
	after, err := d.usage()
	if err != nil {
		return err
	}
	var two, cpu, memory, three figures.Series
	two.Add(speed(took))
	cpu.Add((after[0].cpu - before[0].cpu + after[1].cpu - before[1].cpu) / (moveBytes / 1e9))
	memory.Add(float64(after[1].rss - before[1].rss))
	from = time.Now()
	if _, err := d.list[2].client.PullImage(ctx, movedName, nil); err != nil {
		return err
	}
	three.Add(speed(time.Since(from)))

	plain, err := b.plainHTTP(ctx, file)
	if err != nil {
		return err
	}
	pulled, loaded, err := b.feeding(ctx, d.list[1], file, id)
	if err != nil {
		return err
	}
	var feed figures.Series
	feed.AddTime(pulled)
	m := figures.NewRow("images", "memory that the receiver took for it", daemonCount, &memory, figures.Bytes)
	b.add(
		figures.NewRow("images", "import of an archive, a second", daemonCount, &imported, figures.Bytes),
		figures.NewRow("images", "peer to peer, a second", daemonCount, &two, figures.Bytes).Against("plain HTTP", figures.Of(speed(plain), figures.Bytes)),
		figures.NewRow("images", "the third from two, a second", daemonCount, &three, figures.Bytes).Against("plain HTTP", figures.Of(speed(plain), figures.Bytes)),
		figures.NewRow("images", "processor for a gigabyte, both ends", daemonCount, &cpu, figures.Seconds).Aims("at most 3 s", cpu.At(50) <= 3),
		m.Aims("below 64 MB", m.P99.Value < 64e6),
		figures.NewRow("images", "engine's pull from its own peer", daemonCount, &feed, figures.Seconds).Against("docker load", figures.Of(loaded.Seconds(), figures.Seconds)),
	)
	return nil
}

// writeArchive writes an image as docker save does, and returns its ID.
func writeArchive(path string) (string, error) {
	noise := make([]byte, moveBytes)
	_, _ = rand.Read(noise) // it never fails
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := entry(w, "noise", noise); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	config, err := json.Marshal(map[string]any{
		"os": "linux", "architecture": "amd64",
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digestOf(layer.Bytes())}},
	})
	if err != nil {
		return "", err
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{movedName}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return "", err
	}
	out, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer out.Close() //nolint:errcheck // an error of the writer is told below
	archive := tar.NewWriter(out)
	for _, f := range []struct {
		name string
		raw  []byte
	}{{"layer.tar", layer.Bytes()}, {"config.json", config}, {"manifest.json", manifest}} {
		if err := entry(archive, f.name, f.raw); err != nil {
			return "", err
		}
	}
	return digestOf(config), archive.Close()
}

func entry(w *tar.Writer, name string, raw []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(raw))}); err != nil {
		return err
	}
	_, err := w.Write(raw)
	return err
}

func digestOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// plainHTTP takes the time of the same file from a server on loopback to the same disk.
func (b *bench) plainHTTP(ctx context.Context, file string) (time.Duration, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	srv := &http.Server{Handler: http.FileServer(http.Dir(filepath.Dir(file))), ReadHeaderTimeout: time.Second}
	go func() { _ = srv.Serve(l) }() // it ends with Close
	defer srv.Close()                //nolint:errcheck // nothing is left to lose
	from := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.Addr().String()+"/"+filepath.Base(file), nil)
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
