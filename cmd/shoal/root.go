// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalnet/shoal/api"
)

// run parses and runs one command line, prints its error, and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root() //nolint:contextcheck // every command takes its context from cobra
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(ctx)
	if err != nil {
		a.complain(err)
	}
	return exitCode(err)
}

func (a *app) root() *cobra.Command {
	isDocs := false
	root := &cobra.Command{
		Use:   "shoal",
		Short: "Run containers on a group of machines that nobody leads",
		Long: `shoal talks to the shoald on this machine, or on another (--host). Every peer knows everything, so every
command works on every peer, also on one that is alone.

A first cluster:
  shoal init                        # on the first machine; prints a join line
  shoal join TOKEN                  # on each other machine
  shoal deploy -f compose.yaml      # shows the plan, then makes it so
  shoal ps                          # what runs where
  shoal scale web=10                # or web+2, web-1`,
		SilenceErrors: true, SilenceUsage: true,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if isDocs {
				return reference(a.out, cmd)
			}
			return cmd.Help()
		},
	}
	root.Flags().BoolVar(&isDocs, "print-reference", false, "print docs/cli.md and end")
	_ = root.Flags().MarkHidden("print-reference") // for make docs
	f := root.PersistentFlags()
	f.StringVarP(&a.host, "host", "H", "", "daemon to ask: unix:///PATH or ssh://[USER@]HOST[:PORT][/SOCKET] (SHOAL_HOST)")
	f.StringVarP(&a.context, "context", "c", "", "daemon to ask, by the name of a context (SHOAL_CONTEXT)")
	f.StringVarP(&a.output, "output", "o", "table", "table, wide, json, yaml, name or template=GO-TEMPLATE")
	f.Var(&a.timeout, "timeout", "give up after this long, like 30s or 5m (default: the command's own; 5m to become healthy)")
	f.BoolVarP(&a.yes, "yes", "y", isYes(a.env["SHOAL_AUTO_CONFIRM"]), "do not ask (SHOAL_AUTO_CONFIRM)")
	f.BoolVar(&a.local, "local", false, "ask no other peer: of logs and doctor (listings never do, top always does)")
	f.IntVar(&a.agreed, "consistent", 0, "first wait until so many peers, the asked one included, hold the same records")
	f.BoolVar(&a.noColor, "no-color", false, "no colours (NO_COLOR)")
	f.BoolVar(&a.debug, "debug", false, "tell on stderr what is asked and how long it took")
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(
		a.initCmd(), a.joinCmd(), a.leaveCmd(), a.tokenCmd(), a.peerCmd(),
		a.imageCmd(), a.deployCmd(), a.runCmd(), a.lsCmd(), a.psCmd(), a.inspectCmd(), a.explainCmd(),
		a.scaleCmd(), a.autoscaleCmd(), a.updateCmd(), a.rolloutCmd(), a.rollbackCmd(), a.stopCmd(), a.startCmd(), a.restartCmd(), a.rmCmd(),
		a.logsCmd(), a.execCmd(), a.cpCmd(), a.networkCmd(), a.portsCmd(), a.portForwardCmd(), a.topCmd(), a.eventsCmd(), a.doctorCmd(), a.metricsCmd(), a.debugCmd(), a.versionCmd(),
	)
	root.AddCommand(a.contextCmd(), a.completionCmd(), a.dialStdioCmd())
	root.AddCommand(a.markCmds()...)
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		help.Args, help.Example = noSuchTopic, "  shoal help deploy\n  shoal help peer label"
	}
	a.complete(root)
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return a.checkOutput() }
	return root
}

func isYes(s string) bool {
	return slices.Contains([]string{"1", "true", "yes", "y"}, strings.ToLower(s))
}

