// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package balance

import "math/bits"

// random is splitmix64 (Steele, Lea and Flood, 2014): a pure room has a seed and no
// source.
type random struct{ state uint64 }

// below returns a number of 0 to n-1.
func (r *random) below(n int) int {
	r.state += 0x9e3779b97f4a7c15
	high, _ := bits.Mul64(mix(r.state), uint64(n))
	return int(high)
}

// mix is the finisher of splitmix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
