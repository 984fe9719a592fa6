// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"errors"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/exchange"
	"github.com/shoalnet/shoal/images/upstream"
)

// Config are the limits of this room. Take [Defaults] and change them.
type Config struct {
	Dir       string // of the blobs, and of the registry's password
	Registry  string // "IP:PORT" on loopback where it listens; "": none
	AnyPort   bool   // if that port is taken another one will do
	Open      bool   // the registry asks for no password
	Blobs     blobs.Config
	Exchange  exchange.Config
	Upstream  upstream.Config
	Headroom  int64         // bytes to keep free for what comes next, of a small disk a twentieth
	Tidy      time.Duration // period of making that room
	MinCopies int           // peers that hold an image before one drops it, unless its record says otherwise
	Quiet     time.Duration // between two looks for a blob that nobody has yet
}

// Defaults returns what suits peers near and far: what depends on the distance is measured.
func Defaults() Config {
	return Config{
		Registry:  "127.0.0.1:5050",
		AnyPort:   true,
		Blobs:     blobs.Config{Share: 0.5, Reserve: 1 << 30, ReserveShare: 0.05, Expire: 24 * time.Hour},
		Exchange:  exchange.Defaults(),
		Upstream:  upstream.Config{Registries: []string{"*"}},
		Headroom:  2 << 30,
		Tidy:      time.Minute,
		MinCopies: 2, // the default: one machine may be lost
		Quiet:     time.Second,
	}
}

// Validate returns a *shoal.InvalidError for the first value that makes no sense.
func (c Config) Validate() error {
	switch {
	case c.Dir == "":
		return &shoal.InvalidError{Field: "images.dir", Why: "must name a directory"}
	case c.Headroom < 0:
		return &shoal.InvalidError{Field: "images.headroom", Why: "must not be negative"}
	case c.MinCopies < 1:
		return &shoal.InvalidError{Field: "images.min_copies", Why: "must be at least 1"}
	case c.Tidy <= 0 || c.Quiet <= 0:
		return &shoal.InvalidError{Field: "images.tidy, quiet", Why: "must be longer than 0"}
	}
	if err := c.Blobs.Validate(); err != nil {
		return err
	}
	return errors.Join(c.Exchange.Validate(), c.Upstream.Validate())
}
