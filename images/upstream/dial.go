// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/shoalnet/shoal"
)

// refused are the addresses that no registry has: of the link, of many hosts at once, and
// where clouds tell a machine its secrets (AWS, GCP, Azure, Oracle and most others on the
// link: 169.254.0.0/16; AWS by IPv6; Alibaba; Azure's wire server; Oracle's older one).
var refused = []netip.Prefix{
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("fd00:ec2::/32"),
	netip.MustParsePrefix("100.100.100.200/32"),
	netip.MustParsePrefix("168.63.129.16/32"),
	netip.MustParsePrefix("192.0.0.192/32"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("ff00::/8"),
	netip.MustParsePrefix("255.255.255.255/32"),
}

// refusedNames are where clouds answer the same by name.
var refusedNames = []string{
	"metadata", "metadata.google.internal", "metadata.goog", "metadata.azure.internal",
	"instance-data", "instance-data.ec2.internal", "metadata.tencentyun.com",
}

// nat64 are the prefixes whose last 32 bits are an IPv4 address (RFC 6052, RFC 8215).
var nat64 = []netip.Prefix{netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48")}

// dialer dials what may be dialled. The address is looked at after the name was resolved,
// for a name can stand for anything.
type dialer struct {
	cfg      Config
	resolver *net.Resolver // nil: the system's
}

func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if slices.Contains(refusedNames, strings.TrimSuffix(strings.ToLower(host), ".")) {
		return nil, &refusal{what: host, why: "is where a cloud tells a machine its secrets"}
	}
	local := d.cfg.lists(strings.ToLower(host), port)
	nd := net.Dialer{
		Timeout:   d.cfg.Timeout,
		KeepAlive: 15 * time.Second,
		Resolver:  d.resolver,
		Control: func(_, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			return mayDial(to.Addr(), local)
		},
	}
	return nd.DialContext(ctx, network, addr)
}

// mayDial refuses addresses that no registry has. local: one on this machine may.
func mayDial(a netip.Addr, local bool) error {
	a = a.Unmap().WithZone("")
	for _, p := range nat64 {
		if p.Contains(a) {
			b := a.As16()
			a = netip.AddrFrom4([4]byte(b[12:]))
			break
		}
	}
	if slices.ContainsFunc(refused, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return &refusal{what: a.String(), why: "is an address of the link or the cloud this machine is in"}
	}
	if (a.IsLoopback() || a.IsUnspecified()) && !local {
		return &refusal{what: a.String(), why: "is this machine, and not listed as a registry"}
	}
	return nil
}

// refusal is something that this peer does not do, whoever sends it there.
type refusal struct{ what, why string }

func (e *refusal) Error() string { return fmt.Sprintf("%s %s", clip(e.what), e.why) }

func (e *refusal) Unwrap() error { return shoal.ErrRefused }

// whyDial says in a few words why nothing came, without the addresses and queries that an
// error of net/http names, which may hold what opens a door.
func whyDial(err error, timeout time.Duration) string {
	var dns *net.DNSError
	var no *refusal
	var op *net.OpError
	var errno syscall.Errno
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &no):
		return no.Error()
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no such host"
	case errors.As(err, &dns) && dns.IsTimeout:
		return fmt.Sprintf("its name does not resolve in %s", timeout)
	case errors.As(err, &dns):
		return "its name cannot be resolved"
	case errors.As(err, &cert):
		return clip("certificate is not trusted: " + cert.Err.Error())
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return "does not speak TLS (list it as insecure if that is meant)"
	case errors.Is(err, errSlow):
		return errSlow.Error()
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return fmt.Sprintf("no answer in %s", timeout)
	case errors.Is(err, errStalled):
		return errStalled.Error()
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &op):
		return op.Op + " fails"
	}
	for u := (*url.Error)(nil); errors.As(err, &u); {
		err = u.Err
	}
	return clip("broken answer: " + err.Error())
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
