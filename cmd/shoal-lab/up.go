// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalnet/shoal/lab"
	"github.com/shoalnet/shoal/lab/driver"
	"github.com/shoalnet/shoal/lab/topology"
)

type upFlags struct {
	file, network, dir string
	bare               bool
	seed               uint64
	images, flags      []string
	link               topology.Change
}

func (a *app) upCmd() *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use: "up [TOPOLOGY] [N]", Short: "Make a lab and return when its cluster is up", Args: atMost(2),
		Long: `Make a lab of N hosts named h1, h2, ..., and return when they are one cluster. TOPOLOGY is
one of

` + readyList() + `
or, with -f, what a file says; "shoal-lab topology NAME" prints one to start from. --rtt and
its like say what is between any two hosts that the topology says nothing of.

The lab lives in a process of its own until "shoal-lab down". If it cannot be made, or is
interrupted, nothing is left behind.`,
		Example: "  shoal-lab up 5\n  shoal-lab up 3-regions 6\n  shoal-lab up 3 --rtt 50ms --loss 2%\n  shoal-lab up -f geo.yaml --image web.tar",
		RunE:    func(cmd *cobra.Command, args []string) error { return a.up(cmd, &f, args) },
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.file, "file", "f", "", "topology file")
	fl.StringVar(&f.network, "network", "", "range of private addresses, like 10.214.0.0/16")
	fl.StringVar(&f.dir, "dir", "", "where disks and logs go (default /var/lib/shoal-lab/NAME)")
	fl.BoolVar(&f.bare, "bare", false, "hosts with engines, but without shoald")
	fl.Uint64Var(&f.seed, "seed", 1, "of loss and jitter")
	fl.StringArrayVar(&f.images, "image", nil, "file of \"docker save\" that every engine has from the start (repeatable)")
	fl.StringArrayVar(&f.flags, "shoald-flag", nil, "one more flag of every shoald, like --log-level=debug (repeatable)")
	linkFlags(fl, &f.link)
	return cmd
}

// linkFlags are what a link can be told.
func linkFlags(fl *pflag.FlagSet, c *topology.Change) {
	fl.StringVar(&c.Delay, "delay", "", "one way, like 75ms")
	fl.StringVar(&c.RTT, "rtt", "", "both ways together, instead of --delay")
	fl.StringVar(&c.Jitter, "jitter", "", "added or taken away at random, like 5ms")
	fl.StringVar(&c.Loss, "loss", "", "share of packets lost, like 2%")
	fl.StringVar(&c.Rate, "rate", "", "bound, like 20mbit; 0: none")
}

func readyList() string {
	var out strings.Builder
	for _, r := range topology.ReadyNames() {
		fmt.Fprintf(&out, "  %-10s  %s (%d hosts)\n", r.Name, r.About, r.Hosts)
	}
	return out.String()
}

// ready reads [TOPOLOGY] [N].
func ready(args []string) (*topology.Topology, error) {
	name, n := "lan", 0
	for i, arg := range args {
		number, err := strconv.Atoi(arg)
		switch {
		case err == nil && i == len(args)-1:
			if n = number; n < 1 {
				return nil, usage("N must be 1-%d hosts, got %s", topology.MaxHosts, arg)
			}
		case i == 0:
			name = arg
		default:
			return nil, usage("N must be a number of hosts, got %q", arg)
		}
	}
	t, err := topology.Ready(name, n)
	if err != nil {
		return nil, usageError{err}
	}
	return t, nil
}

func (f *upFlags) topology(args []string) (*topology.Topology, error) {
	var t *topology.Topology
	var err error
	if f.file == "" {
		t, err = ready(args)
	} else {
		if len(args) > 0 {
			return nil, usage("both a file and %q; the file says how many hosts there are", args[0])
		}
		t, err = readTopology(f.file)
	}
	if err != nil {
		return nil, err
	}
	if f.network != "" {
		if t.Network, err = netip.ParsePrefix(f.network); err != nil {
			return nil, usage("--network must be like 10.214.0.0/16, got %q", f.network)
		}
	}
	if t.Default, err = f.link.Apply(t.Default); err != nil {
		return nil, usageError{err}
	}
	if err := t.Validate(); err != nil {
		return nil, usageError{err}
	}
	return t, nil
}

