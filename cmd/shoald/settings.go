// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/shoalnet/shoal/node"
)

// config is what one run of the daemon works with.
type config struct {
	node.Config
	level slog.Level
}

func defaults() config {
	return config{level: slog.LevelInfo, Config: node.Config{
		Dir: "/var/lib/shoal", Socket: "/run/shoal.sock", Profile: node.ProfileLAN, Policy: node.DefaultPolicy, BackBy: node.DefaultBackBy, Version: version,
		Images: node.DefaultImages(),
	}}
}

// form is how the value of a setting looks in the file.
type form int

const (
	text   form = iota
	number      // a number without a unit
	truth       // true or false
	size        // a number with a unit
	period      // the same, of time
	list        // one text or several
	pairs       // a map from text to text
)

// setting is one thing that the machine's owner decides: a key of the file and a flag
// of the same meaning. A dot in a key is one level down in the file.
type setting struct {
	key, flag string
	form      form
	shape     string // of a value, as help shows it
	usage     string // one line: what it is
	normal    string // the default, as help shows it; "": nothing
	note      string // more for the reference; may be empty
	example   string // as the file writes it
	// set takes one value; of list and pairs it adds one.
	set   func(c *config, value string) error
	clear func(c *config) // of list and pairs: forgets what was set
}

// settings is the one table of what can be configured: the file, the flags and their
// reference are all read off it.
var settings = []setting{
	{
		key: "data", flag: "data", shape: "DIR", usage: "data directory", normal: "/var/lib/shoal", example: "/srv/shoal",
		note: "Identity, membership and records. One daemon uses it at a time. Its key must be its owner's alone (mode 0600).",
		set:  func(c *config, v string) error { c.Dir = v; return nil },
	},
	{
		key: "socket", flag: "socket", shape: "PATH", usage: "control socket", normal: "/run/shoal.sock", example: "/run/shoal/control.sock",
		note: "The socket that `shoal` talks to, mode 0660, of the group `shoal` where there is one. An absolute path.",
		set:  func(c *config, v string) error { c.Socket = v; return nil },
	},
	{
		key: "listen", flag: "listen", form: list, shape: "IP[:PORT]", usage: "IP or IP:PORT to listen on",
		normal: fmt.Sprintf("every address, port %d", node.DefaultPort), example: "[192.0.2.11]",
		note:  "TCP and UDP. Members only get further than the handshake.",
		set:   func(c *config, v string) error { c.Listen = append(c.Listen, v); return nil },
		clear: func(c *config) { c.Listen = nil },
	},
	{
		key: "advertise", flag: "advertise", form: list, shape: "IP[:PORT]", usage: "IP or IP:PORT that others should dial",
		normal: "what listening shows", example: "[203.0.113.7:4710]",
		note:  "For a machine behind a forwarded port.",
		set:   func(c *config, v string) error { c.Advertise = append(c.Advertise, v); return nil },
		clear: func(c *config) { c.Advertise = nil },
	},
	{
		key: "publish", flag: "publish", shape: "IP", usage: "IP that containers' ports are published on", normal: "every address", example: "192.0.2.11",
		set: func(c *config, v string) error { c.Publish = v; return nil },
	},
	{
		key: "name", flag: "name", shape: "NAME", usage: "name of this peer in listings", normal: "the host's name", example: "osaka",
		note: "A name given by `shoal init` or `shoal join` counts more.",
		set:  func(c *config, v string) error { c.Name = v; return nil },
	},
	{
		key: "labels", flag: "label", form: pairs, shape: "KEY=VALUE", usage: "label of this peer, such as zone=eu (repeatable)", normal: "", example: "{zone: eu, disk: ssd}",
		note:  "What constraints and spreading look at. Labels given by `shoal init` or `shoal join` are added.",
		set:   setLabel,
		clear: func(c *config) { c.Labels = nil },
	},
	{
		key: "reserve.cpu", flag: "reserve-cpu", form: number, shape: "CORES", usage: "cores kept from containers, like 0.5", normal: "0", example: "0.5",
		set: func(c *config, v string) (err error) { c.Reserved.CPUMilli, err = parseCores(v); return err },
	},
	{
		key: "reserve.memory", flag: "reserve-memory", form: size, shape: "SIZE", usage: "memory kept from containers, like 512MiB", normal: "0", example: "512MiB",
		set: func(c *config, v string) (err error) { c.Reserved.MemBytes, err = parseSize(v); return err },
	},
	{
		key: "profile", flag: "profile", shape: "lan|wan", usage: "distance between peers: lan or wan", normal: node.ProfileLAN, example: "wan",
		note: "`wan` has more patience with pings and transfers. Use the same on all peers.",
		set:  func(c *config, v string) error { c.Profile = v; return nil },
	},
	{
		key: "docker", flag: "docker", shape: "URL", usage: "address of the Docker Engine", normal: "its own socket", example: "unix:///run/docker.sock",
		set: func(c *config, v string) error { c.Docker = v; return nil },
	},
	{
		key: "policy", flag: "policy", shape: "FILE", usage: "what containers may do to this machine", normal: node.DefaultPolicy, example: "/srv/shoal/policy.yaml",
		note: "See [policy](policy.md). Where the default one is absent nothing is allowed. It is read again when it changes, and at `SIGHUP`; what runs is not touched.",
		set:  func(c *config, v string) error { c.Policy = v; return nil },
	},
	{
		key: "images.registry", flag: "registry", shape: "IP:PORT|off", usage: "where this peer's registry answers", normal: "127.0.0.1:5050, or another port if that is taken", example: "127.0.0.1:5000",
		note: "A loopback address. `docker push 127.0.0.1:5050/app:v1` gives an image to the whole cluster, once `shoal image login` has told docker the password. `off`: images are loaded into the engine instead.",
		set:  setRegistry,
	},
	{
		key: "images.open", flag: "registry-open", form: truth, shape: "BOOL", usage: "let everybody on this machine use the registry without a password", normal: "false", example: "true",
		set: func(c *config, v string) (err error) { c.Images.Open, err = parseTruth(v); return err },
	},
	{
		key: "images.limit", flag: "images-limit", form: size, shape: "SIZE", usage: "room for images on this peer, like 50GiB", normal: "half of the disk", example: "50GiB",
		note: "What is used least goes first; never what a service needs, what is pinned, or what fewer than two others hold.",
		set:  func(c *config, v string) (err error) { c.Images.Blobs.Limit, err = parseSize(v); return err },
	},
	{
		key: "images.share", flag: "images-share", form: number, shape: "SHARE", usage: "the same as a share of the disk, 0 to 1", normal: "0.5", example: "0.2",
		note: "The smaller of the two counts; 0: only the limit does.",
		set:  func(c *config, v string) (err error) { c.Images.Blobs.Share, err = parseShare(v); return err },
	},
	{
		key: "images.upstream", flag: "upstream", form: list, shape: "HOST", usage: "registries outside that this peer may ask for what no peer has; none: none (repeatable)",
		normal: "any", example: "[docker.io, ghcr.io]",
		note:  "One peer of those that may asks, the others get it from that one. Logins come from docker's configuration of the user that the daemon runs as, on the peers that have them.",
		set:   addUpstream,
		clear: func(c *config) { c.Images.Upstream.Registries = nil },
	},
	{
		key: "images.insecure", flag: "upstream-insecure", form: list, shape: "HOST", usage: "registries outside that are spoken to without TLS (repeatable)", normal: "", example: "[10.0.0.7:5000]",
		note: "For a registry on the local network. It has to be allowed, too.",
		set: func(c *config, v string) error {
			c.Images.Upstream.Insecure = append(c.Images.Upstream.Insecure, v)
			return nil
		},
		clear: func(c *config) { c.Images.Upstream.Insecure = nil },
	},
	{
		key: "images.up", flag: "upload-rate", form: size, shape: "SIZE", usage: "bytes of images a second to other peers, like 10MiB", normal: "no limit", example: "10MiB",
		set: func(c *config, v string) (err error) { c.Images.Exchange.UpRate, err = parseSize(v); return err },
	},
	{
		key: "images.down", flag: "download-rate", form: size, shape: "SIZE", usage: "bytes of images a second from other peers", normal: "no limit", example: "50MiB",
		set: func(c *config, v string) (err error) { c.Images.Exchange.DownRate, err = parseSize(v); return err },
	},
	{
		key: "metrics.listen", flag: "metrics", shape: "IP:PORT|off", usage: "where Prometheus may ask for metrics", normal: "off", example: "127.0.0.1:4711",
		note: "See [metrics](metrics.md). It has no password and no encryption: everybody who reaches the address reads them, so name a loopback address or one of a network you trust.",
		set:  setMetrics,
	},
	{
		key: "mdns", flag: "mdns", form: truth, shape: "BOOL", usage: "look for members on the local network", normal: "false", example: "true",
		set: func(c *config, v string) (err error) { c.MDNS, err = parseTruth(v); return err },
	},
	{
		key: "network.upnp", flag: "upnp", form: truth, shape: "BOOL", usage: "ask the router to forward the port (UPnP, NAT-PMP)", normal: "true", example: "false",
		note: "Only where the daemon listens on a private address, never on loopback.",
		set: func(c *config, v string) error {
			wanted, err := parseTruth(v)
			c.NoUPnP = !wanted
			return err
		},
	},
	{
		key: "network.relay", flag: "relay", shape: "auto|on|off", usage: "carry links between members that cannot reach each other", normal: "auto", example: "on",
		note: "`auto`: once members from another network link to this machine by themselves. `on`: for a machine that all can dial. Members only; at most 64 links of each and 512 in all.",
		set:  setRelay,
	},
	{
		key: "network.names", flag: "names", shape: "auto|off", usage: "give containers the names of the services on their networks", normal: node.NamesAuto, example: "off",
		note: "See [names](reach.md#names). `auto`: where the daemon may (CAP_NET_ADMIN); `shoal doctor` says what is missing. `off`: services are on networks of their own all the same.",
		set:  func(c *config, v string) error { c.Names = v; return nil },
	},
	{
		key: "network.pool", flag: "network-pool", shape: "RANGE", usage: "addresses for the networks of services on this machine", normal: "10.213.0.0/16", example: "172.30.0.0/16",
		note: "Each network takes a /22 that nothing else here uses. The addresses leave no machine, so all peers may have the same. It counts for new networks.",
		set:  setPool,
	},
	{
		key: "back-by", flag: "back-by", form: period, shape: "DURATION", usage: "how long others leave this machine's slots alone after the daemon was stopped", normal: "1m", example: "30s",
		note: "0s to 2m. Long enough for an upgrade or a reboot; `0s` lets the others replace its replicas at once. A daemon that dies without a word gets no such time.",
		set:  func(c *config, v string) (err error) { c.BackBy, err = parsePeriod(v); return err },
	},
	{
		key: "log-level", flag: "log-level", shape: "LEVEL", usage: "debug, info, warn or error", normal: "info", example: "debug",
		note: "The log goes to stderr.",
		set:  setLevel,
	},
}

