// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

// name says that app:v1 is this digest, as this author, having seen these.
func name(author shoal.PeerID, digest string, replaces ...shoal.RevisionID) *shoal.ImageBody {
	id := rev(1, author)
	for _, r := range replaces {
		id.Seq = max(id.Seq, r.Seq+1)
	}
	return &shoal.ImageBody{Image: "app:v1", ID: id, Replaces: replaces, Digest: digest}
}

func TestImages(t *testing.T) {
	more := func(b *shoal.ImageBody, fn func(*shoal.ImageBody)) *shoal.ImageBody {
		fn(b)
		return b
	}
	a1 := rev(1, "A")
	// each case says the digest, then the rivals, then the heads
	tests := map[string]struct {
		entries []Entry
		want    string
		void    int
	}{
		"one push":                     {[]Entry{at("A", 9, name("A", "x"))}, "x [] 1-A", 0},
		"a later one by who saw it":    {[]Entry{at("A", 9, name("A", "x")), at("B", 9, name("B", "y", a1))}, "y [] 2-B", 0},
		"its own later one":            {[]Entry{at("A", 9, name("A", "x")), at("A", 10, name("A", "y", a1))}, "y [] 2-A", 0},
		"two that agree":               {[]Entry{at("A", 9, name("A", "x")), at("B", 9, name("B", "x"))}, "x [] 1-A 1-B", 0},
		"two that do not":              {[]Entry{at("A", 9, name("A", "x")), at("B", 9, name("B", "y"))}, " [x y] 1-A 1-B", 0},
		"the sequence does not decide": {[]Entry{at("A", 9, name("A", "x")), at("B", 9, name("B", "y")), at("B", 10, name("B", "z", rev(1, "B")))}, " [x z] 1-A 2-B", 0},
		"somebody decides": {
			[]Entry{at("A", 9, name("A", "x")), at("B", 9, name("B", "y")), at("C", 9, name("C", "y", a1, rev(1, "B")))}, "y [] 2-C", 0,
		},
		"removed": {[]Entry{at("A", 9, name("A", "x")), at("B", 9, name("B", "", a1))}, " [] 2-B", 0},
		"a removal that did not see a push": {
			[]Entry{at("A", 9, name("A", "x")), at("B", 9, name("B", "", a1)), at("C", 9, name("C", "y", a1))}, "y [] 2-B 2-C", 0,
		},
		"no sequence of its own": {[]Entry{at("A", 9, more(name("A", "x"), func(b *shoal.ImageBody) { b.ID.Seq = 7 }))}, "none", 1},
		"another's ID":           {[]Entry{at("A", 9, name("B", "x"))}, "none", 1},
		"by a peer that may not": {[]Entry{at("P", 9, name("P", "x"))}, "none", 1},
		"its author was removed": {
			[]Entry{at("A", 9, name("A", "x")), at("B", 9, name("B", "y", a1)), at("A", 10, removal("B", 8))}, "x [] 1-A", 1,
		},
	}
	for label, tt := range tests {
		t.Run(label, func(t *testing.T) {
			d := fold(t, with(tt.entries...)...)
			got := "none"
			if i, ok := d.Image("app:v1"); ok {
				var rivals, heads []string
				for _, r := range i.Rivals {
					rivals = append(rivals, r.Digest)
				}
				for _, h := range i.Heads {
					heads = append(heads, fmt.Sprintf("%d-%s", h.Seq, h.Author))
				}
				got = fmt.Sprintf("%s [%s] %s", i.Digest, strings.Join(rivals, " "), strings.Join(heads, " "))
			}
			if got != tt.want || d.Void != tt.void {
				t.Errorf("image = %q, %d void, want %q, %d", got, d.Void, tt.want, tt.void)
			}
		})
	}
}

