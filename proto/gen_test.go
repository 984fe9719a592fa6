// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

var kinds = []shoal.Kind{
	shoal.KindMember, shoal.KindPeer, shoal.KindMark, shoal.KindService,
	shoal.KindScale, shoal.KindGone, shoal.KindClaim, shoal.KindInvite, shoal.KindOp,
	shoal.KindImage, shoal.KindPolicy, shoal.KindRollout,
}

// Generators of nouns within bounds. Empty lists are nil, as they come back.
var (
	genPeer = rapid.Map(rapid.StringMatching(`[1-9A-HJ-NP-Za-km-z]{1,64}`),
		func(s string) shoal.PeerID { return shoal.PeerID(s) })
	genService = rapid.StringMatching(`[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?`)
	genText    = rapid.Map(rapid.StringN(0, 20, 60), func(s string) string {
		return sentence(s)
	})
	genRev = rapid.Custom(func(t *rapid.T) shoal.RevisionID {
		return shoal.RevisionID{Seq: rapid.Uint64Range(1, 1<<60).Draw(t, "seq"), Author: genPeer.Draw(t, "author")}
	})
	genRevs = sliceOf(genRev, 4)
	genHLC  = rapid.Custom(func(t *rapid.T) shoal.HLC {
		return shoal.HLC{WallMilli: rapid.Int64().Draw(t, "wall"), Counter: rapid.Uint32().Draw(t, "counter")}
	})
	genReplica = rapid.Custom(func(t *rapid.T) (id shoal.ReplicaID) {
		copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "replica"))
		return id
	})
	genResources = rapid.Custom(func(t *rapid.T) shoal.Resources {
		return shoal.Resources{
			CPUMilli: rapid.Int64Range(0, 1<<40).Draw(t, "cpu"), MemBytes: rapid.Int64Range(0, 1<<50).Draw(t, "mem"),
		}
	})
	genDuration = rapid.Map(rapid.Int64Min(0), func(n int64) time.Duration { return time.Duration(n) })
	genCount    = rapid.IntRange(0, maxSlots)
	genSlot     = rapid.IntRange(0, maxSlot)
	genProposal = rapid.Custom(func(t *rapid.T) shoal.Proposal {
		return shoal.Proposal{
			From:  genCount.Draw(t, "from"),
			Peers: sliceOf(rapid.OneOf(rapid.Just(shoal.PeerID("")), genPeer, rapid.Just(shoal.PeerID("A"))), 6).Draw(t, "peers"),
		}
	})
)

func sliceOf[T any](g *rapid.Generator[T], limit int) *rapid.Generator[[]T] {
	return rapid.Map(rapid.SliceOfN(g, 0, limit), func(s []T) []T {
		if len(s) == 0 {
			return nil
		}
		return s
	})
}

var genPairs = rapid.Map(rapid.MapOfN(genText, genText, 0, 4), func(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return m
})

var genHealth = rapid.Custom(func(t *rapid.T) *shoal.Health {
	if rapid.Bool().Draw(t, "none") {
		return nil
	}
	return &shoal.Health{
		Disable: rapid.Bool().Draw(t, "disable"), Test: sliceOf(genText, 3).Draw(t, "test"),
		Interval: genDuration.Draw(t, "interval"), Timeout: genDuration.Draw(t, "timeout"),
		StartPeriod: genDuration.Draw(t, "start"), Retries: genCount.Draw(t, "retries"),
	}
})

