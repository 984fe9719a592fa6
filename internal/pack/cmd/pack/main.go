// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Pack builds a Go main package and packs it into a container image, and writes the
// image to a file, or loads it into this machine's engine, or both:
//
//	go run ./internal/pack/cmd/pack -ref hello:1 -o hello.tar -load ./examples/hello
//
// The binary is the image's entrypoint, under the name of its directory. It refuses
// to push anywhere.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoalnet/shoal/internal/pack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("pack", flag.ContinueOnError)
	ref := flags.String("ref", "", "name of the image: NAME:TAG")
	out := flags.String("o", "", "file to write")
	load := flags.Bool("load", false, "load it into the engine")
	host := flags.String("host", engineHost(), "the engine's socket (DOCKER_HOST)")
	version := flags.String("version", "", "HELLO_VERSION in the image")
	health := flags.Bool("health", false, `HEALTHCHECK CMD "BINARY check"`)
	ping := flags.Bool("ping", false, "only ask whether the engine answers")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *ping {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return pack.Ping(ctx, *host)
	}
	if flags.NArg() != 1 || *ref == "" || *out == "" && !*load {
		return errors.New("usage: pack -ref NAME:TAG [-o FILE] [-load] PACKAGE_DIR")
	}
	binary, err := pack.Build(ctx, flags.Arg(0))
	if err != nil {
		return err
	}
	opts := pack.Options{Path: "/" + filepath.Base(flags.Arg(0)), Expose: []string{"80/tcp"}}
	if *version != "" {
		opts.Env = map[string]string{"HELLO_VERSION": *version}
	}
	if *health {
		opts.Health = []string{"CMD", opts.Path, "check"}
	}
	img, err := pack.Image(binary, opts)
	if err != nil {
		return err
	}
	var tar bytes.Buffer
	if err := pack.Tar(&tar, *ref, img); err != nil {
		return err
	}
	if *out != "" {
		if err := os.WriteFile(*out, tar.Bytes(), 0o600); err != nil {
			return err
		}
	}
	if *load {
		if err := pack.Load(ctx, *host, &tar); err != nil {
			return err
		}
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	fmt.Printf("%s %s\n", *ref, digest)
	return nil
}

func engineHost() string {
	if h := os.Getenv("DOCKER_HOST"); strings.HasPrefix(h, "unix://") {
		return h
	}
	return "unix:///var/run/docker.sock"
}
