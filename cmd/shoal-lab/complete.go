// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal/lab"
	"github.com/shoalnet/shoal/lab/driver"
	"github.com/shoalnet/shoal/lab/topology"
)

// place is what can stand as one argument, after those that there are.
type place func(cmd *cobra.Command, args []string) ([]cobra.Completion, cobra.ShellCompDirective)

// completions says what completes the arguments and flags of each command.
func (a *app) completions(root *cobra.Command) {
	var acts []string
	for _, action := range actions {
		acts = append(acts, string(action))
	}
	hosts, act := a.hostsAnd(), among(acts...)
	frozen := a.hostsAnd("shoald", "dockerd", "containerd")
	places := map[string][]place{ // of the first argument, the second, ...; the last goes on
		"up": {among(topologies()...), among()}, "topology": {among(topologies()...), among()},
		"exec": {hosts, files}, "shoal": {hosts, files}, "docker": {hosts, files}, "logs": {a.hostsAnd("shoald", "dockerd", "init")},
		"link": {hosts, hosts, among()}, "split": {hosts, among()},
		"kill": {hosts}, "boot": {hosts}, "freeze": {frozen}, "thaw": {frozen}, "engine": {act, hosts}, "daemon": {act, hosts},
		"fill-disk": {hosts, among()}, "clock": {hosts, among()}, "load-image": {hosts, files},
	}
	flags := map[string]place{"name": labs, "output": among("table", "json"), "disk": among(disks...), "file": files, "dir": files, "image": files}
	for _, c := range append(root.Commands(), root) {
		if c != root {
			c.ValidArgsFunction = complete(places[c.Name()])
		}
		for name, p := range flags {
			if c.LocalFlags().Lookup(name) != nil {
				_ = c.RegisterFlagCompletionFunc(name, complete([]place{p})) // the flag is there
			}
		}
	}
}

// complete completes the next argument with what can stand at its place.
func complete(places []place) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(places) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return places[min(len(args), len(places)-1)](cmd, args)
	}
}

// files are the shell's to complete.
func files(*cobra.Command, []string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

// among is one of some words, or nothing.
func among(words ...string) place {
	return func(*cobra.Command, []string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

func topologies() []string {
	var out []string
	for _, r := range topology.ReadyNames() {
		out = append(out, cobra.CompletionWithDesc(r.Name, r.About))
	}
	return out
}

// labs are those of this machine.
func labs(*cobra.Command, []string) ([]cobra.Completion, cobra.ShellCompDirective) {
	all, _ := lab.List() // what cannot be listed is not offered
	var out []string
	for _, i := range all {
		out = append(out, i.Name)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// hostsAnd are the hosts and routers of the lab that are not named yet, and HOST/PROCESS.
func (a *app) hostsAnd(processes ...string) place {
	return func(cmd *cobra.Command, args []string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var all []driver.Host
		if a.ask(cmd.Context(), driver.Hosts, driver.Ask{}, &all) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []string
		for _, h := range all {
			if !slices.Contains(args, h.Name) {
				out = append(out, cobra.CompletionWithDesc(h.Name, h.State))
			}
			for _, p := range processes {
				if !h.Router && !slices.Contains(args, h.Name+"/"+p) {
					out = append(out, h.Name+"/"+p)
				}
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}
