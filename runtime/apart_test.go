// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/shoalnet/shoal"
)

// TestApartEngine: where the addresses of containers are not reached, ports that answer on
// every peer get a way in on loopback; elsewhere they get none.
func TestApartEngine(t *testing.T) {
	for name, tt := range map[string]struct{ info, want string }{
		"usual":          {`{"SecurityOptions":["name=seccomp,profile=default"],"OperatingSystem":"Debian"}`, `{}`},
		"rootless":       {`{"SecurityOptions":["name=seccomp,profile=builtin","name=rootless"]}`, `{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":""}]}`},
		"docker desktop": {`{"OperatingSystem":"Docker Desktop"}`, `{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":""}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeEngine{api: "1.41", containers: []map[string]any{}}
			var bindings json.RawMessage
			f.misbehave(func(w http.ResponseWriter, r *http.Request, path string) bool {
				switch {
				case path == "/info":
					fmt.Fprint(w, tt.info)
				case strings.HasPrefix(path, "/images/"):
					fmt.Fprint(w, `{"Id":"sha256:0123"}`)
				case path == "/containers/create":
					var body struct {
						HostConfig struct{ PortBindings json.RawMessage }
					}
					if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
						t.Error(err)
					}
					bindings = body.HostConfig.PortBindings
					w.WriteHeader(http.StatusCreated)
					fmt.Fprint(w, `{"Id":"c0ffee"}`)
				default:
					return false
				}
				return true
			})
			d := newFakeDocker(t, serveFake(t, f), patient)
			for n := byte(1); n <= 2; n++ { // the second time it is known
				cs := spec(n, func(s *shoal.Spec) { s.Ports = []shoal.Port{{Container: 80, Published: 8080, Protocol: "tcp"}} })
				if _, err := d.Create(t.Context(), cs); err != nil {
					t.Fatal(err)
				}
				if string(bindings) != tt.want {
					t.Errorf("bindings of container %d = %s, want %s", n, bindings, tt.want)
				}
			}
			if apart, err := d.Apart(t.Context()); err != nil || apart != (name != "usual") {
				t.Errorf("Apart = %v, %v", apart, err)
			}
			asked := 0
			for _, r := range f.requests() {
				if strings.HasSuffix(r, "/info") {
					asked++
				}
			}
			if asked != 1 {
				t.Errorf("the engine was asked %d times what it is, want once", asked)
			}
		})
	}
}
