// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/tree"
)

// TwinConfig configures a [Twin].
type TwinConfig struct {
	Cluster  shoal.PeerID
	Peer     shoal.PeerID
	Capacity shoal.Resources // 0: 4 cores, 8 GiB
	Images   []string        // references it holds from the start
	Latency  Latency
	Deadline time.Duration // of every call; 0: 5s
	Rules    []string      // what its machine's owner allows from the start
	Pool     netip.Prefix  // as Config.Pool
}

// Latency is how long an engine takes. FACTS section 7 has what a real one takes:
// about 0.2 s for a create and a start each.
type Latency struct {
	Create, Start, Remove time.Duration
	Call                  time.Duration // everything else
}

// Program says how containers of one image behave. The zero value runs until it is
// stopped, obeys the stop signal at once, and is healthy at once where the spec asks
// for a health check.
type Program struct {
	CreateErr    error         // Create fails with it
	StartErr     error         // Start fails with it
	HealthCheck  bool          // the image has a health check of its own
	HealthyAfter time.Duration // from start to the first passed check
	NeverHealthy bool          // unhealthy after HealthyAfter instead
	Exits        bool          // it ends by itself, ExitAfter its start
	ExitAfter    time.Duration
	ExitCode     int
	OOM          bool          // the exit is the memory limit's doing
	IgnoreStop   bool          // the stop signal does nothing: killed after the grace
	StopTakes    time.Duration // from the signal to the exit
	Lines        []string      // printed at start
	CheckSays    string        // by each health check
	// Exec runs a command inside and returns its exit code; nil: there is none, 127.
	Exec func(ctx context.Context, opts shoal.ExecOptions, t shoal.Terminal) int
}

// Twin is an engine in memory, for simulation: same contract as [Docker], no
// process behind it. It tells what was done to it ([Twin.History], [Twin.Counts])
// and can be made to fail. It outlives the daemon that uses it, as an engine does.
// It is safe for concurrent use, blocks on timers and channels only, and starts no
// goroutine but those of its timers: it works in a testing/synctest bubble.
type Twin struct {
	cfg   TwinConfig
	clock shoal.Clock

	mu         sync.Mutex // guards all below; never held while waiting
	containers map[string]*twinContainer
	images     map[string]*twinImage // by ID
	names      map[string]string     // normalized, to ID
	programs   map[string]Program
	latency    Latency
	down       bool
	hang       chan struct{} // closed when the hang ends; nil: not hanging
	createErrs []error       // of the next creates
	rules      []string
	volumes    map[string]bool // by name, true: ours
	networks   map[string]*twinNetwork
	watchers   map[*watcher]bool
	history    []TwinEvent
	counts     map[shoal.ReplicaID]TwinCounts
	uses       map[string]shoal.Usage // of each container of a service
	made       int
	nextPort   uint16
}

// twinContainer is one container; Twin.mu guards it.
type twinContainer struct {
	shoal.Container
	spec    shoal.ContainerSpec
	program Program
	foreign bool
	number  int
	life    int           // grows with every start; timers of an older life do nothing
	ended   chan struct{} // closed when this life ends; nil before the first
	lines   []shoal.LogLine
	printed chan struct{} // closed at the next line or end
	files   tree.Tree     // has a lock of its own
	addrs   []netip.Addr  // on spec.Networks, while it runs
}

// NewTwin returns an engine without containers.
func NewTwin(cfg TwinConfig, clock shoal.Clock) *Twin {
	if cfg.Deadline == 0 {
		cfg.Deadline = 5 * time.Second
	}
	setDefault(&cfg.Pool, defaultPool)
	if cfg.Capacity == (shoal.Resources{}) {
		cfg.Capacity = shoal.Resources{CPUMilli: 4000, MemBytes: 8 << 30}
	}
	t := &Twin{
		cfg: cfg, clock: clock, latency: cfg.Latency, rules: cfg.Rules,
		volumes:    make(map[string]bool),
		networks:   make(map[string]*twinNetwork),
		containers: make(map[string]*twinContainer),
		programs:   make(map[string]Program),
		watchers:   make(map[*watcher]bool),
		counts:     make(map[shoal.ReplicaID]TwinCounts),
		nextPort:   32768,
	}
	t.SetImages(cfg.Images...)
	return t
}

