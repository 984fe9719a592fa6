// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"strconv"
)

// admit says whether a request is answered at all: none that a browser sends on behalf of
// a page, by Host (a name that was made to resolve to loopback), Origin and
// Sec-Fetch-Site, and none without the login. A pull has no Origin; docker, podman and
// the others do not send it.
func (r *Registry) admit(w http.ResponseWriter, req *http.Request) error {
	local, _ := req.Context().Value(http.LocalAddrContextKey).(net.Addr)
	switch {
	case local == nil || !isLoopback(local):
		return faultf(http.StatusForbidden, codeDenied, "this registry answers on loopback only")
	case !isOwnHost(req.Host, local):
		return faultf(http.StatusMisdirectedRequest, codeDenied, "this registry is %s, not %q; name it so", local, clip(req.Host))
	case req.Header.Get("Origin") != "" || len(req.Header["Origin"]) > 0:
		return faultf(http.StatusForbidden, codeDenied, "this registry does not answer web pages")
	}
	if site := req.Header.Get("Sec-Fetch-Site"); site != "" && site != "none" {
		return faultf(http.StatusForbidden, codeDenied, "this registry does not answer web pages")
	}
	if r.isLogin(req) {
		return nil
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="shoal", charset="UTF-8"`)
	return faultf(http.StatusUnauthorized, codeUnauthorized, "log in with the user and the password of the registry of this peer")
}

// isLogin compares in a time that does not depend on how much of the login is right.
func (r *Registry) isLogin(req *http.Request) bool {
	want := r.cfg.Login
	if want.User == "" {
		return true
	}
	user, password, ok := req.BasicAuth()
	u, wu := sha256.Sum256([]byte(user)), sha256.Sum256([]byte(want.User))
	p, wp := sha256.Sum256([]byte(password)), sha256.Sum256([]byte(want.Password))
	return ok && subtle.ConstantTimeCompare(u[:], wu[:])&subtle.ConstantTimeCompare(p[:], wp[:]) == 1
}

func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// isOwnHost reports whether a Host header names the address that the request came to.
func isOwnHost(host string, local net.Addr) bool {
	tcp, ok := local.(*net.TCPAddr)
	if !ok {
		return false
	}
	port := strconv.Itoa(tcp.Port)
	for _, name := range []string{tcp.IP.String(), "localhost"} {
		if host == net.JoinHostPort(name, port) || tcp.Port == 80 && host == name {
			return true
		}
	}
	return false
}

// clip shortens hostile text for an error message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}