func readTopology(file string) (*topology.Topology, error) {
	st, err := os.Stat(file)
	if err == nil && st.Size() > topology.MaxBytes {
		return nil, usage("%s has %d bytes, at most %d are read", file, st.Size(), topology.MaxBytes)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		if at, ok := errors.AsType[*fs.PathError](err); ok {
			err = at.Err
		}
		return nil, usage("read %s: %w", file, err)
	}
	t, err := topology.Parse(file, data)
	if err != nil {
		return nil, usageError{err}
	}
	return t, nil
}

func (a *app) up(cmd *cobra.Command, f *upFlags, args []string) error {
	t, err := f.topology(args)
	if err != nil {
		return err
	}
	if err := lab.Privileged(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o := &driver.Order{
		Name: a.name, Topology: t.YAML(), Bare: f.bare, Flags: f.flags, Seed: f.seed, Init: []string{self, initCommand},
	}
	if f.dir != "" {
		if o.Dir, err = filepath.Abs(f.dir); err != nil {
			return err
		}
	}
	for _, image := range f.images {
		path, err := filepath.Abs(image)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			return usage("image %s: %w", image, err)
		}
		o.Images = append(o.Images, path)
	}
	from := time.Now()
	if err := driver.Spawn(cmd.Context(), []string{self, driveCommand}, o, func(line string) { a.say("%s", line) }); err != nil {
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted; nothing of the lab is left")
			if _, findErr := lab.Find(a.name); !errors.Is(findErr, fs.ErrNotExist) {
				err = fmt.Errorf("interrupted; remove what is left with shoal-lab down --name %s", a.name)
			}
		}
		return err
	}
	a.say("%s up in %.1f s", count(len(t.Hosts)), time.Since(from).Seconds())
	return a.ps(cmd.Context())
}

func count(hosts int) string {
	if hosts == 1 {
		return "1 host"
	}
	return fmt.Sprintf("%d hosts", hosts)
}

func (a *app) topologyCmd() *cobra.Command {
	return &cobra.Command{
		Use: "topology [NAME] [N]", Short: "Print a ready-made topology as a file, or list them", Args: atMost(2),
		Long:    "Print a ready-made topology as the file that \"shoal-lab up -f\" reads. Without a name, list them.",
		Example: "  shoal-lab topology\n  shoal-lab topology 3-regions 9 > geo.yaml",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				_, err := fmt.Fprint(a.out, readyList())
				return err
			}
			t, err := ready(args)
			if err != nil {
				return err
			}
			_, err = a.out.Write(t.YAML())
			return err
		},
	}
}

func (a *app) downCmd() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "down", Short: "End a lab and remove everything of it", Args: exactly(0),
		Long: `End all hosts of a lab and remove its disks, logs, control groups and processes, also if
its driver was killed. With --all, of every lab of this machine.`,
		Example: "  shoal-lab down\n  shoal-lab down --name other\n  shoal-lab down --all",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := lab.Privileged(); err != nil {
				return err
			}
			if !all {
				return a.down(cmd, a.name)
			}
			labs, err := lab.List()
			if len(labs) == 0 && err == nil {
				a.say("there is no lab")
			}
			for _, i := range labs {
				err = errors.Join(err, a.down(cmd, i.Name))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every lab of this machine")
	return cmd
}

func (a *app) down(cmd *cobra.Command, name string) error {
	info, err := lab.Find(name)
	if errors.Is(err, fs.ErrNotExist) {
		a.say("there is no lab %s", name)
		return nil
	}
	if err != nil {
		return err
	}
	if err := driver.Remove(cmd.Context(), name); err != nil {
		return fmt.Errorf("remove lab %s: %w", name, err)
	}
	if len(info.Hosts) == 0 {
		a.say("lab %s is gone", name)
		return nil
	}
	a.say("lab %s is gone: %s", name, count(len(info.Hosts)))
	return nil
}
