// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/shoalnet/shoal/api"
)

// defaultHost is where shoald listens unless told otherwise.
const defaultHost = "unix://" + defaultSocket

const defaultSocket = "/run/shoal.sock"

// whom is the daemon to ask, and what said so.
type whom struct {
	host    string
	context string // its name; "" if the host was named itself
	from    string // the flag or variable; "" for the current context
}

// whom decides whom to ask: what was typed counts before what is set, a host before
// a context, and the current context last.
func (a *app) whom() (whom, error) {
	host, context := a.env["SHOAL_HOST"], a.env["SHOAL_CONTEXT"]
	switch {
	case a.host != "":
		return whom{host: a.host, from: "--host"}, nil
	case a.context != "":
		return a.named(a.context, "--context")
	case host != "":
		return whom{host: host, from: "SHOAL_HOST"}, nil
	case context != "":
		return a.named(context, "SHOAL_CONTEXT")
	}
	return a.named("", "")
}

// named looks a context up; "" is the current one.
func (a *app) named(name, from string) (whom, error) {
	all, err := a.contexts()
	if err != nil {
		return whom{}, err
	}
	c, err := all.find(cmp.Or(name, all.current))
	if err != nil {
		return whom{}, err
	}
	return whom{host: c.Host, context: c.Name, from: from}, nil
}

// dial returns the client of a host and connects nothing yet.
func (a *app) dial(host string) (*api.Client, error) {
	if !strings.HasPrefix(host, sshScheme) {
		return api.Dial(host)
	}
	to, err := parseSSH(host)
	if err != nil {
		return nil, err
	}
	return api.NewClient(to.text, to.dial), nil
}

const sshScheme = "ssh://"

// sshTarget is a daemon on a machine that ssh reaches.
type sshTarget struct {
	text             string // as it was written
	user, host, port string
	socket           string // "": where shoald listens unless told otherwise
}

// What of a host ends in a command line. No word may begin with "-", which ssh would
// take for an option, and a shell of the far machine reads the socket.
var (
	sshUser   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@+-]*$`)
	sshHost   = regexp.MustCompile(`^[A-Za-z0-9_:][A-Za-z0-9_.:%-]*$`)
	sshSocket = regexp.MustCompile(`^/[A-Za-z0-9_.@+:,/-]+$`)
)

// parseSSH reads ssh://[USER@]HOST[:PORT][/SOCKET].
func parseSSH(text string) (*sshTarget, error) {
	bad := func(format string, args ...any) (*sshTarget, error) {
		return nil, usage("host %q: %s; use ssh://[USER@]HOST[:PORT][/SOCKET]", text, fmt.Sprintf(format, args...))
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, usage("host %q is no address; use ssh://[USER@]HOST[:PORT][/SOCKET]", redactHost(text))
	}
	if _, has := u.User.Password(); has {
		return nil, usage("host %q: a password has no place in it; let ssh use a key, or its agent", redactHost(text))
	}
	to := &sshTarget{text: text, user: u.User.Username(), host: u.Hostname(), port: u.Port(), socket: u.Path}
	if to.socket == "/" {
		to.socket = ""
	}
	switch port, err := strconv.ParseUint(cmp.Or(to.port, "22"), 10, 16); {
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return bad("nothing may follow the socket")
	case u.User != nil && !sshUser.MatchString(to.user):
		return bad("no user is called %q", to.user)
	case !sshHost.MatchString(to.host):
		return bad("no machine is called %q", to.host)
	case err != nil || port == 0:
		return bad("the port must be 1–65535, got %s", to.port)
	case to.socket != "" && !sshSocket.MatchString(to.socket):
		return bad("the socket may have letters, digits and _ . @ + : , / - only")
	}
	return to, nil
}

// redactHost takes a password out of what may not even be a URL.
func redactHost(text string) string { return string(redact([]byte(text))) }