func setLabel(c *config, pair string) error {
	k, v, ok := strings.Cut(pair, "=")
	if !ok {
		return fmt.Errorf("%q is not KEY=VALUE", pair)
	}
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	c.Labels[k] = v
	return nil
}

func setPool(c *config, v string) error {
	pool, err := netip.ParsePrefix(v)
	if err != nil {
		return fmt.Errorf("must be a range like 10.213.0.0/16, got %q", v)
	}
	c.Pool = pool
	return nil
}

func setRelay(c *config, v string) error {
	switch v {
	case "auto", "on", "off":
		c.Relay = v
		return nil
	}
	return fmt.Errorf("must be auto, on or off, got %q", v)
}

// setRegistry takes the address of the registry; a port that somebody named is used, or
// the daemon does not start.
func setRegistry(c *config, v string) error {
	c.Images.Registry, c.Images.AnyPort = v, false
	if v == "off" {
		c.Images.Registry = ""
		return nil
	}
	at, err := netip.ParseAddrPort(v)
	if err != nil || !at.Addr().IsLoopback() || at.Port() == 0 {
		return fmt.Errorf("must be a loopback address and port like 127.0.0.1:5050, or off, got %q", v)
	}
	return nil
}

// setMetrics takes the address; Validate looks at it.
func setMetrics(c *config, v string) error {
	if c.Metrics = v; v == "off" {
		c.Metrics = ""
	}
	return nil
}

