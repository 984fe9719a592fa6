// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"strconv"
	"strings"
)

// verdict is what becomes of a Range header.
type verdict int

const (
	rangeIgnored       verdict = iota // no range of bytes, or several: all is sent
	rangeGood                         // 206
	rangeUnsatisfiable                // 416
)

// parseRange reads a Range header (RFC 9110, section 14.1.2) for a blob of size bytes.
// first and last are inclusive and within the blob, if the verdict is rangeGood.
func parseRange(s string, size int64) (first, last int64, v verdict) {
	unit, spec, ok := strings.Cut(s, "=")
	if !ok || !strings.EqualFold(strings.TrimSpace(unit), "bytes") || strings.Contains(spec, ",") {
		return 0, 0, rangeIgnored
	}
	from, to, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return 0, 0, rangeIgnored
	}
	from, to = strings.TrimSpace(from), strings.TrimSpace(to)
	if from == "" {
		return suffixRange(to, size)
	}
	first, ok = parseDecimal(from)
	if !ok {
		return 0, 0, rangeIgnored
	}
	last = size - 1
	if to != "" {
		n, ok := parseDecimal(to)
		switch {
		case !ok:
			return 0, 0, rangeIgnored
		case n < first:
			return 0, 0, rangeUnsatisfiable
		}
		last = min(last, n)
	}
	if first >= size {
		return 0, 0, rangeUnsatisfiable
	}
	return first, last, rangeGood
}

// suffixRange is the last so many bytes.
func suffixRange(s string, size int64) (first, last int64, v verdict) {
	n, ok := parseDecimal(s)
	switch {
	case !ok:
		return 0, 0, rangeIgnored
	case n == 0 || size == 0:
		return 0, 0, rangeUnsatisfiable
	}
	return max(0, size-n), size - 1, rangeGood
}

// parseContentRange reads the Content-Range header of a chunk (distribution-spec v1.1,
// "Pushing a blob in chunks"): ^[0-9]+-[0-9]+$, inclusive. It is not that of HTTP.
func parseContentRange(s string) (first, last int64, ok bool) {
	from, to, ok := strings.Cut(s, "-")
	if !ok {
		return 0, 0, false
	}
	first, okFirst := parseDecimal(from)
	last, okLast := parseDecimal(to)
	return first, last, okFirst && okLast && first <= last
}

// parseDecimal reads digits only. What does not fit is none.
func parseDecimal(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}
