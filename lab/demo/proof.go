// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/lab/drive"
	"github.com/shoalnet/shoal/proto/blocks"
)

// equalLimit is what a sync of equal peers may move, in bytes.
const equalLimit = 4 << 10

// prove joins the wire with the identity of the dead peer, on a copy of its data,
// and shows that the state is real: it syncs, syncs again for next to nothing, and
// has blocks refused in which one byte was flipped.
func (d *demo) prove(ctx context.Context) (err error) {
	one, two, three := d.peers[0], d.peers[1], d.peers[2]
	dir := filepath.Join(d.dir, "probe")
	if _, err := d.command(ctx, "cp", "-a", d.path(three, ""), dir); err != nil {
		return err
	}
	before, err := d.client(one).Status(ctx)
	if err != nil {
		return err
	}
	w, err := openWire(ctx, dir, three.ip)
	if err != nil {
		return fmt.Errorf("join the wire as three: %w", err)
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := d.proveSync(ctx, w, one); err != nil {
		return err
	}
	if err := d.proveRefusal(ctx, w, one, two); err != nil {
		return err
	}
	after, err := d.client(one).Status(ctx)
	if err != nil {
		return err
	}
	if after.Store.Digest != before.Store.Digest || after.Store.Records != before.Store.Records {
		return fmt.Errorf("the bad blocks changed the state of one: %+v before, %+v after", before.Store, after.Store)
	}
	fmt.Println("  its state is as it was")
	return nil
}

// proveSync brings the copy up to date, and counts what a second sync moves.
func (d *demo) proveSync(ctx context.Context, w *wire, with *peer) error {
	err := drive.Until(ctx, 20*time.Second, "the copy has what "+with.name+" has", func() error {
		if err := w.store.SyncWith(ctx, shoal.PeerID(with.id)); err != nil {
			return err
		}
		s, err := d.client(with).Status(ctx)
		if err == nil && s.Store.Digest != w.store.Digest().String() {
			err = errors.New("digests differ")
		}
		return err
	})
	if err != nil {
		return err
	}
	before := w.store.Stats()
	if err := w.store.SyncWith(ctx, shoal.PeerID(with.id)); err != nil {
		return fmt.Errorf("sync again: %w", err)
	}
	after := w.store.Stats()
	moved := after.SyncIn + after.SyncOut - before.SyncIn - before.SyncOut
	fmt.Printf("  a copy of three's store synced with %s: %d records; syncing again moved %d bytes\n", with.name, after.Records, moved)
	if after.SyncEqual == before.SyncEqual || moved >= equalLimit {
		return fmt.Errorf("a second sync of equal peers moved %d bytes, want less than %d", moved, equalLimit)
	}
	return nil
}

// proveRefusal pushes a real block with one byte flipped, once under its own new
// name, where its signature must give it away, and once under another's, where its
// name must. Every peer must refuse and count both.
func (d *demo) proveRefusal(ctx context.Context, w *wire, peers ...*peer) error {
	good, err := w.fetchBlock(ctx, peers[0].id)
	if err != nil {
		return fmt.Errorf("fetch a block: %w", err)
	}
	renamed, err := flip(good, len(good.Data)/2)
	if err != nil {
		return err
	}
	other, err := flip(good, len(good.Data)/3)
	if err != nil {
		return err
	}
	misnamed := blocks.Block{CID: other.CID, Data: renamed.Data}
	for _, bad := range []blocks.Block{renamed, misnamed} {
		counts := make([]uint64, len(peers))
		for i, p := range peers {
			s, err := d.client(p).Status(ctx)
			if err != nil {
				return err
			}
			counts[i] = s.Refusals()
		}
		if err := w.push(bad); err != nil {
			return fmt.Errorf("push a bad block: %w", err)
		}
		for i, p := range peers {
			if err := drive.Until(ctx, 10*time.Second, p.name+" refuses the flipped block", func() error {
				s, err := d.client(p).Status(ctx)
				if err == nil && s.Refusals() <= counts[i] {
					err = fmt.Errorf("it refused %d", s.Refusals())
				}
				return err
			}); err != nil {
				return err
			}
		}
	}
	for _, p := range peers {
		s, err := d.client(p).Status(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("  %s refused blocks with a flipped byte: %v\n", p.name, s.Store.Refused)
	}
	return nil
}

// flip returns the block with one byte changed, under the name of its new content.
func flip(b blocks.Block, at int) (blocks.Block, error) {
	_, name, err := cid.CidFromBytes(b.CID)
	if err != nil {
		return b, fmt.Errorf("read a block's name: %w", err)
	}
	data := append([]byte(nil), b.Data...)
	data[at] ^= 1
	renamed, err := name.Prefix().Sum(data)
	if err != nil {
		return b, fmt.Errorf("name a block: %w", err)
	}
	return blocks.Block{CID: renamed.Bytes(), Data: data}, nil
}

// sameStores opens a copy of every peer's database, with no network, and checks that
// each holds the same records.
func (d *demo) sameStores(ctx context.Context) error {
	var first shoal.Digest
	for i, p := range d.peers {
		dir := filepath.Join(d.dir, "look-"+p.name)
		if _, err := d.command(ctx, "cp", "-a", d.path(p, "/store"), dir); err != nil {
			return err
		}
		digest, records, err := readStore(ctx, dir, shoal.PeerID(d.cluster))
		if err != nil {
			return fmt.Errorf("open the copy of %s: %w", p.name, err)
		}
		fmt.Printf("  %s holds %d records on disk, digest %.12s\n", p.name, records, digest)
		if i == 0 {
			first = digest
		} else if digest != first {
			return fmt.Errorf("%s holds other records than %s", p.name, d.peers[0].name)
		}
	}
	return nil
}
