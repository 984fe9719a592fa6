// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

// Setup is how a replica's container is set up beyond image and command: what
// Compose and docker run let a user say about it. The zero value means the image's
// and the engine's defaults.
type Setup struct {
	User       string // "": the image's; "1000", "1000:1000", "www-data"
	WorkDir    string // "": the image's
	Hostname   string // "": the engine's choice
	Init       bool   // a small init as process 1 that reaps children and passes signals on
	TTY        bool   // a terminal for process 1
	Stdin      bool   // keep its standard input open
	ReadOnly   bool   // root file system
	ShmBytes   int64  // size of /dev/shm; 0: the engine's default (64 MiB)
	ExtraHosts []string
	Mounts     []Mount
	Ulimits    []Ulimit
	Sysctls    map[string]string
	Logging    *Logging // nil: the engine's default driver

	// What the owner of a machine has to allow ([Spec.Demands]).
	Privileged  bool
	CapAdd      []string // "NET_ADMIN", "ALL"; without "CAP_"
	CapDrop     []string // needs no permission
	Devices     []Device
	GroupAdd    []string
	SecurityOpt []string // "no-new-privileges", "seccomp=unconfined", ...
	HostNetwork bool     // the machine's own network; no ports can be published
	NoNetwork   bool     // loopback only
	HostPID     bool
	HostIPC     bool
	HostUTS     bool
	HostUser    bool // no user namespace
}

// MountKind says what a mount is.
type MountKind string

// The kinds of mounts.
const (
	MountVolume MountKind = "volume" // kept by the engine under a name; "" as Source: anonymous, gone with the replica
	MountBind   MountKind = "bind"   // a file or directory of the machine
	MountTmpfs  MountKind = "tmpfs"  // memory, gone with the replica
)

// Mount is one mount of a container.
type Mount struct {
	Kind     MountKind
	Source   string // volume: its name on the engine; bind: absolute path on the machine; tmpfs: ""
	Target   string // absolute path in the container
	ReadOnly bool
	External bool   // volume: it is not Shoal's and must exist already
	NoCopy   bool   // volume: do not fill an empty one from the image
	Create   bool   // bind: make a directory where there is nothing, as docker's -v does
	Spread   string // bind: propagation, "" is rprivate
	Bytes    int64  // tmpfs: size, 0: half the memory
	Mode     uint32 // tmpfs: permissions, 0: 1777
}

// Device is a device of the machine that a container may use.
type Device struct {
	Host        string // absolute path
	Container   string // path inside, "": the same
	Permissions string // of "rwm", "": all
}

// Ulimit is a limit of the container's processes; -1: none.
type Ulimit struct {
	Name       string // "nofile", "nproc", ...
	Soft, Hard int64
}

// Logging is where the output of a container goes.
type Logging struct {
	Driver  string // "json-file", "local", "journald", ...; logs need one that can be read back
	Options map[string]string
}

// HasData reports whether a replica of s keeps data on the machine that holds it: a
// named or bind volume that it may write to.
func (s *Spec) HasData() bool {
	for _, m := range s.Setup.Mounts {
		if m.Kind == MountBind || m.Kind == MountVolume && m.Source != "" {
			return true
		}
	}
	return false
}

// StaysHome reports whether a slot of s belongs to the peer that first ran it: its
// data is there, and the user did not say that it may be anywhere.
func (s *Spec) StaysHome() bool { return s.HasData() && !s.VolumesAnywhere }
