// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// maxLoads is how many loads and how many carried services a peer tells of, each.
const maxLoads = 4096

func autoscaleMessage(a *shoal.Autoscale) *shoalv1.Autoscale {
	if a == nil {
		return nil
	}
	return &shoalv1.Autoscale{
		Min: int32(a.Min), Max: int32(a.Max), Cpu: int32(a.CPU), Memory: int32(a.Memory),
		Connections: int32(a.Connections), Requests: int32(a.Requests), Tolerance: int32(a.Tolerance),
		UpWindowNs: int64(a.UpWindow), DownWindowNs: int64(a.DownWindow),
		UpStep: shareMessage(a.UpStep), DownStep: shareMessage(a.DownStep), IdleNs: int64(a.Idle), ManualNs: int64(a.Manual),
	}
}

func autoscaleOf(m *shoalv1.Autoscale) *shoal.Autoscale {
	if m == nil {
		return nil
	}
	return &shoal.Autoscale{
		Min: int(m.GetMin()), Max: int(m.GetMax()), CPU: int(m.GetCpu()), Memory: int(m.GetMemory()),
		Connections: int(m.GetConnections()), Requests: int(m.GetRequests()), Tolerance: int(m.GetTolerance()),
		UpWindow: time.Duration(m.GetUpWindowNs()), DownWindow: time.Duration(m.GetDownWindowNs()),
		UpStep: shareOf(m.GetUpStep()), DownStep: shareOf(m.GetDownStep()),
		Idle: time.Duration(m.GetIdleNs()), Manual: time.Duration(m.GetManualNs()),
	}
}

// autoscale bounds what is computed with; what makes sense, [shoal.Spec.Validate] says.
func (c *checker) autoscale(a *shoal.Autoscale) {
	if a == nil {
		return
	}
	for _, n := range []int{a.Min, a.Max} {
		c.between("autoscale", int64(n), 0, maxSlots)
	}
	for _, n := range []int{a.CPU, a.Memory, a.Connections, a.Requests, a.Tolerance} {
		c.between("autoscale", int64(n), 0, maxSlot)
	}
	for _, s := range []shoal.Share{a.UpStep, a.DownStep} {
		c.between("autoscale", int64(s.N), 0, maxSlots)
		c.between("autoscale", int64(s.Percent), 0, 100)
	}
	c.between("autoscale", int64(min(a.UpWindow, a.DownWindow, a.Idle, a.Manual)), 0, math.MaxInt64)
}

// loadsMessage puts the loads of a state into its message, sorted and cut to their bounds,
// and into the state what it put there.
func loadsMessage(s *shoal.PeerState, m *shoalv1.PeerState) {
	s.Loads = slices.SortedStableFunc(slices.Values(s.Loads), compareLoads)
	s.Loads = s.Loads[:min(len(s.Loads), maxLoads)]
	for i := range s.Loads {
		l := &s.Loads[i]
		m.Loads = append(m.Loads, &shoalv1.ReplicaLoad{Replica: l.Replica[:], CpuMilli: l.CPUMilli, MemBytes: l.MemBytes})
	}
	s.Carried = slices.SortedStableFunc(slices.Values(s.Carried), compareCarried)
	s.Carried = s.Carried[:min(len(s.Carried), maxLoads)]
	for _, x := range s.Carried {
		m.Carried = append(m.Carried, &shoalv1.Carried{Service: x.Service, Open: int32(x.Open), RateMilli: x.Rate})
	}
}

// loadsOf is the inverse of loadsMessage.
func loadsOf(m *shoalv1.PeerState, s *shoal.PeerState) error {
	for _, l := range m.GetLoads() {
		id, err := replicaOf(l.GetReplica())
		if err != nil {
			return err
		}
		s.Loads = append(s.Loads, shoal.ReplicaLoad{Replica: id, CPUMilli: l.GetCpuMilli(), MemBytes: l.GetMemBytes()})
	}
	for _, x := range m.GetCarried() {
		s.Carried = append(s.Carried, shoal.Carried{Service: x.GetService(), Open: int(x.GetOpen()), Rate: x.GetRateMilli()})
	}
	return nil
}

func compareLoads(a, b shoal.ReplicaLoad) int { return bytes.Compare(a.Replica[:], b.Replica[:]) }
func compareCarried(a, b shoal.Carried) int   { return cmp.Compare(a.Service, b.Service) }

// Bounds of a load: a million cores, 2^50 bytes, 2^31 connections, a billion a second.
const (
	maxCPUMilli = 1_000_000_000
	maxMemBytes = 1 << 50
	maxRate     = 1_000_000_000_000
)

func (c *checker) loads(s *shoal.PeerState) {
	c.count("loads", len(s.Loads), maxLoads)
	for _, l := range s.Loads {
		c.between("loads", l.CPUMilli, 0, maxCPUMilli)
		c.between("loads", l.MemBytes, 0, maxMemBytes)
	}
	c.count("carried", len(s.Carried), maxLoads)
	for _, x := range s.Carried {
		c.service("carried", x.Service)
		c.between("carried", int64(x.Open), 0, math.MaxInt32)
		c.between("carried", x.Rate, 0, maxRate)
	}
}
