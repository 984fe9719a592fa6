// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// archived is an image as docker save writes one, of layers that nothing compresses.
type archived struct {
	name   string
	layers int
	size   int64 // bytes of the one file in each layer; a multiple of 512
}

// write makes the file and returns the image's ID.
func (a archived) write(path string) (id string, err error) {
	out, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := tar.NewWriter(out)
	var names, diffs []string
	for i := range a.layers {
		names = append(names, fmt.Sprintf("layer%d.tar", i))
		diff, err := a.layer(w, names[i])
		if err != nil {
			return "", err
		}
		diffs = append(diffs, diff)
	}
	config, err := json.Marshal(map[string]any{
		"os": "linux", "architecture": "amd64", "rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
	if err != nil {
		return "", err
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{a.name}, "Layers": names}})
	if err != nil {
		return "", err
	}
	if err := errors.Join(entry(w, "config.json", config), entry(w, "manifest.json", manifest)); err != nil {
		return "", err
	}
	return digestOf(config), w.Close()
}

// layer writes one layer, a tar of one file, as an entry, and returns its digest.
func (a archived) layer(w *tar.Writer, name string) (string, error) {
	const around = 512 + 1024 // a header before the file, two empty blocks behind it
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: a.size + around}); err != nil {
		return "", err
	}
	sum := sha256.New()
	layer := tar.NewWriter(io.MultiWriter(w, sum))
	if err := layer.WriteHeader(&tar.Header{Name: "noise", Mode: 0o644, Size: a.size}); err != nil {
		return "", err
	}
	if _, err := io.CopyN(layer, rand.Reader, a.size); err != nil {
		return "", err
	}
	err := layer.Close()
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), err
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
