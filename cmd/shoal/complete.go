// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// completeTime bounds what a press of the tab key waits for a daemon.
const completeTime = 500 * time.Millisecond

// completer offers what may stand where something is typed.
type completer = cobra.CompletionFunc

// complete gives every command its completions. What an argument may be is said by its
// word in the use line: "stop SERVICE..." is completed with services.
func (a *app) complete(root *cobra.Command) {
	known := map[string]completer{
		"SERVICE": a.services, "SERVICE=N|SERVICE+N|SERVICE-N": a.scales, "SERVICE[/SLOT]": a.slots,
		"PEER": a.peers, "ID": a.tokens, "CONTEXT": a.contextNames,
		"IMAGE": a.images, "NETWORK": a.networks,
	}
	flags := map[string]completer{
		"peer": a.peers, "image": a.images, "network": a.networks, "format": oneOf(shoal.FormatOCI, shoal.FormatDocker), "role": oneOf(string(shoal.RoleOperator), string(shoal.RolePeer)),
		"restart": oneOf("no", "on-failure", "always"), "sort": oneOf("cpu", "mem", "name"), "to": a.revisions,
		"update-order": oneOf(stopFirst, startFirst), "rollback-order": oneOf(stopFirst, startFirst),
		"update-failure-action":   oneOf(string(shoal.FailurePause), string(shoal.FailureContinue), string(shoal.FailureRollback)),
		"rollback-failure-action": oneOf(string(shoal.FailurePause), string(shoal.FailureContinue)),
	}
	var each func(*cobra.Command)
	each = func(cmd *cobra.Command) {
		if cmd.ValidArgsFunction == nil { // it knows better than its words
			cmd.ValidArgsFunction = byWords(argumentWords(cmd.Use), known)
		}
		for name, fn := range flags {
			if cmd.Flags().Lookup(name) != nil {
				_ = cmd.RegisterFlagCompletionFunc(name, fn) // it is there, and has none yet
			}
		}
		for _, c := range cmd.Commands() {
			each(c)
		}
	}
	each(root)
	_ = root.RegisterFlagCompletionFunc("context", a.contextNames) // the same
	_ = root.RegisterFlagCompletionFunc("host", half("unix://", sshScheme))
	_ = root.RegisterFlagCompletionFunc("output", a.outputs)
}

// argumentWords are the words for arguments of a use line: "SERVICE" of "ps [SERVICE...]".
// The last one keeps its dots, for it may come again.
func argumentWords(use string) []string {
	var out []string
	for _, w := range strings.Fields(use)[1:] {
		switch {
		case w == "[flags]":
			continue
		case strings.HasPrefix(strings.TrimPrefix(w, "["), "-"): // a flag, or what is after --
			return out
		case strings.HasPrefix(w, "["): // all of it can be left out
			w = strings.TrimSuffix(w[1:], "]")
		}
		out = append(out, w)
	}
	return out
}

