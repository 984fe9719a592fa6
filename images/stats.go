// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

// Stats are how much room blobs take here, and what was moved since Run began. All but
// Refused are bytes.
type Stats struct {
	Used, Limit int64             // of blobs, and what they may take at most; 0: no limit
	FromMembers int64             // chunks that came and were true
	FromOutside int64             // of blobs, from registries outside
	ToMembers   int64             // chunks handed to the network
	Refused     map[string]uint64 // messages of members that were not taken, by reason
}

// Stats returns the counts. It asks the disk for nothing but its size, and nobody else.
func (r *Room) Stats() (Stats, error) {
	u, err := r.store.Usage()
	moved := r.exchange.Stats()
	out := Stats{Used: u.Bytes, Limit: u.Limit, FromOutside: r.fetched.Load(), Refused: moved.Refused}
	for _, p := range moved.Peers {
		out.FromMembers += p.Got
		out.ToMembers += p.Sent
	}
	return out, err
}
