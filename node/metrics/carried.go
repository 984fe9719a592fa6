// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/shoalnet/shoal"

var aboutIngress = []family{
	{
		name: "shoal_ingress_port_listening", kind: gauge, labels: []string{"service", "port", "protocol"},
		help:    "1 if this peer answers on a published port, 0 if it cannot",
		numbers: ofPorts(func(p *shoal.PortState) float64 { return truth(p.Address != "") }),
	},
	{
		name: "shoal_ingress_port_usable_replicas", kind: gauge, labels: []string{"service", "port", "protocol"},
		help:    "Replicas, here and elsewhere, that this peer would give a connection to a published port",
		numbers: ofPorts(func(p *shoal.PortState) float64 { return float64(p.Usable) }),
	},
	{
		name: "shoal_ingress_open_connections", kind: gauge, labels: []string{"service"},
		help:    "Connections that this peer carries for its clients now; of UDP, clients that sent something lately",
		numbers: ofTraffic(func(t *shoal.Traffic) float64 { return float64(t.Open) }),
	},
	{
		name: "shoal_ingress_connections_total", kind: counter, labels: []string{"service"},
		help:    "Connections of clients that came to this peer, whichever way: a published port, a forwarded one",
		numbers: ofTraffic(func(t *shoal.Traffic) float64 { return float64(t.Total) }),
	},
	{
		name: "shoal_ingress_received_bytes_total", kind: counter, labels: []string{"service"}, help: "Bytes that clients of this peer sent",
		numbers: ofTraffic(func(t *shoal.Traffic) float64 { return float64(t.In) }),
	},
	{
		name: "shoal_ingress_sent_bytes_total", kind: counter, labels: []string{"service"}, help: "Bytes that were sent to clients of this peer",
		numbers: ofTraffic(func(t *shoal.Traffic) float64 { return float64(t.Out) }),
	},
	{
		name: "shoal_ingress_errors_total", kind: counter, labels: []string{"service", "reason"},
		help: "What went wrong with connections of clients, by reason; tries that another replica made good are among them",
		numbers: func(s *Snapshot, add adder) {
			for service, t := range s.Reach {
				byReason(t.Refused, func(n float64, labels ...string) { add(n, service, labels[0]) })
			}
		},
	},
	{
		name: "shoal_ingress_retries_total", kind: counter, labels: []string{"service"}, help: "Tries on one more replica, because one did not take a connection",
		numbers: ofTraffic(func(t *shoal.Traffic) float64 { return float64(t.Retries) }),
	},
	{
		name: "shoal_ingress_connect_seconds", kind: histogram, labels: []string{"service"},
		help:      "How long it took to connect a replica, from the first try on",
		durations: ofTimes(func(t *shoal.Traffic) shoal.Histogram { return t.Connect }),
	},
	{
		name: "shoal_ingress_first_byte_seconds", kind: histogram, labels: []string{"service"},
		help:      "How long it took from the client's first byte to that of the answer",
		durations: ofTimes(func(t *shoal.Traffic) shoal.Histogram { return t.FirstByte }),
	},
	{
		name: "shoal_ingress_served_open_connections", kind: gauge, help: "Connections that this peer carries to its replicas for other peers now",
		numbers: ofServed(func(t *shoal.Traffic) float64 { return float64(t.Open) }),
	},
	{
		name: "shoal_ingress_served_connections_total", kind: counter, help: "Connections that this peer carried to its replicas for other peers",
		numbers: ofServed(func(t *shoal.Traffic) float64 { return float64(t.Total) }),
	},
	{
		name: "shoal_ingress_served_received_bytes_total", kind: counter, help: "Bytes from other peers that this peer carried to its replicas",
		numbers: ofServed(func(t *shoal.Traffic) float64 { return float64(t.In) }),
	},
	{
		name: "shoal_ingress_served_sent_bytes_total", kind: counter, help: "Bytes of its replicas that this peer carried to other peers",
		numbers: ofServed(func(t *shoal.Traffic) float64 { return float64(t.Out) }),
	},
	{
		name: "shoal_ingress_served_errors_total", kind: counter, labels: []string{"reason"}, help: "Connections for other peers that were refused or broke, by reason",
		numbers: func(s *Snapshot, add adder) {
			if s.Served != nil {
				byReason(s.Served.Refused, add)
			}
		},
	},
}

var aboutImages = []family{
	{
		name: "shoal_images_used_bytes", kind: gauge, help: "Room that blobs of images take on this peer",
		numbers: ofImages(func(i *Images, add adder) { add(float64(i.Used)) }),
	},
	{
		name: "shoal_images_limit_bytes", kind: gauge, help: "Room that they may take; absent where there is no limit",
		numbers: ofImages(func(i *Images, add adder) {
			if i.Limit > 0 {
				add(float64(i.Limit))
			}
		}),
	},
	{
		name: "shoal_images_received_bytes_total", kind: counter, labels: []string{"from"},
		help: "Bytes of images that this peer got from members, and from registries outside (from is members or outside)",
		numbers: ofImages(func(i *Images, add adder) {
			add(float64(i.FromMembers), "members")
			add(float64(i.FromOutside), "outside")
		}),
	},
	{
		name: "shoal_images_sent_bytes_total", kind: counter, help: "Bytes of images that this peer sent to members",
		numbers: ofImages(func(i *Images, add adder) { add(float64(i.ToMembers)) }),
	},
	{
		name: "shoal_images_refused_messages_total", kind: counter, labels: []string{"reason"},
		help:    "Messages of members about images that were not taken, by reason",
		numbers: ofImages(func(i *Images, add adder) { byReason(i.Refused, add) }),
	},
}

func ofPorts(read func(*shoal.PortState) float64) func(*Snapshot, adder) {
	return func(s *Snapshot, add adder) {
		for i := range s.Ports {
			p := &s.Ports[i]
			add(read(p), p.Service, port(p.Port), p.Protocol)
		}
	}
}

func ofTraffic(read func(*shoal.Traffic) float64) func(*Snapshot, adder) {
	return func(s *Snapshot, add adder) {
		for service, t := range s.Reach {
			add(read(&t), service)
		}
	}
}

func ofTimes(read func(*shoal.Traffic) shoal.Histogram) func(*Snapshot, func(shoal.Histogram, ...string)) {
	return func(s *Snapshot, add func(shoal.Histogram, ...string)) {
		for service, t := range s.Reach {
			add(read(&t), service)
		}
	}
}

func ofServed(read func(*shoal.Traffic) float64) func(*Snapshot, adder) {
	return func(s *Snapshot, add adder) {
		if s.Served != nil {
			add(read(s.Served))
		}
	}
}

func ofImages(read func(*Images, adder)) func(*Snapshot, adder) {
	return func(s *Snapshot, add adder) {
		if s.Images != nil {
			read(s.Images, add)
		}
	}
}