var genSpec = rapid.Custom(func(t *rapid.T) shoal.Spec {
	port := rapid.Custom(func(t *rapid.T) shoal.Port {
		return shoal.Port{
			Container: rapid.Uint16().Draw(t, "container"), Published: rapid.Uint16().Draw(t, "published"), Host: rapid.Bool().Draw(t, "host"),
			Protocol: rapid.SampledFrom([]string{"tcp", "udp"}).Draw(t, "protocol"),
		}
	})
	selector := rapid.Custom(func(t *rapid.T) shoal.Selector {
		return shoal.Selector{
			Key: genText.Draw(t, "key"), Op: shoal.Op(genText.Draw(t, "op")), Values: sliceOf(genText, 3).Draw(t, "values"),
		}
	})
	attachment := rapid.Custom(func(t *rapid.T) shoal.Attachment {
		return shoal.Attachment{
			Network: rapid.StringMatching(`[a-zA-Z0-9][a-zA-Z0-9_.-]{0,20}`).Draw(t, "network"), Aliases: sliceOf(genService, 3).Draw(t, "aliases"),
		}
	})
	dependency := rapid.Custom(func(t *rapid.T) shoal.Dependency {
		return shoal.Dependency{
			Service: genService.Draw(t, "dependency"), Condition: shoal.Condition(genText.Draw(t, "condition")), Optional: rapid.Bool().Draw(t, "optional"),
		}
	})
	return shoal.Spec{
		Name: genService.Draw(t, "name"), Project: genText.Draw(t, "project"), Image: genText.Draw(t, "image"),
		Entrypoint: sliceOf(genText, 3).Draw(t, "entrypoint"), Command: sliceOf(genText, 3).Draw(t, "command"),
		Env: genPairs.Draw(t, "env"), Labels: genPairs.Draw(t, "labels"), Ports: sliceOf(port, 3).Draw(t, "ports"),
		Networks: sliceOf(attachment, 3).Draw(t, "networks"),
		Limits:   genResources.Draw(t, "limits"), Reservations: genResources.Draw(t, "reservations"),
		PidsLimit: rapid.Int64Range(-1, 1000).Draw(t, "pids"), Mode: shoal.Mode(genText.Draw(t, "mode")),
		Replicas: genCount.Draw(t, "replicas"), Constraints: sliceOf(selector, 3).Draw(t, "constraints"),
		Strategy: shoal.Strategy(genText.Draw(t, "strategy")), MaxPerPeer: genCount.Draw(t, "max"),
		Priority: rapid.IntRange(-1000, 1000).Draw(t, "priority"), OnPartition: shoal.OnPartition(genText.Draw(t, "partition")),
		Health: genHealth.Draw(t, "health"),
		Restart: shoal.Restart{
			Condition: shoal.RestartCondition(genText.Draw(t, "condition")), Delay: genDuration.Draw(t, "delay"),
			MaxAttempts: genCount.Draw(t, "attempts"), Window: genDuration.Draw(t, "window"),
		},
		StopSignal: genText.Draw(t, "signal"), StopGrace: genDuration.Draw(t, "grace"),
		Rollout: genRollout.Draw(t, "rollout"), Rollback: genRollback.Draw(t, "rollback"),
		Autoscale: genAutoscale.Draw(t, "autoscale"), Job: genJob.Draw(t, "job"),
		PreDeploy: genPre.Draw(t, "pre"), Schedule: genSchedule.Draw(t, "schedule"), Run: int64(genCount.Draw(t, "run")),
		DependsOn: sliceOf(dependency, 3).Draw(t, "depends on"),
		Setup:     genSetup.Draw(t, "setup"), SpreadBy: genText.Draw(t, "spread by"), VolumesAnywhere: rapid.Bool().Draw(t, "anywhere"),
		Restarts: genCount.Draw(t, "restarts asked"),
		LB:       shoal.LB(genText.Draw(t, "lb")), Prefer: shoal.Prefer(genText.Draw(t, "prefer")), ProxyProtocol: rapid.Bool().Draw(t, "proxy"),
		Digest: rapid.OneOf(rapid.Just(""), genDigest).Draw(t, "digest"), Platforms: genPlatforms.Draw(t, "platforms"),
	}
})

