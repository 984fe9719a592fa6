// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import "testing"

func TestParseRange(t *testing.T) {
	for _, tt := range []struct {
		in          string
		size        int64
		first, last int64
		want        verdict
	}{
		{"bytes=0-0", 10, 0, 0, rangeGood},
		{"bytes=2-5", 10, 2, 5, rangeGood},
		{"bytes=2-", 10, 2, 9, rangeGood},
		{"bytes=2-99", 10, 2, 9, rangeGood},
		{"bytes=-3", 10, 7, 9, rangeGood},
		{"bytes=-99", 10, 0, 9, rangeGood},
		{"Bytes= 2 - 5 ", 10, 2, 5, rangeGood},
		{"bytes=10-", 10, 0, 0, rangeUnsatisfiable},
		{"bytes=5-2", 10, 0, 0, rangeUnsatisfiable},
		{"bytes=-0", 10, 0, 0, rangeUnsatisfiable},
		{"bytes=0-", 0, 0, 0, rangeUnsatisfiable},
		{"bytes=-1", 0, 0, 0, rangeUnsatisfiable},
		{"", 10, 0, 0, rangeIgnored},
		{"bytes", 10, 0, 0, rangeIgnored},
		{"bytes=", 10, 0, 0, rangeIgnored},
		{"bytes=-", 10, 0, 0, rangeIgnored},
		{"bytes=a-b", 10, 0, 0, rangeIgnored},
		{"bytes=1-b", 10, 0, 0, rangeIgnored},
		{"bytes=--1", 10, 0, 0, rangeIgnored},
		{"bytes=+1-2", 10, 0, 0, rangeIgnored},
		{"bytes=0-1,3-4", 10, 0, 0, rangeIgnored},
		{"lines=0-1", 10, 0, 0, rangeIgnored},
		{"bytes=99999999999999999999-", 10, 0, 0, rangeIgnored},
	} {
		first, last, got := parseRange(tt.in, tt.size)
		if got != tt.want || first != tt.first || last != tt.last {
			t.Errorf("parseRange(%q, %d) = %d, %d, %d, want %d, %d, %d", tt.in, tt.size, first, last, got, tt.first, tt.last, tt.want)
		}
	}
}

func TestParseContentRange(t *testing.T) {
	for _, tt := range []struct {
		in          string
		first, last int64
		want        bool
	}{
		{"0-0", 0, 0, true},
		{"5-9", 5, 9, true},
		{"9-5", 9, 5, false},
		{"5-", 5, 0, false},
		{"-5", 0, 5, false},
		{"bytes 0-1/2", 0, 0, false},
		{"0-1/2", 0, 0, false},
		{"", 0, 0, false},
	} {
		first, last, got := parseContentRange(tt.in)
		if got != tt.want || got && (first != tt.first || last != tt.last) {
			t.Errorf("parseContentRange(%q) = %d, %d, %v, want %d, %d, %v", tt.in, first, last, got, tt.first, tt.last, tt.want)
		}
	}
}

func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"bytes=0-0", "bytes=-5", "bytes=5-", "bytes=9223372036854775807-", "bytes=0-9223372036854775807", "5-9"} {
		f.Add(s, int64(10))
	}
	f.Fuzz(func(t *testing.T, s string, size int64) {
		if size < 0 {
			return
		}
		first, last, v := parseRange(s, size)
		if v == rangeGood && (first < 0 || last < first || last >= size) {
			t.Errorf("parseRange(%q, %d) = %d, %d", s, size, first, last)
		}
		if first, last, ok := parseContentRange(s); ok && (first < 0 || last < first) {
			t.Errorf("parseContentRange(%q) = %d, %d", s, first, last)
		}
	})
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{
		"/v2/", "/v2/_catalog", "/v2/a/blobs/uploads/", "/v2/a/blobs/uploads/x", "/v2/a/b/manifests/v1", "/v2/a/tags/list",
		"/v2/a/referrers/sha256:0", "/v2/blobs/uploads/manifests/x", "/v2//manifests/", "/v2/../blobs/x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		got, err := parseTarget(path)
		if err != nil || got.kind == kindOther || got.kind == kindCatalog {
			return
		}
		if len(got.repo) > maxRepository || !repository.MatchString(got.repo) {
			t.Errorf("parseTarget(%q) = %+v: no name of a repository", path, got)
		}
	})
}
