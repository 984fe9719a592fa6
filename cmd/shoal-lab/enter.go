// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal/lab/driver"
)

func (a *app) execCmd() *cobra.Command {
	return a.reachCmd(driver.Exec, &cobra.Command{
		Use: "exec HOST [COMMAND [ARG...]]", Short: "Run a command on a host, or a shell", Args: atLeast(1),
		Long: `Run a command as root in all namespaces of a host or router; without one, a shell. There,
"shoal" and "docker" reach the host's own. The files are this machine's, but for /run,
/proc and the host's disks.`,
		Example: "  shoal-lab exec h1\n  shoal-lab exec h1 ip addr\n  shoal-lab exec h1 ping -c 3 h2",
	})
}

func (a *app) shoalCmd() *cobra.Command {
	return a.reachCmd(driver.Shoal, &cobra.Command{
		Use: "shoal HOST ARG...", Short: "Ask the daemon of a host with the shoal command", Args: atLeast(2),
		Long:    "Run the shoal command here, against the daemon of a host: files that it names are this machine's.",
		Example: "  shoal-lab shoal h1 peer ls\n  shoal-lab shoal h2 deploy -f compose.yaml -y",
	})
}

func (a *app) dockerCmd() *cobra.Command {
	return a.reachCmd(driver.Docker, &cobra.Command{
		Use: "docker HOST ARG...", Short: "Ask the engine of a host with the docker command", Args: atLeast(2),
		Long:    "Run the docker command here, against the engine of a host: files that it names are this machine's.",
		Example: "  shoal-lab docker h1 ps\n  shoal-lab docker h3 logs -f CONTAINER",
	})
}

// reachCmd makes this process the program that reaches a host: its terminal, signals and
// exit code are that program's.
func (a *app) reachCmd(how driver.Verb, cmd *cobra.Command) *cobra.Command {
	cmd.Flags().SetInterspersed(false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 && args[1] == "--" { // as people type it before a command
			args = append(args[:1:1], args[2:]...)
		}
		var c driver.Command
		if err := a.ask(cmd.Context(), how, driver.Ask{Host: args[0], Args: args[1:]}, &c); err != nil {
			return err
		}
		env := os.Environ()
		if c.Env != nil {
			env = append(c.Env, "TERM="+os.Getenv("TERM"))
		}
		return become(c.Args, env)
	}
	return cmd
}

// become replaces this process.
func become(args, env []string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", args[0], syscall.Exec(path, args, env)) // it returns only if it fails
}

func (a *app) logsCmd() *cobra.Command {
	var follow bool
	var tail int
	cmd := &cobra.Command{
		Use: "logs [HOST[/PROCESS]]...", Short: "Show what shoald, the engine and a host's first process say", Args: atLeast(0),
		Long: `Show the logs of shoald on all hosts or some. PROCESS is shoald, dockerd or init, whose log
tells how processes of the host ended; the one of "driver" is the lab's own.`,
		Example: "  shoal-lab logs -f\n  shoal-lab logs h1 h2\n  shoal-lab logs h2/dockerd --tail 50\n  shoal-lab logs driver",
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := a.logFiles(cmd, args)
			if err != nil {
				return err
			}
			program := []string{"tail", "--lines", strconv.Itoa(max(tail, 0))}
			if tail < 0 {
				program[2] = "+1"
			}
			if follow {
				program = append(program, "--follow=name", "--retry")
			}
			return become(append(program, files...), os.Environ())
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until interrupted")
	cmd.Flags().IntVarP(&tail, "tail", "n", -1, "only the last lines of each; negative: all")
	return cmd
}

func (a *app) logFiles(cmd *cobra.Command, args []string) ([]string, error) {
	var hosts []driver.Host
	if err := a.ask(cmd.Context(), driver.Hosts, driver.Ask{}, &hosts); err != nil {
		return nil, err
	}
	dirs := map[string]string{}
	var names, files []string
	for _, h := range hosts {
		dirs[h.Name] = h.Dir
		names = append(names, h.Name)
		if len(args) == 0 && !h.Router {
			args = append(args, h.Name)
		}
	}
	if len(args) == 0 {
		return nil, usage("name a host; there are %s", strings.Join(names, ", "))
	}
	for _, arg := range args {
		name, process, isNamed := strings.Cut(arg, "/")
		if !isNamed {
			process = "shoald"
		}
		if arg == driverLog {
			files = append(files, driver.LogFile(a.name))
			continue
		}
		if dirs[name] == "" {
			return nil, usage("no host is called %q; the lab has %s", name, strings.Join(names, ", "))
		}
		file, err := logFile(dirs[name], process)
		if err != nil {
			return nil, usage("%s has no log %q; %w", name, process, err)
		}
		files = append(files, file)
	}
	return files, nil
}

// driverLog is the name of what is no host and has a log.
const driverLog = "driver"

// logFile is the log of a process in a host's directory; an error says which there are.
func logFile(dir, process string) (string, error) {
	all, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return "", err
	}
	var there []string
	for _, file := range all {
		name := strings.TrimSuffix(filepath.Base(file), ".log")
		if name == process {
			return file, nil
		}
		there = append(there, name)
	}
	if len(there) == 0 {
		return "", errors.New("it has none yet")
	}
	return "", fmt.Errorf("there is %s", strings.Join(there, ", "))
}
