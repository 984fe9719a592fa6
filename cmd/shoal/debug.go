// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal/api"
)

// debugTime bounds the making of a bundle, the doctor's minute included.
const debugTime = 2 * time.Minute

func (a *app) debugCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "debug", Short: "Make a report of a fault", Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.debugBundleCmd())
	return cmd
}

func (a *app) debugBundleCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "bundle", Short: "Collect what the asked peer knows in one archive", Args: a.noArgs,
		Long: `Write an archive (tar, gzip) with what a report of a fault needs: status, services,
replicas, peers, events, the doctor's findings, and of the daemon its settings, its
last log lines, its goroutines and its memory. Secrets are left out: values of the
environment and of what is called password, secret, token, key or the like are masked,
in the log too. What cannot be had is named in errors.txt; look the archive through
before you send it.`,
		Example: "  shoal debug bundle\n  shoal debug bundle -f - | tar tzf -",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, c, done, err := a.client(cmd, debugTime)
			if err != nil {
				return err
			}
			defer done()
			if _, err := c.Status(ctx); err != nil { // without a daemon there is nothing to collect
				return err
			}
			files := a.collect(ctx, c)
			if file == "-" {
				return a.bundle(a.out, "shoal-debug", files)
			}
			name := "shoal-debug-" + a.now().UTC().Format("20060102-150405")
			if file == "" {
				file = name + ".tar.gz"
			}
			if err := a.writeBundle(file, name, files); err != nil {
				return err
			}
			a.say("look it through before you send it")
			_, err = fmt.Fprintln(a.out, file)
			return err
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "where to write it; - is stdout (default shoal-debug-TIME.tar.gz)")
	return cmd
}

// writeBundle makes a new file: an old report is not written over.
func (a *app) writeBundle(path, name string, files map[string][]byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	err = a.bundle(f, name, files)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(path) // half a report is none
	}
	return err
}

// bundle writes files as a compressed archive below one directory.
func (a *app) bundle(w io.Writer, dir string, files map[string][]byte) error {
	zip := gzip.NewWriter(w)
	out := tar.NewWriter(zip)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		data := redact(files[name])
		head := &tar.Header{Name: dir + "/" + name, Mode: 0o600, Size: int64(len(data)), ModTime: a.now()}
		if err := out.WriteHeader(head); err != nil {
			return fmt.Errorf("write bundle: %w", err)
		}
		if _, err := out.Write(data); err != nil {
			return fmt.Errorf("write bundle: %w", err)
		}
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return zip.Close()
}

// collect asks for everything. What cannot be had is a line of errors.txt.
func (a *app) collect(ctx context.Context, c *api.Client) map[string][]byte {
	files := map[string][]byte{}
	var lost bytes.Buffer
	add := func(name string, value any, err error) {
		if err != nil {
			fmt.Fprintf(&lost, "%s: %s\n", name, clean(err.Error()))
			return
		}
		files[name] = asJSON(value)
	}
	t, err := a.whom()
	add("client.json", map[string]string{"version": version, "host": t.host}, err)
	st, err := c.Status(ctx)
	add("status.json", st, err)
	services, err := c.Services(ctx)
	add("services.json", services, err)
	replicas, err := c.Replicas(ctx)
	add("replicas.json", replicas, err)
	peers, err := c.Peers(ctx, true)
	add("peers.json", peers, err)
	for _, s := range services.Items {
		d, err := c.Service(ctx, s.Name, false)
		add("services/"+s.Name+".json", serviceJSON{d.Service, specOf(&d.Spec), d.Rows, d.Heads, lostOf(d.Lost), d.Verdicts}, err)
	}
	tokens, err := c.Tokens(ctx)
	add("tokens.json", tokens, err)
	var events []api.Event
	err = c.Events(ctx, -1, time.Time{}, false, func(e api.Event) error {
		events = append(events, e)
		return nil
	})
	add("events.json", events, err)
	var checks []api.Check
	err = c.Doctor(ctx, "", "", func(check api.Check) error {
		checks = append(checks, check)
		return nil
	})
	add("doctor.json", checks, err)
	daemon, err := c.Debug(ctx)
	maps.Copy(files, daemon)
	if err != nil {
		fmt.Fprintf(&lost, "daemon: %s\n", clean(err.Error()))
	}
	if lost.Len() > 0 {
		files["errors.txt"] = lost.Bytes()
	}
	return files
}

func asJSON(v any) []byte {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Appendf(nil, "not encoded: %v", err)
	}
	return append(raw, '\n')
}

// What a secret looks like in text: a word that names one and its value, a user and
// password in a URL, a token to join by.
var secrets = []*regexp.Regexp{
	regexp.MustCompile(`(?i)([a-z0-9_.-]*(?:passw(?:or)?d|passphrase|secret|token|credential|api[_-]?key|private[_-]?key|auth)[a-z0-9_.-]*["']?\s*[:=]\s*["']?)([^\s"',;&}\]]+)`),
	regexp.MustCompile(`([a-z][a-z0-9+.-]*://[^\s/:@"']+:)([^\s/@"']+)(@)`),
	regexp.MustCompile(`(shoal1-)([A-Za-z0-9_-]{16,})`),
}

// redact masks values that look like secrets, wherever they stand.
func redact(text []byte) []byte {
	for _, re := range secrets {
		text = re.ReplaceAll(text, []byte("${1}"+masked+"${3}"))
	}
	return text
}

// masked stands for what is left out.
const masked = "********"
