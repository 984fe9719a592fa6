// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal/lab"
	"github.com/shoalnet/shoal/lab/driver"
)

func (a *app) splitCmd() *cobra.Command {
	var oneWay bool
	cmd := &cobra.Command{
		Use: "split SIDES", Short: "Cut the links between groups of hosts", Args: exactly(1),
		Long: `Cut all links between the sides, which are names with | between them. Hosts on no side keep
their links. With --one-way, nothing gets from the first side to the others, but back it
does. Splits add up until "shoal-lab heal".`,
		Example: "  shoal-lab split \"h1 h2 | h3 h4 h5\"\n  shoal-lab split \"h1 | h2\" --one-way",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), driver.Split, driver.Ask{Sides: args[0], OneWay: oneWay}, nil)
		},
	}
	cmd.Flags().BoolVar(&oneWay, "one-way", false, "only from the first side to the others")
	return cmd
}

func (a *app) healCmd() *cobra.Command {
	return &cobra.Command{
		Use: "heal", Short: "Make all links what the topology says", Args: exactly(0),
		Long:    "End all splits, and take back what \"shoal-lab link\" has changed.",
		Example: "  shoal-lab heal",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd.Context(), driver.Heal, driver.Ask{}, nil)
		},
	}
}

// each does the same to every host named, and goes on when it fails for one.
func (a *app) each(v driver.Verb, about string) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		var all []error
		for _, h := range args {
			err := a.ask(cmd.Context(), v, driver.Ask{Host: h}, nil)
			if err == nil {
				a.say("%s %s", h, about)
			}
			all = append(all, err)
		}
		return errors.Join(all...)
	}
}

func (a *app) killCmd() *cobra.Command {
	return &cobra.Command{
		Use: "kill HOST...", Short: "Cut the power of hosts", Args: atLeast(1),
		Long:    "End hosts at once, with all their containers. Their disks keep what was synced.",
		Example: "  shoal-lab kill h2\n  shoal-lab boot h2", RunE: a.each(driver.Kill, "has no power"),
	}
}

func (a *app) bootCmd() *cobra.Command {
	return &cobra.Command{
		Use: "boot HOST...", Short: "Boot hosts that have no power", Args: atLeast(1),
		Long:    "Boot hosts with the disks they had, and return when their engines and daemons answer.",
		Example: "  shoal-lab boot h2", RunE: a.each(driver.Boot, "is up"),
	}
}

func (a *app) freezeCmd() *cobra.Command {
	return &cobra.Command{
		Use: "freeze HOST[/PROCESS]...", Short: "Stop hosts, or one process, where they stand", Args: atLeast(1),
		Long:    "Stop all of a host where it stands, or one process of it: dockerd, containerd, shoald.",
		Example: "  shoal-lab freeze h2\n  shoal-lab freeze h2/shoald\n  shoal-lab thaw h2 h2/shoald", RunE: a.each(driver.Freeze, "is frozen"),
	}
}

func (a *app) thawCmd() *cobra.Command {
	return &cobra.Command{
		Use: "thaw HOST[/PROCESS]...", Short: "Let what is frozen go on", Args: atLeast(1),
		Long:    "Let hosts or processes that were frozen go on.",
		Example: "  shoal-lab thaw h2", RunE: a.each(driver.Thaw, "goes on"),
	}
}

// actions are what "engine" and "daemon" can do.
var actions = []lab.Action{lab.Stop, lab.Crash, lab.Hang, lab.Launch}

func (a *app) processCmd(name string, v driver.Verb, what string) *cobra.Command {
	return &cobra.Command{
		Use: name + " stop|crash|hang|start HOST...", Short: "Stop, crash, hang or start the " + what + " of hosts", Args: atLeast(2),
		Long: "Stop the " + what + " of hosts in order, crash it (SIGKILL), let it hang (SIGSTOP), or start it\n" +
			"again after any of these.",
		Example: "  shoal-lab " + name + " hang h2\n  shoal-lab " + name + " start h2",
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, action := range actions {
				if args[0] != string(action) {
					continue
				}
				var all []error
				for _, h := range args[1:] {
					all = append(all, a.ask(cmd.Context(), v, driver.Ask{Host: h, Action: action}, nil))
				}
				return errors.Join(all...)
			}
			return usage("%s takes stop, crash, hang or start, got %q", name, args[0])
		},
	}
}

// disks are those that hosts have.
var disks = []string{"state", "engine"}

func (a *app) fillDiskCmd() *cobra.Command {
	var ask driver.Ask
	cmd := &cobra.Command{
		Use: "fill-disk HOST", Short: "Take all free room of a host's disk", Args: exactly(1),
		Long:    "Take all free room of the disk of a host's shoald (state) or engine, or give it back.",
		Example: "  shoal-lab fill-disk h2\n  shoal-lab fill-disk h2 --disk engine\n  shoal-lab fill-disk h2 --free",
		RunE: func(cmd *cobra.Command, args []string) error {
			ask.Host = args[0]
			return a.ask(cmd.Context(), driver.FillDisk, ask, nil)
		},
	}
	cmd.Flags().StringVar(&ask.Disk, "disk", disks[0], strings.Join(disks, " or "))
	cmd.Flags().BoolVar(&ask.Free, "free", false, "give back what was taken")
	return cmd
}

func (a *app) clockCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "clock HOST OFFSET", Short: "Set the clock of a host's shoald wrong", Args: exactly(2),
		Long: `Set the civil clock that the shoald of a host reads ahead or behind. It stays so until it
is 0s again. Containers and the engine have this machine's clock.`,
		Example: "  shoal-lab clock h2 +90s\n  shoal-lab clock h2 -2m\n  shoal-lab clock h2 0s",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), driver.Clock, driver.Ask{Host: args[0], Offset: args[1]}, nil)
		},
	}
	cmd.Flags().SetInterspersed(false) // -2m is no flag
	return cmd
}

func (a *app) loadImageCmd() *cobra.Command {
	return &cobra.Command{
		Use: "load-image HOST[,HOST...]|all FILE", Short: "Give an image to the engines of hosts", Args: exactly(2),
		Long: `Give an image, a file as "docker save" writes it, to the engines of hosts; "shoal-lab up
--image" has it from the start.`,
		Example: "  docker save web:1 > web.tar\n  shoal-lab load-image all web.tar\n  shoal-lab load-image h1,h2 web.tar",
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := filepath.Abs(args[1])
			if err != nil {
				return err
			}
			hosts := strings.Split(args[0], ",")
			if args[0] == "all" {
				if hosts, err = a.upHosts(cmd); err != nil {
					return err
				}
			}
			var all []error
			for _, h := range hosts {
				err := a.ask(cmd.Context(), driver.LoadImage, driver.Ask{Host: h, File: file}, nil)
				if err == nil {
					a.say("%s has it", h)
				}
				all = append(all, err)
			}
			return errors.Join(all...)
		},
	}
}

// upHosts are the hosts that run.
func (a *app) upHosts(cmd *cobra.Command) ([]string, error) {
	var hosts []driver.Host
	err := a.ask(cmd.Context(), driver.Hosts, driver.Ask{}, &hosts)
	var out []string
	for _, h := range hosts {
		if !h.Router && h.State == "up" {
			out = append(out, h.Name)
		}
	}
	return out, err
}