// client returns the client of the asked daemon, and a context that ends with
// --timeout, or after the given time where a flag did not say.
func (a *app) client(cmd *cobra.Command, unless time.Duration) (context.Context, *api.Client, func(), error) {
	t, err := a.whom()
	if err != nil {
		return nil, nil, nil, err
	}
	c, err := a.dial(t.host)
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, cancel := cmd.Context(), context.CancelFunc(func() {})
	if d := cmp.Or(time.Duration(a.timeout), unless); d > 0 {
		ctx, cancel = context.WithTimeout(ctx, d)
	}
	began := a.now()
	a.debugf("asking %s", t.host)
	done := func() {
		cancel()
		c.Close()
		a.debugf("done after %s", a.now().Sub(began).Round(time.Millisecond))
	}
	if err := a.agree(cmd.Context(), c); err != nil {
		done()
		return nil, nil, nil, err
	}
	return ctx, c, done, nil
}

func (a *app) debugf(format string, args ...any) {
	if a.debug {
		a.say("debug: "+format, args...)
	}
}

// say writes one line to stderr.
func (a *app) say(format string, args ...any) {
	_, _ = fmt.Fprintf(a.err, format+"\n", args...) // there is nowhere to complain
}

// noSuchCommand refuses arguments of a command that only has sub-commands.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	path := strings.TrimPrefix(cmd.CommandPath()+" "+args[0], "shoal ")
	return usage("unknown command %s%s", path, cmp.Or(verbHint(path), didYouMean(args[0], names, "")))
}

// noSuchTopic refuses what "shoal help" has nothing to say about.
func noSuchTopic(cmd *cobra.Command, args []string) error {
	if _, rest, err := cmd.Root().Find(args); err != nil || len(rest) > 0 {
		return usage("unknown help topic %s; shoal help lists all", strings.Join(args, " "))
	}
	return nil
}

// flagError puts pflag's errors into our words.
func flagError(cmd *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	if words := cmd.Flags().Args(); cmd.HasSubCommands() && len(words) > 0 { // the verb is wrong; its flags are no news
		return noSuchCommand(cmd, words)
	}
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		return unknownFlag(cmd, unknown.GetSpecifiedName(), unknown.GetSpecifiedShortnames() != "")
	}
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return usage("--%s: %s", bad.GetFlag().Name, plain(bad.Unwrap(), bad.GetValue()))
	}
	if missing, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return usage("--%s needs a value", missing.GetFlag().Name)
	}
	return usage("%s", err)
}

// unknownFlag says what a flag that is not there may have meant.
func unknownFlag(cmd *cobra.Command, name string, isShort bool) error {
	hint := flagHint(strings.TrimPrefix(cmd.CommandPath(), "shoal "), name)
	if isShort {
		return usage("unknown flag -%s%s", name, cmp.Or(hint, "; see "+cmd.CommandPath()+" --help"))
	}
	var names []string
	add := func(f *pflag.Flag) { names = append(names, f.Name) }
	cmd.Flags().VisitAll(add)
	cmd.InheritedFlags().VisitAll(add)
	return usage("unknown flag --%s%s", name, cmp.Or(hint, didYouMean(name, names, "--")))
}

// plain rewrites what strconv says.
func plain(err error, value string) string {
	text := err.Error()
	if strings.HasPrefix(text, "strconv.") || strings.HasPrefix(text, "parse error") {
		return fmt.Sprintf("%q is no number in range", value)
	}
	return text
}

// didYouMean returns "; did you mean X?" for the nearest name, if it is near.
func didYouMean(got string, names []string, prefix string) string {
	best, distance := "", max(1, len(got)/3)+1
	slices.Sort(names)
	for _, n := range slices.Compact(names) {
		d := edits(got, n)
		if len(got) > 2 && strings.HasPrefix(n, got) {
			d = min(d, 1)
		}
		if d < distance {
			best, distance = n, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + prefix + best + "?"
}

// edits is the number of insertions, deletions and substitutions between a and b
// (Levenshtein 1966), and of swaps of neighbours (Damerau 1964).
func edits(a, b string) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
