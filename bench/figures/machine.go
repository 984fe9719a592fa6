// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package figures

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"syscall"
)

// Machine names what figures were taken on.
type Machine struct {
	CPU    string  `json:"cpu"`
	Cores  int     `json:"cores"`
	Memory int64   `json:"memory_bytes"`
	Kernel string  `json:"kernel"`
	Disk   string  `json:"disk"` // the file system under the stores
	Engine string  `json:"engine"`
	Go     string  `json:"go"`
	Load   float64 `json:"load_before"` // mean of the minute before: above 0.5 others were at work
}

// String is one line.
func (m Machine) String() string {
	return fmt.Sprintf("%s, %d cores, %.0f GB, %s, stores on %s, %s, %s, load before %.1f",
		m.CPU, m.Cores, float64(m.Memory)/1e9, m.Kernel, m.Disk, cmp.Or(m.Engine, "no engine asked"), m.Go, m.Load)
}

// ThisMachine looks around; what cannot be found out is "unknown". dir is where the
// stores will be.
func ThisMachine(dir, engine string) Machine {
	m := Machine{
		CPU: "unknown processor", Cores: goruntime.NumCPU(), Kernel: "unknown kernel", Disk: diskOf(dir),
		Engine: engine, Go: goruntime.Version(),
	}
	if name := keyed("/proc/cpuinfo", "model name"); name != "" {
		m.CPU = name
	}
	if kb, err := strconv.ParseInt(strings.TrimSuffix(keyed("/proc/meminfo", "MemTotal"), " kB"), 10, 64); err == nil {
		m.Memory = kb << 10
	}
	if raw, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = "Linux " + string(bytes.TrimSpace(raw))
	}
	if raw, err := os.ReadFile("/proc/loadavg"); err == nil {
		first, _, _ := bytes.Cut(raw, []byte(" "))
		m.Load, _ = strconv.ParseFloat(string(first), 64) // 0 if it cannot be read
	}
	return m
}

// keyed returns the first value of a key in a file of "key : value" lines.
func keyed(path, key string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(raw)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// diskOf names the file system that dir is on: a sync on tmpfs costs nothing, and its
// figures mean nothing.
func diskOf(dir string) string {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return "unknown disk"
	}
	switch uint32(st.Type) { //nolint:gosec // the kernel's magic numbers have 32 bits
	case 0xef53:
		return "ext4"
	case 0x58465342:
		return "xfs"
	case 0x9123683e:
		return "btrfs"
	case 0x01021994:
		return "tmpfs (syncs cost nothing there)"
	case 0x794c7630:
		return "overlay"
	}
	return fmt.Sprintf("file system %#x", uint32(st.Type)) //nolint:gosec // as above
}
