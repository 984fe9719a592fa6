// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"github.com/docker/docker/client"
)

// patient reads from a stream and gives up when one read takes too long. The time
// that the caller takes between reads does not count.
type patient struct {
	from    io.Reader
	limit   time.Duration // 0: none
	expire  func()        // makes the read return
	expired atomic.Bool
}

// Read implements io.Reader.
func (p *patient) Read(b []byte) (int, error) {
	if p.limit > 0 {
		late := time.AfterFunc(p.limit, func() {
			p.expired.Store(true)
			p.expire()
		})
		defer late.Stop()
	}
	return p.from.Read(b)
}

// connectWithin is connect within Config.Quick, for streams, whose own context must
// not end that early.
func (d *Docker) connectWithin(ctx context.Context) (*client.Client, error) {
	within, cancel := context.WithTimeout(ctx, d.cfg.Quick)
	defer cancel()
	return d.connect(within)
}
