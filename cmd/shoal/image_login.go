// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

func (a *app) imageLoginCmd() *cobra.Command {
	var passwordOnly bool
	cmd := &cobra.Command{
		Use: "login", Short: "Let docker on this machine push to its peer's registry", Args: a.noArgs,
		Long: `Every peer is a registry for its own machine. Say at which address and for which user, and
log docker in there, for whoever runs this command: then "docker push ADDRESS/NAME:TAG"
takes an image into the cluster. The password is for this machine alone; docker keeps it
where it keeps passwords. With --print only the password is written, for scripts.`,
		Example: `  shoal image login && docker push 127.0.0.1:5050/app:v1
  shoal image login --print | podman login --username shoal --password-stdin 127.0.0.1:5050`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.login(cmd, passwordOnly) },
	}
	cmd.Flags().BoolVar(&passwordOnly, "print", false, "only write the password")
	return cmd
}

func (a *app) login(cmd *cobra.Command, passwordOnly bool) error {
	ctx, c, done, err := a.client(cmd, unaryTime)
	if err != nil {
		return err
	}
	defer done()
	l, err := c.RegistryLogin(ctx)
	if err != nil {
		return err
	}
	switch {
	case l.Address == "":
		return &coded{code: exitRefused, name: api.CodeRefused, err: errors.New("this peer serves no registry; its shoald's configuration says where it would")}
	case passwordOnly && l.User == "":
		return &coded{code: exitRefused, name: api.CodeRefused, err: fmt.Errorf("the registry at %s takes no password: whoever is on that machine may push", l.Address)}
	case passwordOnly:
		_, err := fmt.Fprintln(a.out, l.Password)
		return err
	}
	if l.User == "" {
		_, err := fmt.Fprintf(a.out, "address  %s\nuser     whoever is on that machine\n", l.Address)
		return err
	}
	if _, err := fmt.Fprintf(a.out, "address  %s\nuser     %s\n", l.Address, l.User); err != nil {
		return err
	}
	return a.dockerLogin(cmd, l)
}

// dockerLogin logs the user's docker in, if there is one here and the registry is here.
func (a *app) dockerLogin(cmd *cobra.Command, l shoal.RegistryLogin) error {
	by := fmt.Sprintf("shoal image login --print | docker login --username %s --password-stdin %s", l.User, l.Address)
	at, err := a.whom()
	if err != nil {
		return err
	}
	if strings.HasPrefix(at.host, sshScheme) {
		a.say("the registry is for the other machine; there: %s", clean(by))
		return nil
	}
	docker, err := exec.LookPath("docker")
	if err != nil {
		a.say("there is no docker on the PATH; where there is: %s", clean(by))
		return nil
	}
	run := exec.CommandContext(cmd.Context(), docker, "login", "--username", l.User, "--password-stdin", l.Address)
	run.Stdin, run.Stdout, run.Stderr = strings.NewReader(l.Password), io.Discard, a.err
	if err := run.Run(); err != nil {
		return fmt.Errorf("docker login %s: %w", l.Address, err)
	}
	a.say("docker is logged in: docker push %s/NAME:TAG", clean(l.Address))
	return nil
}
