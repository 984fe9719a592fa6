// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
)

// quarters is in how many steps what a peer holds of an image already counts, so that
// beats which come in the midst of a pull change the order of peers a few times at most.
const quarters = 4

// worth is what so many quarters count in the scale of share: a peer that holds all of an
// image counts as a tenth less full. That is less than one replica of the service, whose
// number is compared first with spread.
var worth = [quarters + 1]float64{0, 0.025, 0.05, 0.075, 0.1}

// layers says, by digest of an image, how many quarters of it each peer holds.
type layers map[string][]uint8

// part is one blob of an image that is measured.
type part struct {
	key   shoal.BlobKey
	image int32
	bytes int64
}

// measure looks up what the peers hold of the images of these services, each image once
// a decision. It goes once through all blobs that peers tell of, whatever the number of
// images.
func (w *world) measure(services ...*serviceRow) {
	index := make(map[string]int32)
	for _, s := range services {
		if d := s.spec.Digest; d != "" {
			if _, twice := index[d]; !twice {
				index[d] = int32(len(index))
			}
		}
	}
	if len(index) == 0 {
		return
	}
	parts, totals := w.partsOf(index)
	if len(parts) == 0 {
		return
	}
	near := make([][]uint8, len(totals))
	for i := range near {
		if totals[i] > 0 {
			near[i] = make([]uint8, len(w.peers))
		}
	}
	w.weigh(parts, totals, near)
	w.layers = make(layers, len(index))
	for d, i := range index {
		w.layers[d] = near[i] // nil where no record says what it is made of
	}
}

// weigh fills in near, by image and peer, from the blobs of the images, sorted by key.
func (w *world) weigh(parts []part, totals []int64, near [][]uint8) {
	first := make(map[shoal.BlobKey]int, len(parts))
	for i, x := range slices.Backward(parts) {
		first[x.key] = i
	}
	held := make([]int64, len(totals))
	var touched []int32
	for p := range w.peers {
		st := w.peers[p].state
		if st == nil || w.peers[p].removed {
			continue
		}
		for _, key := range st.Blobs {
			i, ok := first[key]
			for ; ok && i < len(parts) && parts[i].key == key; i++ {
				image := parts[i].image
				if held[image] == 0 {
					touched = append(touched, image)
				}
				held[image] += parts[i].bytes
			}
		}
		for _, image := range touched {
			near[image][p] = uint8(quarters * held[image] / totals[image])
			held[image] = 0
		}
		touched = touched[:0]
	}
}

// partsOf returns the blobs of the images of this index, sorted by key, and the bytes of
// each image, as the record that says most of it has them.
func (w *world) partsOf(index map[string]int32) (parts []part, totals []int64) {
	blobs := make([][]shoal.BlobRef, len(index))
	all := w.v.Desired().Images
	take := func(b *shoal.ImageBody) {
		if at, asked := index[b.Digest]; asked && len(b.Blobs) > len(blobs[at]) {
			blobs[at] = b.Blobs
		}
	}
	for i := range all {
		take(&all[i].ImageBody)
		for r := range all[i].Rivals {
			take(&all[i].Rivals[r])
		}
	}
	totals = make([]int64, len(index))
	for i := range blobs {
		for _, b := range blobs[i] {
			key, ok := shoal.BlobKeyOf(b.Digest)
			if !ok || b.Size <= 0 || b.Size > maxImageBytes || totals[i] > maxImageBytes {
				continue
			}
			parts = append(parts, part{key, int32(i), b.Size})
			totals[i] += b.Size
		}
	}
	slices.SortFunc(parts, func(a, b part) int { return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.image, b.image)) })
	return parts, totals
}

// maxImageBytes keeps sums from overflowing, whatever a record says.
const maxImageBytes = 1 << 50

// layersText says how much of its image a peer holds, "" if nothing is known of it.
func (w *world) layersText(p int, s *serviceRow) string {
	near := w.layers[s.spec.Digest]
	if near == nil {
		return ""
	}
	return fmt.Sprintf(", %d%% of its image here", int(near[p])*100/quarters)
}

// foreign reports whether a peer's machine cannot run a service's image, as far as the
// platforms of both are known.
func (w *world) foreign(p int, s *serviceRow) bool {
	return !w.peers[p].peer.Facts.Runs(s.spec.Platforms)
}

// foreignText says so of one peer.
func (w *world) foreignText(p int, s *serviceRow) string {
	return fmt.Sprintf("image is %s, this peer is %s", platformsText(s.spec.Platforms), platformsText(w.peers[p].peer.Facts.Platforms))
}

// allForeign says so of all of these peers.
func (w *world) allForeign(s *serviceRow, peers []int) string {
	var machines []string
	for _, p := range peers {
		machines = append(machines, w.peers[p].peer.Facts.Platforms...)
	}
	slices.Sort(machines)
	return fmt.Sprintf("image is %s, peers are %s", platformsText(s.spec.Platforms), platformsText(slices.Compact(machines)))
}

func platformsText(all []string) string { return strings.Join(all, ", ") }
