// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"time"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

func specMessage(s *shoal.Spec) *shoalv1.Spec {
	m := &shoalv1.Spec{
		Name: s.Name, Project: s.Project, Image: s.Image, Entrypoint: s.Entrypoint, Command: s.Command,
		Env: s.Env, Labels: s.Labels, Limits: resourcesMessage(s.Limits),
		Reservations: resourcesMessage(s.Reservations), PidsLimit: s.PidsLimit, Mode: string(s.Mode),
		Replicas: int32(s.Replicas), Strategy: string(s.Strategy), MaxPerPeer: int32(s.MaxPerPeer),
		Priority: int32(s.Priority), OnPartition: string(s.OnPartition),
		StopSignal: s.StopSignal, StopGraceNs: int64(s.StopGrace), Setup: setupMessage(&s.Setup),
		SpreadBy: s.SpreadBy, VolumesAnywhere: s.VolumesAnywhere, Restarts: int32(s.Restarts),
		Digest: s.Digest, Platforms: s.Platforms,
		Lb: string(s.LB), Prefer: string(s.Prefer), ProxyProtocol: s.ProxyProtocol,
	}
	for _, p := range s.Ports {
		m.Ports = append(m.Ports, &shoalv1.Port{
			Container: uint32(p.Container), Published: uint32(p.Published), Protocol: p.Protocol, Host: p.Host,
		})
	}
	for _, a := range s.Networks {
		m.Networks = append(m.Networks, &shoalv1.Attachment{Network: a.Network, Aliases: a.Aliases})
	}
	for _, c := range s.Constraints {
		m.Constraints = append(m.Constraints, &shoalv1.Selector{Key: c.Key, Op: string(c.Op), Values: c.Values})
	}
	if h := s.Health; h != nil {
		m.Health = &shoalv1.Health{
			Disable: h.Disable, Test: h.Test, IntervalNs: int64(h.Interval), TimeoutNs: int64(h.Timeout),
			StartPeriodNs: int64(h.StartPeriod), Retries: int32(h.Retries),
		}
	}
	if r := s.Restart; r != (shoal.Restart{}) {
		m.Restart = &shoalv1.Restart{
			Condition: string(r.Condition), DelayNs: int64(r.Delay),
			MaxAttempts: int32(r.MaxAttempts), WindowNs: int64(r.Window),
		}
	}
	if s.Rollout != (shoal.Rollout{}) {
		m.Rollout = rolloutMessage(&s.Rollout)
	}
	if s.Rollback != nil {
		m.Rollback = rolloutMessage(s.Rollback)
	}
	m.Autoscale = autoscaleMessage(s.Autoscale)
	m.Job = jobMessage(s.Job)
	m.PreDeploy = preMessage(s.PreDeploy)
	m.Schedule, m.Run = scheduleMessage(s.Schedule), s.Run
	for _, d := range s.DependsOn {
		m.DependsOn = append(m.DependsOn, &shoalv1.Dependency{Service: d.Service, Condition: string(d.Condition), Optional: d.Optional})
	}
	return m
}

func specOf(m *shoalv1.Spec) (shoal.Spec, error) {
	s := shoal.Spec{
		Name: m.GetName(), Project: m.GetProject(), Image: m.GetImage(),
		Entrypoint: m.GetEntrypoint(), Command: m.GetCommand(), Env: m.GetEnv(), Labels: m.GetLabels(),
		Limits: resourcesOf(m.GetLimits()), Reservations: resourcesOf(m.GetReservations()),
		PidsLimit: m.GetPidsLimit(), Mode: shoal.Mode(m.GetMode()), Replicas: int(m.GetReplicas()),
		Strategy: shoal.Strategy(m.GetStrategy()), MaxPerPeer: int(m.GetMaxPerPeer()),
		Priority: int(m.GetPriority()), OnPartition: shoal.OnPartition(m.GetOnPartition()),
		StopSignal: m.GetStopSignal(), StopGrace: time.Duration(m.GetStopGraceNs()), Setup: setupOf(m.GetSetup()),
		SpreadBy: m.GetSpreadBy(), VolumesAnywhere: m.GetVolumesAnywhere(), Restarts: int(m.GetRestarts()),
		Digest: m.GetDigest(), Platforms: m.GetPlatforms(),
		LB: shoal.LB(m.GetLb()), Prefer: shoal.Prefer(m.GetPrefer()), ProxyProtocol: m.GetProxyProtocol(),
	}
	for _, p := range m.GetPorts() {
		c, err := portOf(p.GetContainer())
		if err != nil {
			return s, err
		}
		pub, err := portOf(p.GetPublished())
		if err != nil {
			return s, err
		}
		s.Ports = append(s.Ports, shoal.Port{Container: c, Published: pub, Protocol: p.GetProtocol(), Host: p.GetHost()})
	}
	for _, a := range m.GetNetworks() {
		s.Networks = append(s.Networks, shoal.Attachment{Network: a.GetNetwork(), Aliases: a.GetAliases()})
	}
	for _, c := range m.GetConstraints() {
		s.Constraints = append(s.Constraints, shoal.Selector{
			Key: c.GetKey(), Op: shoal.Op(c.GetOp()), Values: c.GetValues(),
		})
	}
	if h := m.GetHealth(); h != nil {
		s.Health = &shoal.Health{
			Disable: h.GetDisable(), Test: h.GetTest(), Interval: time.Duration(h.GetIntervalNs()),
			Timeout: time.Duration(h.GetTimeoutNs()), StartPeriod: time.Duration(h.GetStartPeriodNs()),
			Retries: int(h.GetRetries()),
		}
	}
	if r := m.GetRestart(); r != nil {
		s.Restart = shoal.Restart{
			Condition: shoal.RestartCondition(r.GetCondition()), Delay: time.Duration(r.GetDelayNs()),
			MaxAttempts: int(r.GetMaxAttempts()), Window: time.Duration(r.GetWindowNs()),
		}
	}
	s.Rollout = rolloutOf(m.GetRollout())
	if m.GetRollback() != nil {
		r := rolloutOf(m.GetRollback())
		s.Rollback = &r
	}
	s.Autoscale = autoscaleOf(m.GetAutoscale())
	s.Job = jobOf(m.GetJob())
	s.PreDeploy = preOf(m.GetPreDeploy())
	s.Schedule, s.Run = scheduleOf(m.GetSchedule()), m.GetRun()
	for _, d := range m.GetDependsOn() {
		s.DependsOn = append(s.DependsOn, shoal.Dependency{
			Service: d.GetService(), Condition: shoal.Condition(d.GetCondition()), Optional: d.GetOptional(),
		})
	}
	return s, nil
}
