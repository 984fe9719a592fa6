// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestDocsNameWhatIsThere reads every document for people and holds each command line
// of ours in it against the commands and flags that exist.
func TestDocsNameWhatIsThere(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, "../../README.md")
	seen := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range commandLines(string(text)) {
			seen++
			if why := wrongIn(line); why != "" {
				t.Errorf("%s: %q: %s", filepath.Base(file), line, why)
			}
		}
	}
	if seen < 50 {
		t.Errorf("found %d command lines in %d documents: the search for them is broken", seen, len(files))
	}
}

func TestWrongIn(t *testing.T) {
	for line, want := range map[string]string{
		"shoal ps":                       "",
		"shoal -H unix:///s ps web -o x": "",
		"shoal pss":                      "no such command",
		"shoal ps --nonsense":            "no flag --nonsense",
		"shoal token burn":               "no such command",
		"shoal logs -f -n 5 web":         "",
		"shoal logs -X web":              "no flag -X",
		"shoal run hello:1 -- --replies": "",
	} {
		if got := wrongIn(line); got != want {
			t.Errorf("wrongIn(%q) = %q, want %q", line, got, want)
		}
	}
}

// commandLines returns what stands in code and begins with our command: whole lines of
// blocks, and spans.
func commandLines(text string) []string {
	var lines []string
	block := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "```") {
			block = !block
			continue
		}
		if block {
			line = strings.TrimPrefix(strings.TrimPrefix(line, "$ "), "sudo ")
			lines = append(lines, line)
			continue
		}
		for i, span := range strings.Split(line, "`") {
			if i%2 == 1 {
				lines = append(lines, span)
			}
		}
	}
	return slices.DeleteFunc(lines, func(l string) bool { return !strings.HasPrefix(l, "shoal ") })
}

// wrongIn says what is wrong with a command line, "" if nothing is.
func wrongIn(line string) string {
	line, _, _ = strings.Cut(line, " #")
	line, _, _ = strings.Cut(line, " |")
	words := strings.Fields(line)[1:]
	root := plainApp().root()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	words = slices.DeleteFunc(words, func(w string) bool { return w == "..." })
	cmd, rest, err := root.Find(words)
	if err != nil {
		return "no such command"
	}
	for i, w := range rest {
		switch {
		case w == "--":
			return ""
		case strings.HasPrefix(w, "--"):
			name, _, _ := strings.Cut(w[2:], "=")
			if cmd.Flag(name) == nil && name != "help" {
				return "no flag --" + name
			}
		case strings.HasPrefix(w, "-") && len(w) > 1 && w[1] > '9':
			if !hasShort(cmd, w[1:2]) && w[1] != 'h' {
				return "no flag -" + w[1:2]
			}
		case i == 0 && cmd.HasSubCommands() && strings.ToLower(w) == w:
			return "no such command"
		case flagsEnd(cmd):
			return "" // what follows is for what runs
		}
	}
	return ""
}

func hasShort(cmd *cobra.Command, short string) bool {
	found := false
	look := func(f *pflag.Flag) { found = found || f.Shorthand == short }
	cmd.Flags().VisitAll(look)
	cmd.InheritedFlags().VisitAll(look)
	return found
}

// flagsEnd reports whether the flags of a command end at its first argument.
func flagsEnd(cmd *cobra.Command) bool {
	return slices.Contains([]string{"run", "exec"}, cmd.Name())
}

// TestRefusalsAreShown holds each row of docs/refusals.md against the test it names.
func TestRefusalsAreShown(t *testing.T) {
	text, err := os.ReadFile("../../docs/refusals.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| (\\d+) \\|.*?\\| `([^`]+)`[^|]*\\| (?:[0-9, ]+|-) \\| `([^`]+)` \\|$")
	var got []string
	for _, r := range row.FindAllStringSubmatch(string(text), -1) {
		got = append(got, r[1])
		shown, err := os.ReadFile("../../" + r[3])
		if err != nil {
			t.Errorf("input %s: %v", r[1], err)
			continue
		}
		if !strings.Contains(strings.ReplaceAll(string(shown), `\`, ""), r[2]) {
			t.Errorf("input %s: %s does not have %q", r[1], r[3], r[2])
		}
	}
	var want []string
	for i := range 41 {
		want = append(want, strconv.Itoa(i+1))
	}
	want = append(want, "52") // what lies between is between peers only
	if !slices.Equal(got, want) {
		t.Errorf("rows are about inputs %q, want %q", got, want)
	}
}