func TestImageJoinsWhatIsKnown(t *testing.T) {
	manifests := name("A", "x")
	manifests.Upstream, manifests.Blobs = true, []shoal.BlobRef{{Digest: "x"}, {Digest: "c"}, {Digest: "l"}}
	pushed := name("B", "x")
	pushed.MediaType, pushed.Platforms = "index", []string{"linux/amd64"}
	pushed.Blobs = []shoal.BlobRef{{Digest: "x", Chunks: "cx"}, {Digest: "l", Chunks: "cl"}}
	pin := name("C", "x")
	pin.Pinned, pin.MinCopies = true, 3
	d := fold(t, with(at("A", 9, manifests), at("B", 9, pushed), at("C", 9, pin))...)
	want := shoal.Image{ImageBody: *pin, Since: shoal.HLC{WallMilli: 9}, Heads: []shoal.RevisionID{rev(1, "A"), rev(1, "B"), rev(1, "C")}}
	want.MediaType, want.Platforms, want.Blobs, want.Upstream = "index", pushed.Platforms, pushed.Blobs, true
	if diff := cmp.Diff([]shoal.Image{want}, d.Images); diff != "" {
		t.Errorf("Images (-want +got):\n%s", diff)
	}
	if len(d.Conflicts) != 0 {
		t.Errorf("Conflicts = %+v, want none", d.Conflicts)
	}
}

func TestImageRivalsAreAConflict(t *testing.T) {
	d := fold(t, with(at("A", 9, name("A", "x")), at("B", 9, name("B", "y")))...)
	want := "none of its authors saw the other's push: app:v1 stands for nothing until it is pushed or tagged again; use one of x, y"
	if len(d.Conflicts) != 1 || d.Conflicts[0] != (shoal.Conflict{Image: "app:v1", Rule: want}) {
		t.Errorf("Conflicts = %+v, want one of app:v1: %s", d.Conflicts, want)
	}
}

// TestImagesAreSorted: keys write some characters of names otherwise, and sort so.
func TestImagesAreSorted(t *testing.T) {
	var entries []Entry
	for i, image := range []string{"a/b:1", "a-b:1", "a_b:1", "a:1", "a.b:1", "ab:1"} {
		b := name("A", "x")
		b.Image = image
		entries = append(entries, at("A", uint64(9+i), b))
	}
	d := fold(t, with(entries...)...)
	for _, e := range entries {
		want := e.Record.Body.(*shoal.ImageBody).Image
		if i, ok := d.Image(want); !ok || i.Image != want {
			t.Errorf("Image(%q) = %v, %v", want, i, ok)
		}
	}
}

// TestHonestImages drives stores that push, remove and sync at random, and compares
// with a model that remembers all history: a body is in force unless somebody wrote
// another, having seen it.
func TestHonestImages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pens := []*pen{newPen("A"), newPen("B"), newPen("C")}
		known := []map[shoal.RevisionID]bool{{}, {}, {}}
		all, beaten := map[shoal.RevisionID]string{}, map[shoal.RevisionID]bool{}
		for _, p := range pens {
			p.state, _ = p.state.Add(abc()...)
			p.seq = 9
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			i := rapid.IntRange(0, 2).Draw(t, "who")
			p := pens[i]
			if rapid.Bool().Draw(t, "write") {
				var heads []shoal.RevisionID
				if image, ok := p.d().Image("app:v1"); ok {
					heads = image.Heads
				}
				b := name(p.id, rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "digest"), heads...)
				p.write(b)
				maps.Copy(beaten, known[i])
				all[b.ID], known[i][b.ID] = b.Digest, true
				continue
			}
			j := (i + rapid.IntRange(1, 2).Draw(t, "from")) % 3
			p.learn(pens[j])
			maps.Copy(known[i], known[j])
		}
		for _, p := range pens {
			pens[0].learn(p)
		}
		digests := map[string]bool{}
		var want []shoal.RevisionID
		for id, digest := range all {
			if !beaten[id] {
				want = append(want, id)
				digests[digest] = true
			}
		}
		delete(digests, "")
		slices.SortFunc(want, shoal.RevisionID.Compare)
		d := pens[0].d()
		image, ok := d.Image("app:v1")
		if !ok {
			image = &shoal.Image{}
		}
		if diff := cmp.Diff(want, image.Heads); diff != "" || d.Void > 0 {
			t.Fatalf("%d void; heads (-want +got):\n%s", d.Void, diff)
		}
		if rivals := len(digests) > 1; rivals != (len(image.Rivals) > 1) || rivals != (len(d.Conflicts) == 1) || (len(digests) == 1) != (image.Digest != "") {
			t.Fatalf("digest %q, %d rivals, %d conflicts, in force %v", image.Digest, len(image.Rivals), len(d.Conflicts), digests)
		}
	})
}