// byWords completes each argument by its word; none by files.
func byWords(words []string, known map[string]completer) completer {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		at := len(args)
		if last := len(words) - 1; last >= 0 && at > last && strings.HasSuffix(words[last], "...") {
			at = last
		}
		if at >= len(words) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		word := strings.TrimSuffix(words[at], "...")
		if fn := known[word]; fn != nil {
			return fn(cmd, args, typed)
		}
		if literals := strings.Split(word, "|"); len(literals) > 1 && word == strings.ToLower(word) {
			return literals, cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

func oneOf(words ...string) completer {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

// half offers words that something must follow.
func half(words ...string) completer {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace)
}

// asked completes with what the daemon lists, and was not typed before; if it does not
// answer, with nothing: the command itself will say why.
func asked[T any](a *app, cmd *cobra.Command, args []string, list func(*api.Client, context.Context) (api.Listing[T], error), text func(T) (name, about string)) ([]cobra.Completion, cobra.ShellCompDirective) {
	const nothing = cobra.ShellCompDirectiveNoFileComp
	t, err := a.whom()
	if err != nil {
		return nil, nothing
	}
	c, err := a.dial(t.host)
	if err != nil {
		return nil, nothing
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
	defer cancel()
	all, err := list(c, ctx)
	if err != nil {
		return nil, nothing
	}
	var out []cobra.Completion
	seen := slices.Clone(args)
	for _, item := range all.Items {
		name, about := text(item)
		if !slices.Contains(seen, name) {
			seen = append(seen, name)
			out = append(out, cobra.CompletionWithDesc(clean(name), clean(about)))
		}
	}
	return out, nothing
}

func (a *app) services(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return asked(a, cmd, args, (*api.Client).Services, func(s api.Service) (string, string) { return s.Name, s.Image })
}

// scales completes with what a number follows.
func (a *app) scales(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	out, directive := asked(a, cmd, args, (*api.Client).Services, func(s api.Service) (string, string) {
		return s.Name + "=", "now " + count(s.Replicas, "replica")
	})
	return out, directive | cobra.ShellCompDirectiveNoSpace
}

// slots completes with services and, after the slash, with the slots of one.
func (a *app) slots(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	service, _, has := strings.Cut(typed, "/")
	if !has {
		return a.services(cmd, args, typed)
	}
	return asked(a, cmd, args, func(c *api.Client, ctx context.Context) (api.Listing[api.Replica], error) {
		return c.Replicas(ctx, service)
	}, func(r api.Replica) (string, string) {
		return fmt.Sprintf("%s/%d", r.Service, r.Slot), strings.TrimSpace(r.State + " " + r.PeerName)
	})
}

// revisions completes with the earlier ones of the service that was named.
func (a *app) revisions(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return asked(a, cmd, nil, func(c *api.Client, ctx context.Context) (api.Listing[api.Revision], error) {
		_, all, err := c.Rollout(ctx, args[0])
		all.Items = all.Items[min(1, len(all.Items)):]
		return all, err
	}, func(r api.Revision) (string, string) { return seqOf(r.Revision), r.Image + ", " + r.State })
}

func (a *app) peers(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return asked(a, cmd, args, func(c *api.Client, ctx context.Context) (api.Listing[api.Peer], error) {
		return c.Peers(ctx, false)
	}, func(p api.Peer) (string, string) { return p.Name, p.State })
}

func (a *app) images(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return asked(a, cmd, args, (*api.Client).Images, func(x api.Image) (string, string) { return x.Name, size(x.Size) })
}

func (a *app) networks(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return asked(a, cmd, args, func(c *api.Client, ctx context.Context) (api.Listing[api.Network], error) {
		return c.Networks(ctx, "")
	}, func(n api.Network) (string, string) { return n.Name, count(len(n.Services), "service") })
}

func (a *app) tokens(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return asked(a, cmd, args, (*api.Client).Tokens, func(t api.Token) (string, string) { return t.ID, t.Role + ", " + t.State })
}

// contextNames asks nobody: they are in a file.
func (a *app) contextNames(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	all, err := a.contexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []cobra.Completion
	for _, c := range all.list() {
		if !slices.Contains(args, c.Name) {
			out = append(out, cobra.CompletionWithDesc(c.Name, clean(c.Host)))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// ownContexts are those that can be removed: all but the built-in one.
func (a *app) ownContexts(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.contextNames(cmd, append(slices.Clone(args), defaultContext), typed)
}

func (a *app) outputs(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if typed != "" && strings.HasPrefix(templateFormat, typed) {
		return []cobra.Completion{templateFormat}, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	return append(slices.Clone(outputForms), templateFormat), cobra.ShellCompDirectiveNoFileComp
}

// completionCmd prints what a shell needs to ask us for completions.
func (a *app) completionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "completion bash|zsh|fish", Short: "Print what a shell needs to complete words", Args: someArgs(1),
		Long: `Print the script that lets a shell complete commands, flags, and what there is: services,
slots, peers, images, tokens, contexts. It asks the daemon while you type, for half a second at
most. The packages put it in place; without one, once:

  bash  shoal completion bash > ~/.local/share/bash-completion/completions/shoal
        (needs the package bash-completion)
  zsh   shoal completion zsh > ~/.zfunc/_shoal
        (.zshrc needs "fpath+=~/.zfunc" before "autoload -U compinit; compinit")
  fish  shoal completion fish > ~/.config/fish/completions/shoal.fish

and start a new shell.`,
		Example: "  source <(shoal completion bash)        # for this shell alone\n  shoal completion fish | source",
		RunE: func(cmd *cobra.Command, args []string) error {
			switch root := cmd.Root(); args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.out, true)
			case "zsh":
				return root.GenZshCompletion(a.out)
			case "fish":
				return root.GenFishCompletion(a.out, true)
			}
			return usage("completion takes bash, zsh or fish, got %q", args[0])
		},
	}
}