var genRollout = rapid.Custom(func(t *rapid.T) shoal.Rollout {
	share := rapid.Custom(func(t *rapid.T) shoal.Share {
		return shoal.Share{N: genCount.Draw(t, "n"), Percent: rapid.IntRange(0, 100).Draw(t, "percent")}
	})
	return shoal.Rollout{
		Parallelism: genCount.Draw(t, "parallel"), StartFirst: rapid.Bool().Draw(t, "first"),
		MaxUnavailable: share.Draw(t, "unavailable"), MaxSurge: share.Draw(t, "surge"),
		Delay: genDuration.Draw(t, "delay"), MinHealthy: genDuration.Draw(t, "healthy"),
		Monitor: genDuration.Draw(t, "monitor"), Deadline: genDuration.Draw(t, "deadline"),
		MaxFailureRatio: rapid.IntRange(0, 1000).Draw(t, "ratio"), OnFailure: shoal.FailureAction(genText.Draw(t, "action")),
		Canary: shoal.Canary{
			Slots: share.Draw(t, "canary"), PromoteAfter: genDuration.Draw(t, "promote"), Weight: rapid.IntRange(0, 100).Draw(t, "weight"),
			MaxRestarts: rapid.IntRange(0, 1000).Draw(t, "restarts"),
		},
	}
})

var genAutoscale = rapid.Custom(func(t *rapid.T) *shoal.Autoscale {
	if rapid.Bool().Draw(t, "none") {
		return nil
	}
	return &shoal.Autoscale{
		Min: genCount.Draw(t, "min"), Max: genCount.Draw(t, "max"), CPU: genCount.Draw(t, "cpu"), Memory: genCount.Draw(t, "memory"),
		Connections: genCount.Draw(t, "connections"), Requests: genCount.Draw(t, "requests"), Tolerance: genCount.Draw(t, "tolerance"),
		UpWindow: genDuration.Draw(t, "up"), DownWindow: genDuration.Draw(t, "down"),
		UpStep: shoal.Share{N: genCount.Draw(t, "up step")}, DownStep: shoal.Share{Percent: rapid.IntRange(0, 100).Draw(t, "down step")},
		Idle: genDuration.Draw(t, "idle"), Manual: genDuration.Draw(t, "manual"),
	}
})

var genRollback = rapid.Custom(func(t *rapid.T) *shoal.Rollout {
	if rapid.Bool().Draw(t, "none") {
		return nil
	}
	r := genRollout.Draw(t, "it")
	return &r
})

var genFailure = rapid.Custom(func(t *rapid.T) shoal.Failure {
	return shoal.Failure{
		Slot: rapid.IntRange(0, 9999).Draw(t, "slot"), Peer: genPeer.Draw(t, "peer"), Replica: genReplica.Draw(t, "replica"),
		After: genDuration.Draw(t, "after"), Reason: genText.Draw(t, "reason"),
	}
})

var genPast = rapid.Custom(func(t *rapid.T) shoal.PastRevision {
	return shoal.PastRevision{
		Revision: genRev.Draw(t, "revision"), Spec: genSpec.Draw(t, "spec"),
		Accepted: genHLC.Draw(t, "accepted"), Good: rapid.Bool().Draw(t, "good"),
		UndoneBy: genRev.Draw(t, "undone by"), Why: genText.Draw(t, "why"), Failure: genFailure.Draw(t, "failure"),
	}
})

var genFacts = rapid.Custom(func(t *rapid.T) shoal.PeerFacts {
	return shoal.PeerFacts{
		Name: genText.Draw(t, "name"), Labels: genPairs.Draw(t, "labels"), Capacity: genResources.Draw(t, "capacity"),
		Reserved: genResources.Draw(t, "reserved"), Platforms: sliceOf(genText, 2).Draw(t, "platforms"),
		Engine: genText.Draw(t, "engine"), EngineAPI: genText.Draw(t, "api"), Version: genText.Draw(t, "version"),
		Addrs: sliceOf(genText, 3).Draw(t, "addrs"), PublishAddr: genText.Draw(t, "publish"),
		Leaving: rapid.Bool().Draw(t, "leaving"), AllowedPolicy: sliceOf(genText, 2).Draw(t, "policy"),
	}
})

var genEdit = rapid.Custom(func(t *rapid.T) shoal.Edit {
	return shoal.Edit{
		Label: genText.Draw(t, "label"), Value: genText.Draw(t, "value"),
		Gone: rapid.Bool().Draw(t, "gone"), Seq: rapid.Uint64().Draw(t, "seq"),
	}
})