// addUpstream adds a registry; the first one replaces the default.
func addUpstream(c *config, v string) error {
	u := &c.Images.Upstream
	if len(u.Registries) == 1 && u.Registries[0] == "*" {
		u.Registries = nil
	}
	switch v {
	case "none":
		if len(u.Registries) > 0 {
			return errors.New("none stands alone")
		}
		u.Registries = []string{}
	case "any":
		u.Registries = []string{"*"}
	default:
		u.Registries = append(u.Registries, v)
	}
	return nil
}

func parseShare(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || f < 0 || f > 1 {
		return 0, fmt.Errorf("must be a number 0-1, got %q", s)
	}
	return f, nil
}

func setLevel(c *config, v string) error {
	if c.level.UnmarshalText([]byte(v)) != nil {
		return fmt.Errorf("must be debug, info, warn or error, got %q", v)
	}
	return nil
}

func parseTruth(s string) (bool, error) {
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("must be true or false, got %q", s)
}

// maxCores is more than any machine has.
const maxCores = 4096

// parseCores reads a number of cores into thousandths.
func parseCores(s string) (int64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || f < 0 || f > maxCores || strings.ContainsAny(s, "xX_") {
		return 0, fmt.Errorf("must be a number of cores like 0.5, 0-%d, got %q", maxCores, s)
	}
	return int64(math.Round(f * 1000)), nil
}

