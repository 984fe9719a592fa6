// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal"
)

func (a *app) peerRenameCmd() *cobra.Command {
	var acks int
	cmd := &cobra.Command{
		Use: "rename PEER NAME", Short: "Give a peer another name", Args: atLeast(2, 2),
		Long: `Give a peer another name, which no other member may have. It stands over the name that
the machine gives itself, also when that restarts. ` + peerNaming,
		Example: "  shoal peer rename osaka osaka-1\n  shoal peer rename x7Kp2mQz osaka",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := shoal.CheckName("name", args[1]); err != nil {
				return err
			}
			return a.changePeers(cmd, args[:1], peerAsk{wish: shoal.PeerWish{Change: shoal.PeerEdit, Name: args[1]}, acks: acks})
		},
	}
	ackFlag(cmd.Flags(), &acks)
	return cmd
}

func (a *app) peerLabelCmd() *cobra.Command {
	var acks int
	var remove []string
	cmd := &cobra.Command{
		Use: "label PEER KEY=VALUE|KEY-...", Short: "Set and take away labels of a peer",
		Args: func(cmd *cobra.Command, args []string) error {
			return atLeast(2-min(1, len(remove)), 0)(cmd, args)
		},
		Long: `Set labels of a peer, which constraints look at; KEY- or --rm KEY takes one away. zone is
where it stands, for spreading. What is set here stands over the machine's own labels,
and over an older value: the plan says over which. What runs already is not moved.
` + peerNaming,
		Example: "  shoal peer label osaka zone=b disk=ssd\n  shoal peer label osaka disk-\n  shoal peer label osaka --rm disk",
		RunE: func(cmd *cobra.Command, args []string) error {
			w := shoal.PeerWish{Change: shoal.PeerEdit, Set: map[string]string{}, Unset: remove}
			for _, arg := range args[1:] {
				k, v, sets := strings.Cut(arg, "=")
				gone, takes := strings.CutSuffix(arg, "-")
				_, twice := w.Set[k]
				switch {
				case sets && k != "" && !twice:
					w.Set[k] = v
				case sets && twice:
					return usage("label: %q comes twice", k)
				case !sets && takes && gone != "":
					w.Unset = append(w.Unset, gone)
				default:
					return usage("label: %q is neither KEY=VALUE nor KEY-", arg)
				}
			}
			return a.changePeers(cmd, args[:1], peerAsk{wish: w, acks: acks})
		},
	}
	cmd.Flags().StringArrayVar(&remove, "rm", nil, "KEY of a label to take away")
	ackFlag(cmd.Flags(), &acks)
	return cmd
}

func (a *app) peerRmCmd() *cobra.Command {
	var acks int
	var force, ignore bool
	cmd := &cobra.Command{
		Use: "rm PEER...", Short: "End the membership of peers", Args: someArgs(0),
		Long: `End the membership of peers: they may not link, write or read any more, and others take
their slots. For a machine that is gone; one that is alive leaves by "shoal leave" on it,
or is drained first. A removed daemon that comes back is told so, stops its containers
and forgets the cluster; named volumes stay on it.

A peer that is alive and holds slots, or has data that no other peer has, is removed
only with --force. ` + peerNaming,
		Example: "  shoal drain osaka && shoal peer rm osaka\n  shoal peer rm osaka --force",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changePeers(cmd, args, peerAsk{wish: shoal.PeerWish{Change: shoal.PeerRemove, Force: force}, acks: acks, ignoreMissing: ignore})
		},
	}
	cmd.Flags().BoolVar(&ignore, "ignore-not-found", false, "a peer that does not exist is no error")
	cmd.Flags().BoolVar(&force, "force", false, "also if it is alive and holds slots, or has data")
	ackFlag(cmd.Flags(), &acks)
	return cmd
}