var genSetup = rapid.Custom(func(t *rapid.T) shoal.Setup {
	if rapid.Bool().Draw(t, "plain") {
		return shoal.Setup{}
	}
	flag := func(name string) bool { return rapid.Bool().Draw(t, name) }
	list := func(name string) []string { return sliceOf(genText, 3).Draw(t, name) }
	mount := rapid.Custom(func(t *rapid.T) shoal.Mount {
		return shoal.Mount{
			Kind: shoal.MountKind(genText.Draw(t, "kind")), Source: genText.Draw(t, "source"), Target: genText.Draw(t, "target"),
			ReadOnly: flag("ro"), External: flag("external"), NoCopy: flag("nocopy"), Create: flag("create"),
			Spread: genText.Draw(t, "spread"), Bytes: rapid.Int64Range(0, 1<<50).Draw(t, "bytes"), Mode: rapid.Uint32().Draw(t, "mode"),
		}
	})
	ulimit := rapid.Custom(func(t *rapid.T) shoal.Ulimit {
		return shoal.Ulimit{Name: genText.Draw(t, "name"), Soft: rapid.Int64().Draw(t, "soft"), Hard: rapid.Int64().Draw(t, "hard")}
	})
	device := rapid.Custom(func(t *rapid.T) shoal.Device {
		return shoal.Device{Host: genText.Draw(t, "host"), Container: genText.Draw(t, "inside"), Permissions: genText.Draw(t, "permissions")}
	})
	s := shoal.Setup{
		User: genText.Draw(t, "user"), WorkDir: genText.Draw(t, "dir"), Hostname: genText.Draw(t, "host"),
		Init: flag("init"), TTY: flag("tty"), Stdin: flag("stdin"), ReadOnly: flag("read only"),
		ShmBytes: rapid.Int64Range(0, 1<<50).Draw(t, "shm"), ExtraHosts: list("hosts"), Mounts: sliceOf(mount, 3).Draw(t, "mounts"),
		Ulimits: sliceOf(ulimit, 3).Draw(t, "ulimits"), Sysctls: genPairs.Draw(t, "sysctls"),
		Privileged: flag("privileged"), CapAdd: list("add"), CapDrop: list("drop"), Devices: sliceOf(device, 3).Draw(t, "devices"),
		GroupAdd: list("groups"), SecurityOpt: list("security"), HostNetwork: flag("network"), NoNetwork: flag("none"),
		HostPID: flag("pid"), HostIPC: flag("ipc"), HostUTS: flag("uts"), HostUser: flag("userns"),
	}
	if flag("logging") {
		s.Logging = &shoal.Logging{Driver: genText.Draw(t, "driver"), Options: genPairs.Draw(t, "options")}
	}
	return s
})

