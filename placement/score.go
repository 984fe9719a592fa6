// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"github.com/shoalnet/shoal"
)

// A replica that states no need still weighs something when peers are compared
// (never when it is checked whether it fits). The amounts are those kube-scheduler
// assumes for containers without requests.
const (
	nominalCPUMilli = 100
	nominalMemBytes = 200 << 20
)

// One core weighs as much as this many bytes when sizes of different shape are put
// in order.
const bytesPerMilli = 2 << 30 / 1000

// nominal fills what a size leaves open.
func nominal(r shoal.Resources) shoal.Resources {
	if r.CPUMilli <= 0 {
		r.CPUMilli = nominalCPUMilli
	}
	if r.MemBytes <= 0 {
		r.MemBytes = nominalMemBytes
	}
	return r
}

// weight is a size as one number, for "largest first".
func weight(r shoal.Resources) int64 {
	return max(min(r.CPUMilli, 1<<30)*bytesPerMilli, r.MemBytes)
}

// bulk is a capacity as one number, for zones.
func bulk(r shoal.Resources) int64 {
	return max(1, min(r.CPUMilli, 1<<30)*bytesPerMilli+r.MemBytes)
}

// share is how full a peer with this much to give is under load: the larger of its
// two dimensions. A dimension whose capacity is not known does not count. Single
// divisions only: no fused multiply-add, the same bits on every machine.
func share(load, alloc shoal.Resources) float64 {
	var cpu, mem float64
	if alloc.CPUMilli > 0 {
		cpu = float64(load.CPUMilli) / float64(alloc.CPUMilli)
	}
	if alloc.MemBytes > 0 {
		mem = float64(load.MemBytes) / float64(alloc.MemBytes)
	}
	return max(cpu, mem)
}

// Rank is the rendezvous rank of a peer for a slot: the highest wins. It is the
// last tie-break everywhere, and depends on nothing but its arguments.
func Rank(service string, slot int, peer shoal.PeerID) uint64 {
	return slotRank(hash(service), slot, hash(peer))
}

func slotRank(service uint64, slot int, peer uint64) uint64 {
	return mix(mix(service+uint64(slot)*0x9e3779b97f4a7c15) ^ peer)
}

// peerRank is Rank without the slot, so that one heap serves all slots of a service.
func peerRank(service, peer uint64) uint64 { return mix(service ^ peer) }

// hash is 64-bit FNV-1a, finished with mix.
func hash[S ~string](s S) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * 0x100000001b3
	}
	return mix(h)
}

// mix is the finisher of splitmix64.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
