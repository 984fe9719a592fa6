// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"cuelabs.dev/go/oci/ociregistry/ociauth"
)

const (
	maxDockerConfig = 1 << 20  // of config.json
	maxHelper       = 64 << 10 // of what a credential helper prints
)

// keyring finds logins in docker's configuration. What it finds goes to the registry that
// it is for, and into no message.
type keyring struct {
	dir     string // "": there is none
	timeout time.Duration
}

// newKeyring returns the keyring of a directory; "" is .docker in the home of whom the
// daemon runs as.
func newKeyring(dir string, timeout time.Duration) *keyring {
	if dir == "" {
		if home, err := os.UserHomeDir(); err == nil {
			dir = filepath.Join(home, ".docker")
		}
	}
	return &keyring{dir: dir, timeout: timeout}
}

func (k *keyring) file() string { return filepath.Join(k.dir, "config.json") }

// version changes when docker login or logout wrote the configuration. It is never "".
func (k *keyring) version() string {
	info, err := os.Stat(k.file())
	if k.dir == "" || err != nil {
		return "none"
	}
	return fmt.Sprintf("%d/%d", info.ModTime().UnixNano(), info.Size())
}

// login returns the login for a registry, none if there is none. It may run a credential
// helper, for the keyring's timeout at most.
func (k *keyring) login(ctx context.Context, registry string) (ociauth.ConfigEntry, error) {
	info, err := os.Stat(k.file())
	switch {
	case k.dir == "" || errors.Is(err, os.ErrNotExist):
		return ociauth.ConfigEntry{}, nil
	case err != nil:
		return ociauth.ConfigEntry{}, errors.New("docker's configuration cannot be read")
	case info.Size() > maxDockerConfig:
		return ociauth.ConfigEntry{}, errors.New("docker's configuration is larger than 1 MiB")
	}
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	var failed error // of a helper: ours, while those of the library hold what it printed
	f, err := ociauth.LoadWithEnv(func(helper, server string) (ociauth.ConfigEntry, error) {
		entry, err := runHelper(ctx, helper, server)
		if err != nil && !errors.Is(err, ociauth.ErrHelperNotFound) {
			failed = err
		}
		return entry, err
	}, []string{"DOCKER_CONFIG=" + k.dir})
	if err != nil {
		return ociauth.ConfigEntry{}, errors.New("docker's configuration is none")
	}
	names := []string{registry}
	if registry == hub {
		names = []string{hubLogin, "index.docker.io", hub, hubHost}
	}
	for _, name := range names {
		entry, err := f.EntryForRegistry(name)
		switch {
		case failed != nil:
			return ociauth.ConfigEntry{}, failed
		case err != nil:
			return ociauth.ConfigEntry{}, errors.New("docker's configuration has no usable login for " + registry)
		case entry != (ociauth.ConfigEntry{}):
			return entry, nil
		}
	}
	return ociauth.ConfigEntry{}, nil
}

var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// runHelper asks a credential helper (docker-credential-NAME get: the server's name on its
// standard input, JSON on its output) for a login.
func runHelper(ctx context.Context, helper, server string) (ociauth.ConfigEntry, error) {
	var none ociauth.ConfigEntry
	if !helperName.MatchString(helper) {
		return none, fmt.Errorf("credential helper %q is no name of one", clip(helper))
	}
	cmd := exec.CommandContext(ctx, "docker-credential-"+helper, "get")
	cmd.Stdin = strings.NewReader(server)
	cmd.WaitDelay = time.Second
	out := &clipped{limit: maxHelper}
	cmd.Stdout = out
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return none, fmt.Errorf("%w: credential helper %s", ociauth.ErrHelperNotFound, helper)
	case err != nil && ctx.Err() != nil:
		return none, fmt.Errorf("credential helper %s does not answer", helper)
	case errors.As(err, &exit) && strings.TrimSpace(out.String()) == "credentials not found in native keychain":
		return none, nil
	case err != nil:
		return none, fmt.Errorf("credential helper %s fails: %w", helper, err)
	}
	var login struct{ Username, Secret string }
	if err := json.Unmarshal(out.Bytes(), &login); err != nil {
		return none, fmt.Errorf("credential helper %s answers other than JSON", helper)
	}
	if login.Username == "<token>" { // an identity token (docker/docker-credential-helpers, README)
		return ociauth.ConfigEntry{RefreshToken: login.Secret}, nil
	}
	return ociauth.ConfigEntry{Username: login.Username, Password: login.Secret}, nil
}

// clipped keeps the beginning of what is written.
type clipped struct {
	bytes.Buffer
	limit int
}

// Write implements [io.Writer].
func (c *clipped) Write(p []byte) (int, error) {
	c.Buffer.Write(p[:min(len(p), c.limit-c.Len())])
	return len(p), nil
}

// only is the configuration of one registry: what it redirects to gets no login, not even
// one of its own.
type only struct {
	host  string
	entry ociauth.ConfigEntry
}

// EntryForRegistry implements [ociauth.Config].
func (o only) EntryForRegistry(host string) (ociauth.ConfigEntry, error) {
	if host != o.host {
		return ociauth.ConfigEntry{}, nil
	}
	return o.entry, nil
}