// genBody draws bodies of one kind.
func genBody(kind shoal.Kind) *rapid.Generator[shoal.Body] {
	return rapid.Custom(func(t *rapid.T) shoal.Body {
		switch kind {
		case shoal.KindMember:
			return &shoal.MemberBody{
				Peer: genPeer.Draw(t, "peer"), Role: shoal.Role(genText.Draw(t, "role")), Invite: genText.Draw(t, "invite"),
				Removed: rapid.Bool().Draw(t, "removed"), HighestSeq: rapid.Uint64().Draw(t, "highest"),
			}
		case shoal.KindPeer:
			return &shoal.PeerBody{Peer: genPeer.Draw(t, "peer"), Facts: genFacts.Draw(t, "facts")}
		case shoal.KindMark:
			mark := rapid.Custom(func(t *rapid.T) shoal.Mark {
				return shoal.Mark{ID: genText.Draw(t, "id"), Drain: rapid.Bool().Draw(t, "drain")}
			})
			return &shoal.MarkBody{
				Peer: genPeer.Draw(t, "peer"), Laid: sliceOf(mark, 3).Draw(t, "laid"), Lifts: sliceOf(genText, 3).Draw(t, "lifts"),
				Edits: sliceOf(genEdit, 3).Draw(t, "edits"),
			}
		case shoal.KindService:
			return &shoal.RevisionBody{
				Revision: genRev.Draw(t, "revision"), Replaces: genRevs.Draw(t, "replaces"),
				Spec: genSpec.Draw(t, "spec"), Proposal: genProposal.Draw(t, "proposal"),
				Past: sliceOf(genPast, 2).Draw(t, "past"), Undoes: genRev.Draw(t, "undoes"), Why: genText.Draw(t, "why"),
			}
		case shoal.KindScale:
			return genScale(t)
		case shoal.KindGone:
			return &shoal.GoneBody{Service: genService.Draw(t, "service"), Removes: genRevs.Draw(t, "removes")}
		case shoal.KindClaim:
			return genClaim(t)
		case shoal.KindOp:
			return &shoal.OpBody{
				Service: genService.Draw(t, "service"), Seq: rapid.Uint64().Draw(t, "seq"),
				Stopped: rapid.Bool().Draw(t, "stopped"), Of: genRev.Draw(t, "of"),
			}
		case shoal.KindRollout:
			return &shoal.RolloutBody{
				Service: genService.Draw(t, "service"), Of: genRev.Draw(t, "of"), Seq: rapid.Uint64().Draw(t, "seq"), Settled: rapid.Bool().Draw(t, "settled"),
				Paused: rapid.Bool().Draw(t, "paused"), Promoted: rapid.Bool().Draw(t, "promoted"), Why: genText.Draw(t, "why"),
			}
		case shoal.KindImage:
			return genImage(t)
		case shoal.KindPolicy:
			return &shoal.PolicyBody{ID: genRev.Draw(t, "id"), Replaces: genRevs.Draw(t, "replaces"), Upstream: genText.Draw(t, "upstream")}
		default:
			return &shoal.InviteBody{
				ID: rapid.StringMatching(`[a-z0-9]{1,32}`).Draw(t, "id"), Role: shoal.Role(genText.Draw(t, "role")),
				PublicKey: rapid.SampledFrom([][]byte{nil, make([]byte, 32)}).Draw(t, "key"),
				ExpiresAt: rapid.Int64().Draw(t, "expires"), Uses: genCount.Draw(t, "uses"),
				RedeemedBy: sliceOf(genPeer, 3).Draw(t, "by"), Revoked: rapid.Bool().Draw(t, "revoked"),
			}
		}
	})
}

var (
	genDigest    = rapid.StringMatching(`sha256:[0-9a-f]{64}`)
	genPlatforms = rapid.Map(sliceOf(rapid.SampledFrom([]string{"linux/amd64", "linux/arm64/v8", "linux/arm/v7"}), 3),
		func(s []string) []string {
			slices.Sort(s)
			return s
		})
	genUpstream = rapid.Custom(func(t *rapid.T) shoal.Upstream {
		return shoal.Upstream{Registry: genText.Draw(t, "registry"), Waits: genText.Draw(t, "waits")}
	})
)

func genImage(t *rapid.T) shoal.Body {
	maybe := rapid.OneOf(rapid.Just(""), genDigest)
	return &shoal.ImageBody{
		Image: rapid.StringMatching(`([a-z]{1,5}\.io(:[0-9]{1,4})?/)?[a-z0-9]([a-z]{1,5}__[a-z]{1,5}/){0,2}[a-z]{1,5}:[A-Z0-9_][a-z_.-]{0,9}`).Draw(t, "image"),
		ID:    genRev.Draw(t, "id"), Replaces: genRevs.Draw(t, "replaces"), Digest: maybe.Draw(t, "digest"),
		MediaType: genText.Draw(t, "type"), Platforms: genPlatforms.Draw(t, "platforms"),
		Blobs: sliceOf(rapid.Custom(func(t *rapid.T) shoal.BlobRef {
			return shoal.BlobRef{
				Digest: genDigest.Draw(t, "blob"), Size: rapid.Int64Range(0, maxBlob).Draw(t, "size"), Chunks: maybe.Draw(t, "chunks"),
			}
		}), 4).Draw(t, "blobs"),
		Upstream: rapid.Bool().Draw(t, "upstream"), Pinned: rapid.Bool().Draw(t, "pinned"),
		MinCopies: rapid.IntRange(0, maxCopies).Draw(t, "copies"),
	}
}