// units of sizes are binary, as docker's are.
var units = map[string]int64{
	"b": 1, "k": 1 << 10, "kb": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "mib": 1 << 20,
	"g": 1 << 30, "gb": 1 << 30, "gib": 1 << 30, "t": 1 << 40, "tb": 1 << 40, "tib": 1 << 40,
}

// parseSize reads a number with a unit, like 512MiB or 1.5g, into bytes.
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	unit := strings.ToLower(s[len(digits):])
	digits = strings.TrimRight(digits, " ")
	f, err := strconv.ParseFloat(digits, 64)
	switch {
	case err != nil || math.IsNaN(f) || strings.ContainsAny(digits, "xX_+-"):
		return 0, fmt.Errorf("must be a size like 512MiB, got %q", s)
	case f == 0:
		return 0, nil
	case unit == "":
		return 0, fmt.Errorf("missing unit (try %q)", s+"MiB")
	case units[unit] == 0:
		return 0, fmt.Errorf("must be a size like 512MiB, got %q", s)
	}
	if f *= float64(units[unit]); f >= 1<<60 {
		return 0, fmt.Errorf("%q is more than any machine has", s)
	}
	return int64(f), nil
}

// parsePeriod reads a number with a unit of time.
func parsePeriod(s string) (time.Duration, error) {
	if _, err := strconv.ParseFloat(s, 64); err == nil && s != "0" {
		return 0, fmt.Errorf("missing unit (try %q)", s+"s")
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("must be a duration like 30s or 1m30s, got %q", s)
	}
	return d, nil
}

// flagValue is one setting on the command line: it keeps what was written until the
// file has been read, which it overrides.
type flagValue struct {
	*setting
	given []string
}

// Set implements pflag.Value.
func (f *flagValue) Set(s string) error {
	parts := []string{s}
	if f.form == list || f.form == pairs {
		parts = strings.Split(s, ",")
	}
	scratch := defaults()
	for _, p := range parts {
		if err := f.set(&scratch, p); err != nil {
			return err
		}
	}
	f.given = append(f.given, parts...)
	return nil
}

// String implements pflag.Value.
func (f *flagValue) String() string {
	if f.setting == nil || f.form == truth {
		return "" // help shows no default of it
	}
	return strings.Join(f.given, ",")
}

// Type implements pflag.Value.
func (f *flagValue) Type() string { return f.shape }

// apply puts what the command line said over what the file said.
func (f *flagValue) apply(c *config) error {
	if len(f.given) > 0 && f.clear != nil {
		f.clear(c)
	}
	var err error
	for _, v := range f.given {
		err = errors.Join(err, f.set(c, v))
	}
	return err
}
