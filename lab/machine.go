// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/shoalnet/shoal/lab/drive"
	"github.com/shoalnet/shoal/lab/host"
	"github.com/shoalnet/shoal/lab/topology"
	"github.com/shoalnet/shoal/lab/wire"
)

// machine is a host or a router, whether it runs or not.
type machine struct {
	name     string
	of       *topology.Host // nil: a router
	zone     string         // a router's
	isRouter bool
	places   []topology.Place // of its cards
	spec     host.Spec
	group    host.Group
	dir      string
	turn     chan struct{} // holds one token of whoever boots, ends or freezes it

	hasImages bool // its engine was given the lab's images; for whoever has the turn

	mu       sync.Mutex // guards the rest
	host     *host.Host // nil: it is down
	ports    []*wire.Port
	isFrozen bool
	ended    map[string]string // processes that ended since they were started, and how
}

// DownError says that a host does not run, or does nothing because it is frozen.
type DownError struct {
	Host     string
	IsFrozen bool
}

func (e *DownError) Error() string {
	if e.IsFrozen {
		return e.Host + " is frozen; thaw it first"
	}
	return e.Host + " is down; boot it first"
}

// take waits for the machine's turn; the caller gives it back.
func (m *machine) take(ctx context.Context) error {
	select {
	case m.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for %s: %w", m.name, ctx.Err())
	}
}

func (m *machine) giveBack() { <-m.turn }

// running returns the host, or a [*DownError].
func (m *machine) running() (*host.Host, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.host != nil {
		select {
		case <-m.host.Done(): // by itself, or by somebody's hand
		default:
			return m.host, nil
		}
	}
	return nil, &DownError{Host: m.name}
}

// answering returns the host, or a [*DownError] also if it is frozen, as it would leave
// whoever asks it without an answer.
func (m *machine) answering() (*host.Host, error) {
	h, err := m.running()
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isFrozen {
		return nil, &DownError{Host: m.name, IsFrozen: true}
	}
	return h, nil
}

func (m *machine) log(what string) string { return filepath.Join(m.dir, what+".log") }

// howEnded says how a process ended since it was started last, "" if it did not.
func (m *machine) howEnded(name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ended[name]
}

func (m *machine) noteEnd(name, how string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended == nil {
		m.ended = map[string]string{}
	}
	m.ended[name] = how
}

func (m *machine) noteStart(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.ended, name)
}

// boot boots a machine that is down and starts what belongs on it. A machine that does
// not come up whole is down again.
func (l *Lab) boot(ctx context.Context, m *machine) error {
	if err := m.take(ctx); err != nil {
		return err
	}
	defer m.giveBack()
	select {
	case <-l.over:
		return fmt.Errorf("boot %s: %w", m.name, ErrClosed)
	default:
	}
	if _, err := m.running(); err == nil {
		return fmt.Errorf("boot %s: it is up", m.name)
	}
	if err := l.end(m); err != nil { // what is left of an earlier life that ended by itself
		return err
	}
	err := l.powerUp(ctx, m)
	if err == nil && !m.isRouter {
		err = l.startAll(ctx, m)
	}
	if err != nil {
		if endErr := l.end(m); endErr != nil {
			err = errors.Join(err, endErr)
		}
		return err
	}
	l.cfg.Log.Info("host is up", "host", m.name)
	l.cfg.Progress(m.name + " is up")
	return nil
}

// powerUp boots the host itself and plugs its cards in.
func (l *Lab) powerUp(ctx context.Context, m *machine) error {
	for _, d := range m.spec.Disks {
		if err := host.MakeDisk(ctx, d); err != nil {
			return &BootError{Host: m.name, What: "boot", Err: err}
		}
	}
	// The file may hold the words of earlier boots; these are not why this one fails.
	if err := os.Remove(m.log("init")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &BootError{Host: m.name, What: "boot", Err: err}
	}
	h, err := host.Boot(ctx, host.Config{
		Init: l.cfg.Binaries.Init, Spec: m.spec, Group: m.group, Log: m.log("init"),
		Ended: func(e host.Ended) {
			m.noteEnd(e.Name, e.How)
			l.cfg.Log.Info("process ended", "host", m.name, "process", e.Name, "how", e.How)
		},
	})
	if err != nil {
		return &BootError{Host: m.name, What: "boot", Last: lastLine(m.log("init")), Err: err}
	}
	m.mu.Lock()
	m.host, m.isFrozen, m.ended = h, false, nil
	m.mu.Unlock()
	for i, tap := range h.TAPs() {
		place := m.places[i]
		port, err := l.sw.Attach(place.Segment, m.name, place.MAC, wire.TAP{File: tap})
		if err != nil {
			for _, rest := range h.TAPs()[i:] {
				err = errors.Join(err, rest.Close())
			}
			return &BootError{Host: m.name, What: "boot", Err: err}
		}
		m.mu.Lock()
		m.ports = append(m.ports, port)
		m.mu.Unlock()
	}
	return nil
}

// cutPower ends a machine, however it is. Who has its turn is not waited for: without
// power, what is being done to it fails.
func (l *Lab) cutPower(ctx context.Context, m *machine) error {
	if h, err := m.running(); err == nil {
		if err := h.Kill(); err != nil {
			return err
		}
	}
	if err := m.take(ctx); err != nil {
		return err
	}
	defer m.giveBack()
	return l.end(m)
}

// end is a power cut, for whoever has the machine's turn. A machine that is down stays so.
func (l *Lab) end(m *machine) error {
	m.mu.Lock()
	h, ports := m.host, m.ports
	m.mu.Unlock()
	var err error
	if h != nil {
		err = h.Kill()
	}
	for _, p := range ports {
		err = errors.Join(err, l.sw.Detach(p))
	}
	m.mu.Lock()
	m.host, m.ports, m.isFrozen = nil, nil, false
	m.mu.Unlock()
	return err
}

// signal signals the processes of a name.
func (m *machine) signal(ctx context.Context, name string, s syscall.Signal) error {
	h, err := m.answering()
	if err != nil {
		return err
	}
	if err := h.Signal(ctx, name, s); err != nil {
		return fmt.Errorf("%s of %s: %w", name, m.name, err)
	}
	return nil
}

// heldWithin is how long the kernel may take to stop or go on with a process that was
// told to.
const heldWithin = 10 * time.Second

// hold stops a process where it stands, or lets it go on, and returns when it has.
func (m *machine) hold(ctx context.Context, name string, isHeld bool) error {
	s, what := syscall.SIGCONT, "goes on"
	if isHeld {
		s, what = syscall.SIGSTOP, "stands still"
	}
	if err := m.signal(ctx, name, s); err != nil {
		return err
	}
	return drive.Until(ctx, heldWithin, fmt.Sprintf("%s of %s %s", name, m.name, what), func() error {
		p, isThere, err := m.proc(ctx, name)
		if err == nil && isThere && p.IsFrozen != isHeld { // if it has ended there is nothing to wait for
			err = errors.New("it does not yet")
		}
		return err
	})
}

// proc looks for a process by its name.
func (m *machine) proc(ctx context.Context, name string) (p host.ProcState, isThere bool, err error) {
	h, err := m.answering()
	if err != nil {
		return p, false, err
	}
	procs, _, err := h.Procs(ctx)
	if err != nil {
		return p, false, fmt.Errorf("list processes of %s: %w", m.name, err)
	}
	i := slices.IndexFunc(procs, func(p host.ProcState) bool { return p.Name == name })
	if i < 0 {
		return p, false, nil
	}
	return procs[i], true, nil
}
