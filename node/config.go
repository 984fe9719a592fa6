// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/gossip/beats"
	"github.com/shoalnet/shoal/images"
	"github.com/shoalnet/shoal/runtime"
)

// DefaultPort is where a daemon listens, TCP and UDP, unless told otherwise.
const DefaultPort = 4710

// DefaultBackBy is how long the slots of a daemon that was stopped are left alone
// (DESIGN.md section 5).
const DefaultBackBy = time.Minute

// The profiles: thresholds and periods for the distance between peers.
const (
	ProfileLAN = "lan"
	ProfileWAN = "wan"
)

// Whether containers get the names of services.
const (
	NamesAuto = "auto"
	NamesOff  = "off"
)

// DefaultImages is how images are kept and moved unless the owner says otherwise.
func DefaultImages() images.Config { return images.Defaults() }

// Config is what the machine's owner decides.
type Config struct {
	Dir       string   // data directory: identity, membership, records
	Socket    string   // control socket
	Listen    []string // "IP" or "IP:PORT"; none: every address
	Advertise []string // "IP" or "IP:PORT" that others should dial; none: what listening shows
	Publish   string   // address that containers' ports are published on; "": every address
	Name      string   // of this peer in listings; "": the host's name
	Labels    map[string]string
	Reserved  shoal.Resources // kept from containers
	Profile   string          // ProfileLAN or ProfileWAN
	Docker    string          // engine's address; "": the engine's default socket
	MDNS      bool            // look for members on the local network
	NoUPnP    bool            // ask no router to forward the port
	Relay     string          // carry links between members: auto, on or off; "" is auto
	Names     string          // NamesAuto: where this machine can, or NamesOff; "" is NamesAuto
	Pool      netip.Prefix    // that networks of services are cut from; the zero value: the runtime's default
	BackBy    time.Duration   // how long the others leave this peer's slots alone after it was stopped
	Policy    string          // file in which the owner says what containers may do to the machine; "": nothing
	Images    images.Config   // Dir is set by the daemon
	Metrics   string          // "IP:PORT" where Prometheus may ask, without a password; "": nowhere
	Version   string
	Clock     shoal.Clock      `json:"-"` // nil: the machine's own
	Tail      *Tail            `json:"-"` // what was logged last, for reports of faults; nil: none
	Reload    <-chan os.Signal `json:"-"` // tells to read the policy again; may be nil
	Ready     func()           `json:"-"` // called once the control socket answers; may be nil
}

// Validate checks the configuration before anything is touched.
func (c *Config) Validate() error {
	if c.Dir == "" {
		return &shoal.InvalidError{Field: "data", Why: "must name a directory"}
	}
	if c.Socket == "" {
		return &shoal.InvalidError{Field: "socket", Why: "must name a path"}
	}
	if err := (api.Config{Socket: c.Socket}).Validate(); err != nil {
		return err
	}
	if c.Profile != ProfileLAN && c.Profile != ProfileWAN {
		return &shoal.InvalidError{Field: "profile", Why: fmt.Sprintf("must be %s or %s, got %q", ProfileLAN, ProfileWAN, c.Profile)}
	}
	if c.Publish != "" {
		if _, err := netip.ParseAddr(c.Publish); err != nil {
			return &shoal.InvalidError{Field: "publish", Why: fmt.Sprintf("must be an IP address, got %q", c.Publish)}
		}
	}
	if c.Name != "" {
		if err := shoal.CheckName("name", c.Name); err != nil {
			return err
		}
	}
	for _, k := range slices.Sorted(maps.Keys(c.Labels)) {
		if _, err := shoal.ParseSelector(k + "=" + c.Labels[k]); err != nil {
			return &shoal.InvalidError{Field: "label", Why: fmt.Sprintf("%q is not KEY=VALUE of letters, digits and . _ : / -", k+"="+c.Labels[k])}
		}
	}
	if c.Names != "" && c.Names != NamesAuto && c.Names != NamesOff {
		return &shoal.InvalidError{Field: "network.names", Why: fmt.Sprintf("must be %s or %s, got %q", NamesAuto, NamesOff, c.Names)}
	}
	if c.Pool.IsValid() {
		if err := runtime.CheckPool("network.pool", c.Pool); err != nil {
			return err
		}
	}
	if c.Docker != "" {
		if err := runtime.CheckHost(c.Docker); err != nil {
			return err
		}
	}
	if c.Policy != "" && !filepath.IsAbs(c.Policy) {
		return &shoal.InvalidError{Field: "policy", Why: fmt.Sprintf("must be an absolute path, got %q", c.Policy)}
	}
	if c.Reserved.CPUMilli < 0 || c.Reserved.MemBytes < 0 {
		return &shoal.InvalidError{Field: "reserve", Why: "must not be negative"}
	}
	if longest := beats.LAN().MaxBackBy; c.BackBy < 0 || c.BackBy > longest {
		return &shoal.InvalidError{Field: "back-by", Why: fmt.Sprintf("must be 0s-%s, got %s", shortly(longest), shortly(c.BackBy))}
	}
	if err := c.Images.Upstream.Validate(); err != nil {
		return fmt.Errorf("images.upstream: %w", err)
	}
	if err := c.checkMetrics(); err != nil {
		return err
	}
	if _, err := multiaddrs("listen", c.Listen); err != nil {
		return err
	}
	_, err := multiaddrs("advertise", c.Advertise)
	return err
}

// shortly returns "2m" where a duration says "2m0s".
func shortly(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// multiaddrs turns "IP" and "IP:PORT" into the TCP and QUIC addresses of libp2p.
func multiaddrs(field string, in []string) ([]string, error) {
	var out []string
	for _, text := range in {
		host, port := text, strconv.Itoa(DefaultPort)
		if h, p, err := net.SplitHostPort(text); err == nil {
			host, port = h, p
		}
		ip, err := netip.ParseAddr(host)
		if err != nil {
			return nil, &shoal.InvalidError{Field: field, Why: fmt.Sprintf("must be IP or IP:PORT, got %q", text)}
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, &shoal.InvalidError{Field: field, Why: fmt.Sprintf("port must be 1-65535, got %q", port)}
		}
		family := "ip4"
		if ip.Is6() {
			family = "ip6"
		}
		out = append(out,
			fmt.Sprintf("/%s/%s/tcp/%s", family, ip, port),
			fmt.Sprintf("/%s/%s/udp/%s/quic-v1", family, ip, port))
	}
	return out, nil
}

// listen returns the addresses to listen on.
func (c *Config) listen() ([]string, error) {
	if len(c.Listen) == 0 {
		return multiaddrs("listen", []string{"0.0.0.0", "::"})
	}
	return multiaddrs("listen", c.Listen)
}