// Create implements [shoal.Engine].
func (t *Twin) Create(ctx context.Context, spec shoal.ContainerSpec) (string, error) {
	if err := checkSpec(&spec, t.cfg.Cluster, t.cfg.Peer); err != nil {
		return "", err
	}
	if _, err := labelsOf(&spec); err != nil {
		return "", err
	}
	if err := t.enter(ctx, "create container", func(l Latency) time.Duration { return l.Create }); err != nil {
		return "", err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, c := range t.containers {
		if !c.foreign && c.Replica == spec.Replica {
			return id, nil
		}
	}
	if err := t.admit(spec.Spec); err != nil {
		return "", err
	}
	if err := t.attachable(&spec); err != nil {
		return "", fmt.Errorf("create container: %w", err)
	}
	image := t.lookup(cmp.Or(spec.Image, spec.Spec.Image))
	if image == nil {
		return "", fmt.Errorf("create container: %w", &missingImage{ref: spec.Spec.Image})
	}
	program := t.programs[shoal.NormalizeRef(spec.Spec.Image)]
	err := program.CreateErr
	if len(t.createErrs) > 0 {
		err, t.createErrs = t.createErrs[0], t.createErrs[1:]
	}
	if err != nil {
		return "", fmt.Errorf("create container: %w", err)
	}
	id := t.newID()
	c := &twinContainer{spec: spec, program: program, number: t.made, printed: make(chan struct{})}
	c.Container = shoal.Container{
		ID: id, Name: nameOf(&spec), Cluster: spec.Cluster, Peer: spec.Peer, Replica: spec.Replica,
		Service: spec.Spec.Name, Revision: spec.Revision, Record: slices.Clone(spec.Record),
		State: shoal.ContainerCreated, Image: image.id, Created: t.clock.Wall(),
	}
	t.containers[id] = c
	t.note(c, "create", "")
	return id, nil
}

// admit asks the owner's rules and makes the volumes that are not there, as Docker
// does; a twin has no paths, so every path is what it says. Callers hold t.mu.
func (t *Twin) admit(s *shoal.Spec) error {
	if d := shoal.Forbidden(t.rules, s.Demands()); d != "" {
		return &shoal.PolicyError{Demand: d}
	}
	for _, m := range s.Setup.Mounts {
		if m.Kind != shoal.MountVolume || m.Source == "" {
			continue
		}
		ours, there := t.volumes[m.Source]
		switch {
		case m.External && !there:
			return noVolume(m.Source)
		case m.External:
		case there && !ours:
			return foreignVolume(m.Source)
		default:
			t.volumes[m.Source] = true
		}
	}
	return nil
}

// newID returns the ID of a new container: 64 hexadecimal digits, as engines do.
func (t *Twin) newID() string {
	t.made++
	return fmt.Sprintf("%064x", t.made)
}

// Start implements [shoal.Engine].
func (t *Twin) Start(ctx context.Context, id string) error {
	if err := t.enter(ctx, "start container", func(l Latency) time.Duration { return l.Start }); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.own(id)
	if err != nil {
		return fmt.Errorf("start container %s: %w", short(id), err)
	}
	if c.State == shoal.ContainerRunning {
		return nil
	}
	if err := c.program.StartErr; err != nil {
		return fmt.Errorf("start container %s: %w", short(id), err)
	}
	if err := t.bind(c); err != nil {
		return fmt.Errorf("start container %s: %w", short(id), err)
	}
	t.begin(c)
	return nil
}

// Stop implements [shoal.Engine].
func (t *Twin) Stop(ctx context.Context, id, _ string, grace time.Duration) error {
	if err := t.enter(ctx, "stop container", func(l Latency) time.Duration { return l.Call }); err != nil {
		return err
	}
	ended, err := t.signal(id, grace)
	if err != nil || ended == nil {
		return err
	}
	deadline := time.NewTimer(grace + t.cfg.Deadline)
	defer deadline.Stop()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop container %s: %w", short(id), ctx.Err())
	case <-deadline.C:
		return fmt.Errorf("stop container %s: %w", short(id), shoal.ErrEngineDown)
	}
}

// signal begins to stop a container and returns what is closed when it has ended;
// nil when there is nothing to wait for.
func (t *Twin) signal(id string, grace time.Duration) (<-chan struct{}, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.own(id)
	switch {
	case isNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("stop container %s: %w", short(id), err)
	case c.State != shoal.ContainerRunning:
		return nil, nil
	}
	t.note(c, "stop", "kill")
	takes, code := c.program.StopTakes, 0
	if c.program.IgnoreStop || takes > grace {
		takes, code = grace, 137
	}
	if takes <= 0 {
		t.end(c, code, false)
		return nil, nil
	}
	life := c.life
	time.AfterFunc(takes, func() { t.endLife(id, life, code, false) })
	return c.ended, nil
}

// Remove implements [shoal.Engine].
func (t *Twin) Remove(ctx context.Context, id string) error {
	if err := t.enter(ctx, "remove container", func(l Latency) time.Duration { return l.Remove }); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.own(id)
	switch {
	case isNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("remove container %s: %w", short(id), err)
	}
	t.drop(c)
	return nil
}

// List implements [shoal.Engine].
func (t *Twin) List(ctx context.Context) ([]shoal.Container, error) {
	if err := t.enter(ctx, "list containers", func(l Latency) time.Duration { return l.Call }); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]shoal.Container, 0, len(t.containers))
	for _, c := range t.containers {
		if c.foreign {
			continue
		}
		one := c.Container
		one.Ports = slices.Clone(one.Ports)
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b shoal.Container) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// Info implements [shoal.Machine].
func (t *Twin) Info(ctx context.Context) (shoal.MachineInfo, error) {
	if err := t.enter(ctx, "ask engine", func(l Latency) time.Duration { return l.Call }); err != nil {
		return shoal.MachineInfo{}, err
	}
	return shoal.MachineInfo{Engine: "twin", API: "1.41", Platform: "linux/amd64", Capacity: t.cfg.Capacity}, nil
}

// Usage implements [shoal.Machine]: every running container uses what its spec sizes it to.
func (t *Twin) Usage(ctx context.Context) (shoal.Resources, error) {
	if err := t.enter(ctx, "measure containers", func(l Latency) time.Duration { return l.Call }); err != nil {
		return shoal.Resources{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var sum shoal.Resources
	for _, c := range t.containers {
		if !c.foreign && c.State == shoal.ContainerRunning {
			sum = sum.Add(c.spec.Spec.Size())
		}
	}
	return sum, nil
}
