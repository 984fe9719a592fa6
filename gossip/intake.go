// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"

	"github.com/shoalnet/shoal"
	codec "github.com/shoalnet/shoal/proto"
	"github.com/shoalnet/shoal/proto/blocks"
)

// Why a block is refused (Refusal.Reason).
const (
	reasonForm      = "form"      // not a message, not a block, too large, too many, unknown fields
	reasonCID       = "cid"       // its bytes are not those of its name
	reasonTombstone = "tombstone" // it deletes something
	reasonKey       = "key"       // a key outside the grammar, or twice in one block
	reasonRecord    = "record"    // a value that is no record, or not the one its key names
	reasonSignature = "signature" // not signed by the author
	reasonChain     = "chain"     // the author has no admission chain to the cluster key
	reasonHeight    = "height"    // not exactly one above its highest parent
)

// refused is the error of a block, or of a message about blocks, that intake does not
// take.
type refused struct {
	reason string
	err    error
}

func (r *refused) Error() string { return "block refused (" + r.reason + "): " + r.err.Error() }

func (r *refused) Unwrap() error { return r.err }

func refuse(reason, format string, args ...any) *refused {
	return &refused{reason, fmt.Errorf(format, args...)}
}

// judge decides whether a block may come in, by what never changes with time or
// order: form, bounds, keys, authors, signatures and admission. What depends on its
// parents, their presence and its height, is left to the writer, which alone knows
// them. The verdict on a block is the same on every peer. Of the chains that came
// along only those are looked at that a record needs.
func (c *chains) judge(in blocks.Block, came offers) (*block, *refused) {
	b, err := decodeBlock(in.Data)
	switch {
	case errors.Is(err, blocks.ErrTombstone):
		return nil, refuse(reasonTombstone, "%w", err)
	case err != nil:
		return nil, refuse(reasonForm, "%w", err)
	case !bytes.Equal(b.cid.Bytes(), in.CID):
		return nil, refuse(reasonCID, "bytes are those of %s", b.cid)
	case len(b.delta.Elements) == 0:
		return nil, refuse(reasonForm, "holds no records")
	}
	b.records = make([]*shoal.Record, len(b.delta.Elements))
	seen := make(map[string]bool, len(b.delta.Elements))
	for i, el := range b.delta.Elements {
		if seen[el.Key] {
			return nil, refuse(reasonKey, "%s is there twice", el.Key)
		}
		seen[el.Key] = true
		rec, no := c.judgeElement(el, came)
		if no != nil {
			return nil, no
		}
		b.records[i] = rec
	}
	return b, nil
}

// judgeElement decides about one record: the key names it, its author signed it and
// was admitted.
func (c *chains) judgeElement(el blocks.Element, came offers) (*shoal.Record, *refused) {
	if _, _, _, _, err := codec.ParseKey(el.Key); err != nil {
		return nil, refuse(reasonKey, "%w", err)
	}
	rec, err := codec.DecodeRecord(el.Value)
	switch {
	case err != nil:
		return nil, refuse(reasonRecord, "%w", err)
	case rec.Key() != el.Key:
		return nil, refuse(reasonRecord, "record %s lies under key %s", rec.Key(), el.Key)
	}
	if err := c.admit(rec.Author, came); err != nil {
		return nil, refuse(reasonChain, "admission of %s: %w", rec.Author, err)
	}
	if err := c.checks.signed(c.cluster, rec); err != nil {
		return nil, refuse(reasonSignature, "%w", err)
	}
	return rec, nil
}

// judgePush judges a message of the topic. It must stand by itself: every block good,
// and beside it the chains of all its authors, whether we need them or not. So the
// verdict is the same on every peer whatever it holds, and who passes on a message
// that is refused is at fault. held says that a block with these bytes is here: it was
// judged before.
func (c *chains) judgePush(push *blocks.Push, held func(blocks.Block) bool) ([]*block, *refused) {
	if len(push.Blocks) == 0 {
		return nil, refuse(reasonForm, "push without a block")
	}
	came := offered(push.Chains)
	found := make([]*block, 0, len(push.Blocks))
	for _, in := range push.Blocks {
		if held(in) {
			b, err := decodeBlock(in.Data)
			if err != nil {
				return nil, refuse(reasonForm, "%w", err)
			}
			if no := c.standAlone(b, came); no != nil {
				return nil, no
			}
			continue
		}
		b, no := c.judge(in, came)
		if no == nil {
			no = c.standAlone(b, came)
		}
		if no != nil {
			return nil, no
		}
		found = append(found, b)
	}
	return found, nil
}

// standAlone refuses a block that came without the chain of one of its authors.
func (c *chains) standAlone(b *block, came offers) *refused {
	seen := map[shoal.PeerID]bool{c.cluster: true} // the cluster's key has none
	for _, el := range b.delta.Elements {
		_, _, author, _, err := codec.ParseKey(el.Key)
		if err != nil {
			return refuse(reasonKey, "%w", err)
		}
		if seen[author] {
			continue
		}
		seen[author] = true
		chain, ok := came[author]
		if !ok {
			return refuse(reasonChain, "admission of %s: no chain beside the block", author)
		}
		if slices.EqualFunc(chain.Envelopes, c.of(author), bytes.Equal) {
			continue // verified before
		}
		if _, err := c.verify(c.cluster, author, chain.Envelopes); err != nil {
			return refuse(reasonChain, "admission of %s: %w", author, err)
		}
	}
	return nil
}

// blockPrefix is what every block's name begins with: dag-pb, SHA-256.
var blockPrefix = func() cid.Prefix {
	p := merkledag.V1CidPrefix()
	p.MhLength = sha256.Size // which that leaves open
	return p
}()

// readCID reads the name of a block. What names anything else is no name.
func readCID(raw []byte) (cid.Cid, error) {
	c, err := cid.Cast(raw)
	switch {
	case err != nil:
		return cid.Undef, fmt.Errorf("read CID: %w", err)
	case c.Prefix() != blockPrefix:
		return cid.Undef, errors.New("read CID: names no block")
	}
	return c, nil
}
