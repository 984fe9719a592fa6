// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"context"
	"io"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/runtime"
	"github.com/shoalnet/shoal/runtime/runtimetest"
)

// command is what can be run in the twin's steady container.
func command(ctx context.Context, opts shoal.ExecOptions, t shoal.Terminal) int {
	switch opts.Command[0] {
	case "print":
		end := "\n"
		if opts.TTY {
			end = "\r\n"
		}
		io.WriteString(t.Out, "aaa"+end)
	case "quit":
		return 5
	case "cat":
		defer context.AfterFunc(ctx, func() { t.In.Close() })()
		io.Copy(t.Out, t.In)
	default:
		return 127
	}
	return 0
}

func TestTwinContract(t *testing.T) {
	runtimetest.Run(t, func(testing.TB) *runtimetest.Fixture {
		images := []string{"steady:1", "sick:1", "crash:1", "greedy:1", "chatty:1"}
		twin := runtime.NewTwin(runtime.TwinConfig{
			Cluster: cluster, Peer: peer, Deadline: 300 * time.Millisecond, Images: images,
		}, shoal.NewSystemClock())
		soon := 5 * time.Millisecond
		twin.SetProgram("steady:1", runtime.Program{HealthyAfter: soon, Exec: command})
		twin.SetProgram("sick:1", runtime.Program{HealthyAfter: soon, NeverHealthy: true, CheckSays: "no"})
		twin.SetProgram("crash:1", runtime.Program{Exits: true, ExitAfter: soon, ExitCode: 3})
		twin.SetProgram("greedy:1", runtime.Program{Exits: true, ExitAfter: soon, ExitCode: 137, OOM: true})
		twin.SetProgram("chatty:1", runtime.Program{Lines: []string{"one", "two", "three"}})
		check := &shoal.Health{Test: []string{"CMD", "check"}}
		size := shoal.Resources{MemBytes: 64 << 20}
		return &runtimetest.Fixture{
			Engine: twin, Puller: twin, Cluster: cluster, Peer: peer,
			Steady: shoal.Spec{
				Name: "steady", Image: "steady:1", Health: check, Limits: size,
				Ports: []shoal.Port{{Container: 80, Protocol: "tcp"}},
			},
			Sick:   shoal.Spec{Name: "sick", Image: "sick:1", Health: check},
			Crash:  shoal.Spec{Name: "crash", Image: "crash:1"},
			Greedy: shoal.Spec{Name: "greedy", Image: "greedy:1", Limits: size},
			Chatty: shoal.Spec{Name: "chatty", Image: "chatty:1"},
			Print:  []string{"print"}, Cat: []string{"cat"}, Quit: []string{"quit"},
			Publish: "127.0.0.21", Patience: 5 * time.Second, Deadline: time.Second,
			Foreign: func(testing.TB) (string, func() bool) {
				id := twin.AddForeign("postgres")
				return id, func() bool { return twin.ForeignRuns(id) }
			},
			SetRules: twin.SetRules,
			Volume: func(_ testing.TB, ours bool) string {
				if ours {
					return "ours"
				}
				twin.AddVolume("theirs")
				return "theirs"
			},
			Network: func(testing.TB) shoal.Network {
				return twin.AddForeignNetwork("theirs", netip.MustParsePrefix("10.213.4.0/22"))
			},
			Load: func(testing.TB) (string, func()) {
				twin.SetImages(append(slices.Clone(images), "late:1")...)
				return "late:1", func() { twin.SetImages(images...) }
			},
			Forget: func(_ testing.TB, id string) { twin.ForgetImage(id) },
			Hang:   twin.SetHang,
		}
	})
}