func genScale(t *rapid.T) shoal.Body {
	b := &shoal.ScaleBody{
		Service: genService.Draw(t, "service"), Seq: rapid.Uint64().Draw(t, "seq"),
		Adds: sliceOf(rapid.Custom(func(t *rapid.T) shoal.ScaleAdd {
			return shoal.ScaleAdd{
				Base:  rapid.OneOf(rapid.Just(shoal.RevisionID{}), genRev).Draw(t, "base"),
				Delta: rapid.IntRange(-1000, 1000).Draw(t, "delta"),
			}
		}), 4).Draw(t, "adds"),
		Proposal: genProposal.Draw(t, "proposal"),
	}
	if rapid.Bool().Draw(t, "base?") {
		b.Base = &shoal.ScaleBase{ID: genRev.Draw(t, "id"), N: genCount.Draw(t, "n"), File: rapid.IntRange(-1, 100).Draw(t, "file"), Covers: genRevs.Draw(t, "covers"), Manual: rapid.Bool().Draw(t, "manual"), Why: genText.Draw(t, "why")}
	}
	return b
}

var genJob = rapid.Custom(func(t *rapid.T) *shoal.Job {
	if !rapid.Bool().Draw(t, "job?") {
		return nil
	}
	return &shoal.Job{Attempts: genCount.Draw(t, "attempts"), Parallelism: genCount.Draw(t, "parallelism"), Deadline: genDuration.Draw(t, "deadline")}
})

var genPre = rapid.Custom(func(t *rapid.T) *shoal.PreDeploy {
	if !rapid.Bool().Draw(t, "pre?") {
		return nil
	}
	return &shoal.PreDeploy{
		Image: genText.Draw(t, "image"), Digest: rapid.OneOf(rapid.Just(""), genDigest).Draw(t, "digest"), Platforms: genPlatforms.Draw(t, "platforms"),
		Command: sliceOf(genText, 3).Draw(t, "command"), Env: genPairs.Draw(t, "env"),
		Attempts: genCount.Draw(t, "attempts"), Deadline: genDuration.Draw(t, "deadline"), For: genRev.Draw(t, "for"),
	}
})

var genSchedule = rapid.Custom(func(t *rapid.T) *shoal.Schedule {
	if !rapid.Bool().Draw(t, "schedule?") {
		return nil
	}
	return &shoal.Schedule{
		Cron: genText.Draw(t, "cron"), Zone: genText.Draw(t, "zone"), Missed: shoal.MissedRun(genText.Draw(t, "missed")),
		Overlap: shoal.Overlap(genText.Draw(t, "overlap")), From: int64(genCount.Draw(t, "from")),
	}
})

var genOutcome = rapid.Custom(func(t *rapid.T) *shoal.JobOutcome {
	if !rapid.Bool().Draw(t, "outcome?") {
		return nil
	}
	return &shoal.JobOutcome{
		Attempts: genCount.Draw(t, "attempts"), Completed: rapid.Bool().Draw(t, "completed"), Failed: rapid.Bool().Draw(t, "failed"),
		Code: rapid.IntRange(-255, 255).Draw(t, "code"), Why: genText.Draw(t, "why"), At: rapid.Int64Range(0, 1<<40).Draw(t, "at"),
	}
})

func genClaim(t *rapid.T) shoal.Body {
	rev := rapid.OneOf(rapid.SampledFrom([]shoal.RevisionID{{}, {Seq: 1, Author: "A"}, {Seq: 2, Author: "B"}}), genRev)
	return &shoal.ClaimBody{
		Peer: genPeer.Draw(t, "peer"), Service: genService.Draw(t, "service"),
		Holds: sliceOf(rapid.Custom(func(t *rapid.T) shoal.Holding {
			return shoal.Holding{
				Slot: genSlot.Draw(t, "slot"), Replica: genReplica.Draw(t, "replica"),
				Revision: rev.Draw(t, "revision"), Since: genHLC.Draw(t, "since"), Outcome: genOutcome.Draw(t, "outcome"),
			}
		}), 5).Draw(t, "holds"),
		Released: sliceOf(rapid.Custom(func(t *rapid.T) shoal.Release {
			return shoal.Release{
				Slot: genSlot.Draw(t, "slot"), Replica: genReplica.Draw(t, "replica"),
				YieldTo: rapid.OneOf(rapid.Just(shoal.PeerID("")), genPeer).Draw(t, "to"),
			}
		}), 3).Draw(t, "released"),
		Data: sliceOf(genSlot, 3).Draw(t, "data"),
	}
}

