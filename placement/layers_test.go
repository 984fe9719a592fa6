// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"
	"slices"
	"testing"

	"github.com/shoalnet/shoal"
)

// TestLayersCount: of peers that are as good, who holds more of the image gets the slot,
// but never by a replica more, nor by much more load.
func TestLayersCount(t *testing.T) {
	const web = "web"
	for _, c := range []struct {
		name string
		set  func(k *kit, layer, base shoal.BlobKey)
		pack bool
		want shoal.PeerID
	}{
		{"all of it", func(k *kit, layer, base shoal.BlobKey) { k.stores("p002", layer, base) }, false, "p002"},
		{"more of it", func(k *kit, layer, base shoal.BlobKey) {
			k.stores("p000", base)
			k.stores("p001", layer)
		}, false, "p001"},
		{"not by a replica more", func(k *kit, layer, base shoal.BlobKey) {
			k.stores("p000", layer, base)
			k.stores("p001", layer, base)
			k.hold(web, 1, "p000")
			k.hold(web, 2, "p001")
		}, false, "p002"},
		{"a bit more load", func(k *kit, layer, base shoal.BlobKey) {
			k.stores("p002", layer, base)
			for slot := range 6 { // 6 of 64 cores: less than a tenth
				k.hold("other", slot, "p002")
			}
		}, false, "p002"},
		{"not by a tenth more load", func(k *kit, layer, base shoal.BlobKey) {
			k.stores("p002", layer, base)
			for slot := range 7 {
				k.hold("other", slot, "p002")
			}
			k.peers[0].Cordoned = true
		}, false, "p001"},
		{"binpack too", func(k *kit, layer, base shoal.BlobKey) {
			k.hold("other", 0, "p000")
			k.stores("p002", layer, base)
		}, true, "p002"},
		{"what it holds otherwise does not count", func(k *kit, layer, _ shoal.BlobKey) {
			k.stores("p002", layer+1, layer+2)
			k.stores("p001", layer)
		}, false, "p001"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newKit(3)
			k.service("other", 7)
			digest, keys := k.image("app:v1", 100, 900)
			svc := k.service(web, 3)
			svc.Spec.Image, svc.Spec.Digest = "app:v1", digest
			if c.pack {
				svc.Spec.Strategy = shoal.StrategyBinpack
			}
			spec := svc.Spec
			c.set(k, keys[1], keys[0])
			placed := Propose(k.view("p000"), []Wanted{{Spec: spec, Replicas: 3}})[0]
			if placed.Slots[0] != c.want {
				t.Errorf("slot 0 goes to %s, want %s (%v)", placed.Slots[0], c.want, Explain(k.view("p000"), &spec))
			}
		})
	}
}

func TestExplainSaysLayers(t *testing.T) {
	k := newKit(3)
	digest, keys := k.image("app:v1", 100, 300, 600)
	spec := k.service("web", 1).Spec
	k.stores("p001", keys[0], keys[1])
	k.stores("p002", keys...)
	for _, c := range []struct {
		digest string
		want   []string
	}{
		{"", []string{"", "", ""}},
		{"sha256:of something else", []string{"", "", ""}},
		{digest, []string{", 0% of its image here", ", 25% of its image here", ", 100% of its image here"}},
	} {
		spec.Digest = c.digest
		var got []string
		for _, v := range Explain(k.view("p000"), &spec) {
			got = append(got, v.Score)
		}
		for i := range c.want {
			c.want[i] = "0 held, 2% full after" + c.want[i]
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("digest %.20q: scores %q, want %q", c.digest, got, c.want)
		}
	}
}

// TestLayersOfOddRecords: sizes that nobody has lead to nothing odd.
func TestLayersOfOddRecords(t *testing.T) {
	k := newKit(2)
	digest, keys := k.image("app:v1", 0, -5, 1<<62, 1<<50, 1<<50, 1<<50, 7)
	k.images[0].Blobs = append(k.images[0].Blobs, shoal.BlobRef{Digest: "sha256:short", Size: 1})
	spec := k.service("web", 1).Spec
	spec.Digest = digest
	k.stores("p001", keys...)
	got := Explain(k.view("p000"), &spec)
	if want := "0 held, 2% full after, 100% of its image here"; got[1].Score != want || got[0].Score == want {
		t.Errorf("scores = %q and %q, want the second %q", got[0].Score, got[1].Score, want)
	}
}

// BenchmarkDecideLossOfImages is BenchmarkDecideLoss with an image of ten blobs for each
// service, and peers that hold 200 blobs each.
func BenchmarkDecideLossOfImages(b *testing.B) {
	k := lossKit(10)
	var all []shoal.BlobKey
	for i := range k.services {
		digest, keys := k.image(fmt.Sprintf("app:%04d", i), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
		k.services[i].Spec.Image, k.services[i].Spec.Digest = "app", digest
		all = append(all, keys...)
	}
	for i := range k.peers {
		var mine []shoal.BlobKey
		for j := range 200 {
			mine = append(mine, all[(i*97+j*41)%len(all)])
		}
		k.stores(k.peers[i].ID, mine...)
	}
	benchLoss(b, k)
}
