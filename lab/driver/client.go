// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package driver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/shoalnet/shoal/lab"
)

// Client asks the driver of a lab. It is safe for concurrent use.
type Client struct {
	name string
	http *http.Client
}

// Dial returns a client of the driver of a lab. Nothing is asked yet.
func Dial(name string) *Client { return dialAt(name, socketOf(name)) }

func dialAt(name, socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &Client{name: name, http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// ErrNoDriver says that no driver answers: there is no such lab, or its driver is gone.
var ErrNoDriver = errors.New("no driver answers")

// DeafError says that something drives a lab and takes no commands: a test, or a driver
// that is just beginning or ending.
type DeafError struct {
	Name   string
	Driver int // the process; 0: it has not said
}

// Error implements error.
func (e *DeafError) Error() string {
	who := "another process"
	if e.Driver != 0 {
		who = fmt.Sprintf("process %d", e.Driver)
	}
	return fmt.Sprintf("lab %s is driven by %s, which takes no commands, as tests do; it ends with that process", e.Name, who)
}

// deafFor is how long a driver may be deaf: it listens as soon as it has the lab's name,
// and one that was killed has the name until the kernel is done with it.
const deafFor = time.Second

// Do asks for a verb and reads its answer, if into is not nil. What the lab refuses is an
// [*Error]; who does not listen is a [*DeafError].
func (c *Client) Do(ctx context.Context, v Verb, a Ask, into any) error {
	body, err := json.Marshal(a)
	if err != nil {
		return err
	}
	tick := time.NewTicker(deafFor / 50)
	defer tick.Stop()
	for until := time.Now().Add(deafFor); ; {
		err := c.once(ctx, v, body, into)
		var isDeaf *DeafError
		if !errors.As(err, &isDeaf) || time.Now().After(until) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *Client) once(ctx context.Context, v Verb, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://lab/"+string(v), bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if info, findErr := lab.Find(c.name); findErr == nil && info.IsRunning {
			return &DeafError{Name: c.name, Driver: info.Driver}
		}
		return fmt.Errorf("%w of lab %s: %w", ErrNoDriver, c.name, err)
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	var r reply
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		return fmt.Errorf("read the driver's answer: %w", err)
	}
	if r.Error != nil {
		return r.Error
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(r.Answer, into)
}

// Down ends the lab and waits until nothing of it is left. ErrNoDriver: its driver is
// gone; see [Remove].
func (c *Client) Down(ctx context.Context) error { return c.Do(ctx, down, Ask{}, nil) }

// Remove ends the lab of a name and removes everything of it, whether its driver lives or
// not, and waits until that has ended. There being none is no error.
func Remove(ctx context.Context, name string) error {
	for {
		end := watch(ctx, socketOf(name))
		err := Dial(name).Down(ctx)
		if err == nil {
			end.await(ctx)
		}
		end.close()
		if !errors.Is(err, ErrNoDriver) {
			return err
		}
		var refused *lab.CheckError
		if err = lab.Sweep(name); !errors.As(err, &refused) {
			return err
		} // else a lab of the name has just begun: it has a driver
	}
}

// Spawn starts a process that calls Drive, in a session of its own, and returns when its
// lab is up. If it cannot be, or ctx ends before, nothing of it is left.
func Spawn(ctx context.Context, command []string, o *Order, progress func(string)) error {
	order, err := json.Marshal(o)
	if err != nil {
		return err
	}
	errs, err := os.CreateTemp("", "shoal-lab-*")
	if err == nil {
		defer func() { _ = errs.Close() }() // it has no name
		err = os.Remove(errs.Name())
	}
	if err != nil {
		return fmt.Errorf("start the driver: %w", err)
	}
	cmd := exec.Command(command[0], command[1:]...) //nolint:noctx // it outlives ctx
	cmd.Stdin, cmd.Stderr = bytes.NewReader(order), errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Dir = "/" // or where it was started stays in use
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the driver: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) }) // it may have ended
	defer stop()
	lines := json.NewDecoder(out)
	for {
		var w word
		if err := lines.Decode(&w); err != nil || w.Error != nil {
			_ = out.Close() // it is not heard any more, and ends if it says more
			ended := cmd.Wait()
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case w.Error != nil:
				return w.Error
			case ended != nil:
				return errors.Join(fmt.Errorf("the driver ended: %w%s", ended, lastWords(errs)), sweep(o.Name))
			case errors.Is(err, io.EOF):
				return errors.New("the driver ended before the lab was up")
			}
			return fmt.Errorf("the driver said what is not understood: %w", err)
		}
		if w.Up {
			return cmd.Process.Release()
		}
		progress(w.Say)
	}
}

// sweep removes what a driver left that was killed while its lab came up, if it had one.
func sweep(name string) error {
	var refused *lab.CheckError // another drives the lab
	if err := lab.Sweep(name); !errors.As(err, &refused) {
		return err
	}
	return nil
}

// lastWords is the beginning of what a process said, for an error's end.
func lastWords(f *os.File) string {
	const most = 2000 // bytes: the beginning of a crash tells why
	text := make([]byte, most)
	n, _ := f.ReadAt(text, 0) // less is there, or nothing
	if said := strings.TrimSpace(string(text[:n])); said != "" {
		return fmt.Sprintf("; it said %q", said)
	}
	return ""
}
