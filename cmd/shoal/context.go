// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal/api"
)

func (a *app) contextCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "context", Short: "Name the daemons you talk to, and choose one", Args: noSuchCommand,
		Long: `A context is a name for a host: the socket of a daemon, here or behind ssh. Every
command asks, in this order: --host, --context, SHOAL_HOST, SHOAL_CONTEXT, the current
context. The context "default" is built in: the daemon of this machine. Contexts are in
shoal/contexts.yaml below your settings ($XDG_CONFIG_HOME); they hold no secret.`,
		Example: "  shoal context create osaka --host ssh://me@osaka\n  shoal context use osaka\n  shoal -c default ps",
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.contextLsCmd(), a.contextUseCmd(), a.contextShowCmd(), a.contextCreateCmd(), a.contextRmCmd())
	return cmd
}

// contextJSON is a context of a listing.
type contextJSON struct {
	contextEntry
	Current bool `json:"current"`
}

func (a *app) contextLsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Short: "List the contexts", Args: a.noArgs,
		Long:    `List the contexts. * marks the one in force, unless a host is named instead.`,
		Example: "  shoal context ls\n  shoal context ls -o json",
		RunE: func(*cobra.Command, []string) error {
			all, err := a.contexts()
			if err != nil {
				return err
			}
			t, err := a.whom()
			if err != nil {
				return err
			}
			items := make([]contextJSON, len(all.list()))
			for i, c := range all.list() {
				items[i] = contextJSON{c, c.Name == t.context}
			}
			a.overridden(t)
			return show(a, a.out, items, table[contextJSON]{
				name: func(c contextJSON) string { return c.Name },
				columns: []column[contextJSON]{
					{head: "NAME", cell: func(c contextJSON) string {
						if c.Current {
							return c.Name + " *"
						}
						return c.Name
					}},
					{head: "HOST", cell: func(c contextJSON) string { return c.Host }},
					{head: "DESCRIPTION", cell: func(c contextJSON) string { return c.Description }},
				},
			})
		},
	}
	cmd.Flags().BoolVarP(&a.quiet, "quiet", "q", false, "only names")
	return cmd
}

// overridden warns where the current context is not what is asked.
func (a *app) overridden(t whom) {
	if t.context == "" {
		a.say("warning: %s is in force, and no context: %s", t.from, clean(t.host))
	}
}

func (a *app) contextUseCmd() *cobra.Command {
	return &cobra.Command{
		Use: "use CONTEXT", Short: "Make a context the current one", Args: someArgs(1),
		Long:    `Make a context the current one: what every command asks that is not told otherwise.`,
		Example: "  shoal context use osaka\n  shoal context use default",
		RunE: func(_ *cobra.Command, args []string) error {
			if err := a.changeContexts(func(f *contextFile) error {
				_, err := f.find(args[0])
				f.current = args[0]
				return err
			}); err != nil {
				return err
			}
			t, err := a.whom()
			if err == nil && t.context != args[0] {
				a.say("warning: %s is set and in force instead; unset it", t.from)
			}
			_, err = fmt.Fprintln(a.out, args[0])
			return err
		},
	}
}

func (a *app) contextShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show which context is in force", Args: a.noArgs,
		Long:    `Show the name of the context that commands use; with -o json its host too.`,
		Example: "  shoal context show\n  shoal context show -o json",
		RunE: func(*cobra.Command, []string) error {
			t, err := a.whom()
			if err != nil {
				return err
			}
			a.overridden(t)
			if t.context == "" {
				if t, err = a.named("", ""); err != nil {
					return err
				}
			}
			if a.forPeople() || a.output == "name" {
				_, err := fmt.Fprintln(a.out, t.context)
				return err
			}
			all, err := a.contexts()
			if err != nil {
				return err
			}
			c, err := all.find(t.context)
			if err != nil {
				return err
			}
			return a.encode(a.out, c)
		},
	}
}

func (a *app) contextCreateCmd() *cobra.Command {
	var description string
	var use bool
	cmd := &cobra.Command{
		Use: "create NAME --host HOST", Short: "Name a host", Args: someArgs(1),
		Long: `Name a host: unix:///PATH, or ssh://[USER@]HOST[:PORT][/SOCKET]. Nothing is connected
yet. One that is there already and says the same is left as it is.`,
		Example: "  shoal context create osaka --host ssh://me@osaka\n  shoal context create lab --host unix:///run/lab.sock --description 'the lab' --use",
		RunE: func(_ *cobra.Command, args []string) error {
			c := contextEntry{Name: args[0], Host: a.host, Description: description}
			if err := checkContext(c.Name); err != nil {
				return err
			}
			if c.Host == "" {
				return usage("context create needs --host")
			}
			client, err := a.dial(c.Host)
			if err != nil {
				return err
			}
			client.Close() // it was only to check the host
			if err := a.changeContexts(func(f *contextFile) error { return f.add(c, use) }); err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.out, c.Name)
			return err
		},
	}
	cmd.Flags().StringVar(&description, "description", "", "what it is, for people")
	cmd.Flags().BoolVar(&use, "use", false, "make it the current one too")
	return cmd
}

func (f *contextFile) add(c contextEntry, use bool) error {
	if use {
		f.current = c.Name
	}
	at, there := slices.BinarySearchFunc(f.entries, c, func(x, y contextEntry) int { return strings.Compare(x.Name, y.Name) })
	switch {
	case !there:
		f.entries = slices.Insert(f.entries, at, c)
	case f.entries[at] != c:
		return &api.Error{
			Code: api.CodeConflict, What: fmt.Sprintf("context %q is there already and says %s", c.Name, f.entries[at].Host),
			Todo: "remove it first with shoal context rm " + c.Name,
		}
	}
	return nil
}

func (a *app) contextRmCmd() *cobra.Command {
	var force, ignore bool
	cmd := &cobra.Command{
		Use: "rm CONTEXT...", Short: "Remove contexts", Args: someArgs(0), ValidArgsFunction: a.ownContexts,
		Long: `Remove contexts, all or none. The current one is removed only with --force; then
"default" is current.`,
		Example: "  shoal context rm osaka\n  shoal context rm --force osaka",
		RunE: func(_ *cobra.Command, args []string) error {
			return a.changeContexts(func(f *contextFile) error {
				for _, name := range args {
					if err := f.remove(name, force); err != nil {
						if e, ok := errors.AsType[*api.Error](err); ok && ignore && e.Code == api.CodeNotFound {
							continue
						}
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also the current one")
	cmd.Flags().BoolVar(&ignore, "ignore-not-found", false, "a context that does not exist is no error")
	return cmd
}

func (f *contextFile) remove(name string, force bool) error {
	if _, err := f.find(name); err != nil {
		return err
	}
	switch {
	case name == defaultContext:
		return &api.Error{Code: api.CodeRefused, What: `context "default" is built in and stays`}
	case name == f.current && !force:
		return &api.Error{
			Code: api.CodeRefused, What: fmt.Sprintf("context %q is the current one", name),
			Todo: "use another first (shoal context use default), or say --force",
		}
	case name == f.current:
		f.current = defaultContext
	}
	f.entries = slices.DeleteFunc(f.entries, func(c contextEntry) bool { return c.Name == name })
	return nil
}
