// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"fmt"
	"time"

	"github.com/shoalnet/shoal"
)

// Config bounds what clients can do. The zero value is not usable; start from Defaults.
type Config struct {
	// Rate is how many questions a second one client may ask for good, Burst how many at
	// once, Clients how many are told apart. Those above Clients share one allowance.
	Rate, Burst, Clients int
	// InFlight is how many foreign questions may be under way for all networks together,
	// ClientInFlight for one client.
	InFlight, ClientInFlight int
	// Conns and ClientConns are how many TCP connections may be open, in all and by one client.
	Conns, ClientConns int
	// Idle is how long a connection may wait for its next question, which must have come
	// whole by then, and how long a client may take to accept an answer.
	Idle time.Duration
	// Try is how long one of the machine's resolvers gets, Whole how long all of them
	// together. The engine's own resolver, through which containers ask, waits 4 s.
	Try, Whole time.Duration
	// Shun is for how long a resolver that fell silent is asked only after the others.
	Shun time.Duration
	// Reread is how often the file that names the machine's resolvers is read.
	Reread time.Duration
}

// Defaults returns the settings for containers that mean well and one that does not.
func Defaults() Config {
	return Config{
		Rate: 500, Burst: 1000, Clients: 4096, InFlight: 512, ClientInFlight: 64,
		Conns: 256, ClientConns: 16, Idle: 10 * time.Second,
		Try: 1500 * time.Millisecond, Whole: 3500 * time.Millisecond, Shun: 30 * time.Second, Reread: 5 * time.Second,
	}
}

// Validate returns a *shoal.InvalidError for a field that is not positive.
func (c Config) Validate() error {
	for _, f := range []struct {
		field string
		n     int64
	}{
		{"rate", int64(c.Rate)},
		{"burst", int64(c.Burst)},
		{"clients", int64(c.Clients)},
		{"in_flight", int64(c.InFlight)},
		{"client_in_flight", int64(c.ClientInFlight)},
		{"conns", int64(c.Conns)},
		{"client_conns", int64(c.ClientConns)},
		{"idle", int64(c.Idle)},
		{"try", int64(c.Try)},
		{"whole", int64(c.Whole)},
		{"shun", int64(c.Shun)},
		{"reread", int64(c.Reread)},
	} {
		if f.n <= 0 {
			return &shoal.InvalidError{Field: f.field, Why: fmt.Sprintf("must be more than 0, got %d", f.n)}
		}
	}
	return nil
}
