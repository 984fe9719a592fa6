// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestLastWordsBound(t *testing.T) {
	long := strings.Repeat("x", MaxLastBytes)
	var many []string
	for i := range 30 {
		many = append(many, fmt.Sprint(i))
	}
	for name, c := range map[string]struct{ lines, want []string }{
		"nothing":               {nil, nil},
		"few":                   {[]string{"a", "b"}, []string{"a", "b"}},
		"the last of many":      {many, many[20:]},
		"a long one":            {[]string{"a", long + "y"}, []string{long[:MaxLastBytes-3] + "..."}},
		"the last long ones":    {[]string{"a", long[:1500], long[:1000]}, []string{long[:MaxLastBytes-1000-3] + "...", long[:1000]}},
		"commands of terminals": {[]string{"\x1b[2J\rgone\t\u009b1m", "a\u202eb"}, []string{" [2J gone  1m", "a b"}},
		"no UTF-8":              {[]string{"a\xffb"}, []string{"a\uFFFDb"}},
		"empty lines":           {[]string{"a", "", "b"}, []string{"a", "", "b"}},
	} {
		w := LastWords{Lines: c.lines}
		w.Bound()
		if !slices.Equal(w.Lines, c.want) {
			t.Errorf("%s: %q, want %q", name, w.Lines, c.want)
		}
	}
	w := LastWords{Reason: "exited\nwith 1", Check: strings.Repeat("é", 500), Missing: "a\x00b"}
	w.Bound()
	if w.Reason != "exited with 1" || w.Missing != "a b" || len(w.Check) > maxLastText || !utf8.ValidString(w.Check) {
		t.Errorf("bound to %q, %q, %q", w.Reason, w.Check, w.Missing)
	}
}