var genState = rapid.Custom(func(t *rapid.T) shoal.PeerState {
	port := rapid.Custom(func(t *rapid.T) shoal.PortBinding {
		return shoal.PortBinding{
			Container: rapid.Uint16().Draw(t, "container"), Protocol: genText.Draw(t, "protocol"),
			HostIP: genText.Draw(t, "ip"), HostPort: rapid.Uint16().Draw(t, "host"),
		}
	})
	status := rapid.Custom(func(t *rapid.T) shoal.ReplicaStatus {
		return shoal.ReplicaStatus{
			ID: genReplica.Draw(t, "id"), Service: genService.Draw(t, "service"), Slot: genSlot.Draw(t, "slot"),
			Revision: genRev.Draw(t, "revision"), Phase: shoal.Phase(rapid.IntRange(0, int(shoal.PhaseLost)).Draw(t, "phase")),
			Health: genText.Draw(t, "health"), Addr: genText.Draw(t, "addr"), Ports: sliceOf(port, 2).Draw(t, "ports"),
			Restarts: genCount.Draw(t, "restarts"), Failures: genCount.Draw(t, "failures"), ExitCode: rapid.IntRange(-1, 255).Draw(t, "exit"),
			Reason: genText.Draw(t, "reason"), Container: genText.Draw(t, "container"), Image: genText.Draw(t, "image"),
			StartedAt: rapid.Int64().Draw(t, "started"),
		}
	})
	refusal := rapid.Custom(func(t *rapid.T) shoal.Refusal {
		return shoal.Refusal{
			Service: genService.Draw(t, "service"), Revision: genRev.Draw(t, "revision"), Reason: genText.Draw(t, "reason"),
		}
	})
	images := sliceOf(genText, 4).Draw(t, "images")
	slices.Sort(images)
	blobs := sliceOf(rapid.Map(rapid.Uint64(), func(n uint64) shoal.BlobKey { return shoal.BlobKey(n) }), 4).Draw(t, "blobs")
	slices.Sort(blobs)
	upstreams := sliceOf(genUpstream, 3).Draw(t, "upstreams")
	slices.SortStableFunc(upstreams, compareUpstreams)
	loads := sliceOf(rapid.Custom(func(t *rapid.T) shoal.ReplicaLoad {
		return shoal.ReplicaLoad{Replica: genReplica.Draw(t, "replica"), CPUMilli: rapid.Int64Range(0, maxCPUMilli).Draw(t, "cpu"), MemBytes: rapid.Int64Range(0, maxMemBytes).Draw(t, "memory")}
	}), 3).Draw(t, "loads")
	slices.SortStableFunc(loads, compareLoads)
	carried := sliceOf(rapid.Custom(func(t *rapid.T) shoal.Carried {
		return shoal.Carried{Service: genService.Draw(t, "service"), Open: genCount.Draw(t, "open"), Rate: rapid.Int64Range(0, maxRate).Draw(t, "rate")}
	}), 3).Draw(t, "carried")
	slices.SortStableFunc(carried, compareCarried)
	return shoal.PeerState{
		Loads: loads, Carried: carried,
		Free: genResources.Draw(t, "free"), Used: genResources.Draw(t, "used"),
		Replicas: sliceOf(status, 3).Draw(t, "replicas"), Images: images,
		Blobs: blobs, Upstreams: upstreams,
		Refusals: sliceOf(refusal, 3).Draw(t, "refusals"),
		Engine:   shoal.EngineStatus{Down: rapid.Bool().Draw(t, "down"), Reason: genText.Draw(t, "why")},
		Trouble:  genText.Draw(t, "trouble"),
	}
})
