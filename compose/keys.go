// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

// verdict is what Shoal does with a key of Compose.
type verdict int

const (
	refused   verdict = iota + 1 // it means something that Shoal cannot do; the zero verdict is for keys that nobody knows
	harmless                     // it changes nothing that matters here; named once
	supported                    // it does what Compose says, or what why says
	inner                        // supported, and the keys below it are the user's own or judged with the value
)

// row is one key of the table: its path, "*" standing for any name, what becomes of
// it, and why in half a sentence. Where it is refused, why says what to do.
type row struct {
	path    string
	verdict verdict
	why     string
}

// Sentences that several rows share.
const (
	ownAddress  = "each peer gives out addresses of its own; remove it, and use names"
	noLinks     = "services that share a network know each other by name; for another name give the other one an alias (networks: NETWORK: aliases)"
	noFiles     = "configs and secrets are not handed to containers; use environment, or a bind mount of a file on the machines"
	noHooks     = "nothing is run beside the container; put it into the image's entrypoint"
	noBuild     = "images are not built here; build it with docker, give it to all with shoal image push, and name it with image"
	noTuning    = "the kernel's finer controls are not passed on; use cpus, mem_limit or pids_limit"
	noNames     = "name servers of containers cannot be set; use extra_hosts, or set them for the engine"
	noWindows   = "only Linux containers are run"
	noOrder     = "services are not started in an order; let a service wait, or fail and be restarted, until what it needs answers"
	noDevices   = "GPUs and generic resources are not handed out; use devices, and constraints on labels"
	swarmVolume = "only local volumes of the engine are made; make it yourself on the machines and say external: true"
	localOnly   = "this belongs to a developer's machine"
)

// rows is the one table of what is understood, in the order of docs/compose.md. What
// is not here is no key that Shoal knows, and is refused too.
var rows = []row{
	{"name", supported, "name of the project; `-p` counts more, else the directory's name"},
	{"version", harmless, "Compose itself has no versions any more"},
	{"services", supported, "at most 1000"},
	{"volumes", supported, "volumes made by Shoal on the machine of the replica, named PROJECT_NAME"},
	{"volumes.*.name", supported, "its name on the engine, in place of PROJECT_NAME"},
	{"volumes.*.external", supported, "it is not Shoal's and must be there; the machine's owner has to allow it (`policy.yaml`: `volumes`)"},
	{"volumes.*.external.name", refused, "write name beside external: true"},
	{"volumes.*.driver", supported, "`local` only"},
	{"volumes.*.driver_opts", refused, swarmVolume},
	{"volumes.*.labels", harmless, "volumes get Shoal's own labels only"},
	{"networks", supported, "each peer makes a bridge where a replica needs one, and carries connections to replicas elsewhere; in the cluster it is called PROJECT_NAME. `default` is the network of services that name none"},
	{"networks.*.name", supported, "its name in the cluster, in place of PROJECT_NAME"},
	{"networks.*.external", supported, "its name is used as it is: so services of several projects are on one network. Nothing has to be there before"},
	{"networks.*.external.name", refused, "write name beside external: true"},
	{"networks.*.driver", supported, "`bridge`, `overlay` or `default`, which are the same here"},
	{"networks.*.internal", supported, "`false` only"},
	{"networks.*.enable_ipv4", supported, "`true` only"},
	{"networks.*.enable_ipv6", supported, "`false` only"},
	{"networks.*.attachable", harmless, "only services are on networks"},
	{"networks.*.labels", harmless, "networks get Shoal's own labels only"},
	{"networks.*.driver_opts", refused, "bridges are all made alike; remove it"},
	{"networks.*.ipam", refused, ownAddress},
	{"secrets", refused, noFiles},
	{"configs", refused, noFiles},
	{"include", refused, "files are not included; name them all with -f"},
	{"models", refused, "models are not run"},
	{"jobs", refused, "jobs are not run"},

	{"services.*.image", supported, "a name is looked up once, at deploy, and all replicas run the digest it stands for then; what only engines hold runs on the peers that hold it"},
	{"services.*.entrypoint", inner, "a line is split as a shell would; a list is taken as it is"},
	{"services.*.command", inner, "a line is split as a shell would; a list is taken as it is"},
	{"services.*.environment", inner, "a name without a value takes that of the shell or `.env`, and is left out if there is none"},
	{"services.*.env_file", inner, "read when deploying, beside the Compose file; `environment` counts more"},
	{"services.*.labels", inner, "of the service and its containers; `net.shoal.*` is Shoal's own"},
	{"services.*.label_file", inner, "read when deploying; `labels` counts more"},
	{"services.*.ports", inner, "short and long; a published port answers on every peer, `mode: host` only on the one that holds the replica, so one replica a peer; no host address"},
	{"services.*.networks", supported, "a list or a mapping; a service reaches those that share a network with it, by name. Where nothing is said it is on `default`"},
	{"services.*.networks.*.aliases", inner, "other names that it has there: labels of DNS, at most 32"},
	{"services.*.networks.*.priority", inner, "the highest goes first, and without any they go by name"},
	{"services.*.networks.*.use_service_name_alias", supported, "`true` only"},
	{"services.*.networks.*.ipv4_address", refused, ownAddress},
	{"services.*.networks.*.ipv6_address", refused, ownAddress},
	{"services.*.networks.*.link_local_ips", refused, ownAddress},
	{"services.*.networks.*.mac_address", refused, "the engine chooses it; remove it"},
	{"services.*.networks.*.driver_opts", refused, "bridges are all made alike; remove it"},
	{"services.*.networks.*.interface_name", refused, "the engine names interfaces; remove it"},
	{"services.*.networks.*.gw_priority", refused, "the engine chooses the way outside; remove it"},
	{"services.*.volumes", supported, "short and long; a relative path means that of this directory, on the machine of the replica, and its files are not copied there"},
	{"services.*.volumes.type", supported, "`volume`, `bind` or `tmpfs`"},
	{"services.*.volumes.source", supported, ""},
	{"services.*.volumes.target", supported, ""},
	{"services.*.volumes.read_only", supported, ""},
	{"services.*.volumes.consistency", harmless, "it is about Docker Desktop"},
	{"services.*.volumes.bind", supported, "the machine's owner has to allow the path (`policy.yaml`: `mounts`)"},
	{"services.*.volumes.bind.create_host_path", supported, "true unless it says otherwise: a directory is made where there is nothing"},
	{"services.*.volumes.bind.propagation", supported, ""},
	{"services.*.volumes.bind.recursive", refused, "how mounts below it are shown is the engine's default; remove it"},
	{"services.*.volumes.bind.selinux", refused, "nothing is relabelled; do it on the machine, or use security_opt: [label=...]"},
	{"services.*.volumes.volume", supported, ""},
	{"services.*.volumes.volume.nocopy", supported, ""},
	{"services.*.volumes.volume.labels", harmless, "volumes get Shoal's own labels only"},
	{"services.*.volumes.volume.subpath", refused, "a volume is mounted whole; use another volume"},
	{"services.*.volumes.tmpfs", supported, ""},
	{"services.*.volumes.tmpfs.size", supported, ""},
	{"services.*.volumes.tmpfs.mode", supported, ""},
	{"services.*.volumes.image", refused, "images are not mounted; use a volume"},
	{"services.*.tmpfs", inner, "PATH, or PATH:size=64m,mode=1777"},
	{"services.*.healthcheck", supported, "it decides when a replica is ready"},
	{"services.*.healthcheck.test", inner, "a line is given to the image's shell; CMD, CMD-SHELL or NONE begin a list"},
	{"services.*.healthcheck.interval", supported, "30s"},
	{"services.*.healthcheck.timeout", supported, "30s, never longer than the interval"},
	{"services.*.healthcheck.start_period", supported, ""},
	{"services.*.healthcheck.retries", supported, "3"},
	{"services.*.healthcheck.disable", supported, ""},
	{"services.*.healthcheck.start_interval", refused, "checks begin at their usual pace; use a shorter interval"},
	{"services.*.restart", supported, "`always` and `unless-stopped` are the same, and the default"},
	{"services.*.stop_signal", supported, ""},
	{"services.*.stop_grace_period", supported, "10s; at most 1h"},
	{"services.*.user", supported, ""},
	{"services.*.working_dir", supported, ""},
	{"services.*.hostname", supported, ""},
	{"services.*.init", supported, ""},
	{"services.*.tty", supported, ""},
	{"services.*.stdin_open", supported, ""},
	{"services.*.read_only", supported, ""},
	{"services.*.extra_hosts", inner, ""},
	{"services.*.shm_size", supported, ""},
	{"services.*.ulimits", inner, ""},
	{"services.*.sysctls", inner, "those of the container only; the machine's owner has to allow them"},
	{"services.*.logging", supported, "drivers other than json-file, local, journald and none need the owner's word"},
	{"services.*.logging.driver", supported, ""},
	{"services.*.logging.options", inner, ""},
	{"services.*.cap_add", inner, "the machine's owner has to allow them"},
	{"services.*.cap_drop", inner, ""},
	{"services.*.devices", inner, "the machine's owner has to allow them"},
	{"services.*.group_add", inner, "the machine's owner has to allow them"},
	{"services.*.privileged", supported, "the machine's owner has to allow it"},
	{"services.*.security_opt", inner, "every container gets no-new-privileges; the machine's owner has to allow what takes down a wall"},
	{"services.*.network_mode", supported, "`bridge`, `none` or `host`, which the machine's owner has to allow"},
	{"services.*.pid", supported, "`host`, which the machine's owner has to allow"},
	{"services.*.ipc", supported, "`host`, which the machine's owner has to allow, or `private`"},
	{"services.*.uts", supported, "`host`, which the machine's owner has to allow"},
	{"services.*.userns_mode", supported, "`host`, which the machine's owner has to allow"},
	{"services.*.mem_limit", supported, "with a unit, like 64m; `deploy.resources` counts more"},
	{"services.*.mem_reservation", supported, "what placement counts; `deploy.resources` counts more"},
	{"services.*.cpus", supported, "cores, like 0.5; `deploy.resources` counts more"},
	{"services.*.pids_limit", supported, ""},
	{"services.*.platform", supported, "only peers of that platform, like linux/amd64"},
	{"services.*.pull_policy", supported, "`missing`, `if_not_present` and `never` say the same: an image comes from the peers that have it, and from a registry outside only where none has (`images.upstream: none`: not even then)"},
	{"services.*.profiles", inner, "deployed with `--profile`, or when named"},
	{"services.*.extends", inner, "a service of this file or of another beside it"},
	{"services.*.scale", supported, "the same as deploy.replicas"},
	{"services.*.container_name", harmless, "containers are named SERVICE-SLOT-ID, since there may be several"},
	{"services.*.expose", harmless, "in its networks every TCP port answers; of UDP those that ports names"},
	{"services.*.attach", harmless, localOnly},
	{"services.*.develop", harmless, localOnly},
	{"services.*.annotations", harmless, "they are hints to engines that read them; nothing here does"},

	{"services.*.deploy", supported, ""},
	{"services.*.deploy.mode", supported, "`replicated` or `global`, which is one on every peer that can"},
	{"services.*.deploy.replicas", supported, "0–10000; `shoal scale` counts more until the file's number changes"},
	{"services.*.deploy.labels", inner, "the same as labels"},
	{"services.*.deploy.resources", supported, ""},
	{"services.*.deploy.resources.limits", supported, "what the engine enforces"},
	{"services.*.deploy.resources.limits.cpus", supported, ""},
	{"services.*.deploy.resources.limits.memory", supported, ""},
	{"services.*.deploy.resources.limits.pids", supported, ""},
	{"services.*.deploy.resources.reservations", supported, "what placement counts; where nothing is reserved, the limit"},
	{"services.*.deploy.resources.reservations.cpus", supported, ""},
	{"services.*.deploy.resources.reservations.memory", supported, ""},
	{"services.*.deploy.resources.reservations.devices", refused, noDevices},
	{"services.*.deploy.resources.reservations.generic_resources", refused, noDevices},
	{"services.*.deploy.placement", supported, ""},
	{"services.*.deploy.placement.constraints", inner, "`node.labels.K == V`, `node.hostname`, `node.id`, or any of `k=v`, `k!=v`, `k in (a,b)`, `k notin (a,b)`, `k`, `!k`"},
	{"services.*.deploy.placement.preferences", supported, "one; where nothing is said slots are spread over zones"},
	{"services.*.deploy.placement.preferences.spread", supported, "a label: `node.labels.K` or `K`; after it comes the peer"},
	{"services.*.deploy.placement.max_replicas_per_node", supported, ""},
	{"services.*.deploy.restart_policy", supported, "counts more than restart"},
	{"services.*.deploy.restart_policy.condition", supported, "`any`, `on-failure` or `none`"},
	{"services.*.deploy.restart_policy.delay", supported, "the first wait, 1s; it doubles with every failure"},
	{"services.*.deploy.restart_policy.max_attempts", supported, ""},
	{"services.*.deploy.restart_policy.window", supported, "running this long forgives earlier failures"},
	{"services.*.deploy.update_config", supported, "how a new revision takes the place of the old one ([rollouts](rollouts.md)); where nothing is said, x-shoal.rollout's shape"},
	{"services.*.deploy.update_config.parallelism", supported, "slots changed at once; where nothing is said a quarter of them"},
	{"services.*.deploy.update_config.delay", supported, "from when a slot's replica is ready until the next slot changes, at least `min_healthy`"},
	{"services.*.deploy.update_config.order", supported, "`stop-first` or `start-first`"},
	{"services.*.deploy.update_config.monitor", supported, "how long the last slots are watched once all have changed, at least `min_healthy`"},
	{"services.*.deploy.update_config.max_failure_ratio", supported, "0-1 of the slots may fail; 0 where nothing is said"},
	{"services.*.deploy.update_config.failure_action", supported, "when more do, or the deadline passes: `pause` (where update_config is and says nothing), `continue`, or `rollback` to the last good revision"},
	{"services.*.deploy.rollback_config", supported, "the same for going back; where nothing is said as update_config, but that a failure pauses it"},
	{"services.*.deploy.rollback_config.parallelism", supported, ""},
	{"services.*.deploy.rollback_config.delay", supported, ""},
	{"services.*.deploy.rollback_config.order", supported, ""},
	{"services.*.deploy.rollback_config.monitor", supported, ""},
	{"services.*.deploy.rollback_config.max_failure_ratio", supported, ""},
	{"services.*.deploy.rollback_config.failure_action", supported, "`pause` or `continue`"},
	{"services.*.deploy.endpoint_mode", supported, "`vip` only: a service has one address in each network; tasks.SERVICE asks for those of its replicas"},

	{"services.*.x-shoal", supported, "what Compose has no word for"},
	{"services.*.x-shoal.on_partition", supported, "`available`: each side of a split restores all replicas; `sticky`: nothing is replaced elsewhere by itself"},
	{"services.*.x-shoal.priority", supported, "a whole number; higher first where room is short"},
	{"services.*.x-shoal.strategy", supported, "`spread` or `binpack`"},
	{"services.*.x-shoal.spread", inner, "the label whose values slots are spread over first, like `rack` or `[rack, peer]`; zone where nothing is said"},
	{"services.*.x-shoal.lb", supported, "which replica serves a connection: `p2c` (of two drawn the one with fewer open connections, the default), `rr`, `weighted`, `least-conn`, `least-time`, `hash` (of the client's address) or `random`"},
	{"services.*.x-shoal.prefer", supported, "`any` (the default), `zone` or `local`: the nearest ready replicas first"},
	{"services.*.x-shoal.proxy_protocol", supported, "`true`: connections to published ports begin with a PROXY protocol v2 header, which tells the client's address"},
	{"services.*.x-shoal.volumes", supported, "`anywhere`: slots with data may move to peers that do not have it; else they stay where they first ran"},
	{"services.*.x-shoal.rollout", supported, "the shape of a rollout ([rollouts](rollouts.md)); what is not said is as usual, and with update_config its words count"},
	{"services.*.x-shoal.rollout.max_unavailable", supported, "replicas, or a part of them, that may be not ready: 25%"},
	{"services.*.x-shoal.rollout.max_surge", supported, "replicas beyond the number wanted, with start-first: 25%; where it is said and no order is, the order is start-first"},
	{"services.*.x-shoal.rollout.min_healthy", supported, "how long a new replica has to be ready before the next slots change: 10s"},
	{"services.*.x-shoal.rollout.deadline", supported, "a rollout in which no slot becomes healthy for this long has failed: 10m; 0s: it never has"},
	{"services.*.x-shoal.rollout.order", supported, "as update_config.order"},
	{"services.*.x-shoal.canary", supported, "replicas, or a part of them, that try a revision before the others change; then `shoal rollout promote`"},
	{"services.*.x-shoal.canary.replicas", supported, "how many, where there are terms"},
	{"services.*.x-shoal.canary.promote_after", supported, "the others follow by themselves once these have been healthy for so long"},
	{"services.*.x-shoal.canary.weight", supported, "their part of the traffic until then, like `5%`"},

	{"services.*.depends_on", refused, noOrder},
	{"services.*.build", refused, noBuild},
	{"services.*.links", refused, noLinks},
	{"services.*.external_links", refused, "join the other one's network (networks: NAME: external: true), where it is known by name"},
	{"services.*.net", refused, "Compose calls it network_mode now; use that"},
	{"services.*.configs", refused, noFiles},
	{"services.*.secrets", refused, noFiles},
	{"services.*.volumes_from", refused, "mounts are not taken from other containers; name the same volumes"},
	{"services.*.volume_driver", refused, swarmVolume},
	{"services.*.gpus", refused, noDevices},
	{"services.*.log_driver", refused, "Compose calls it logging.driver now; use that"},
	{"services.*.log_opt", refused, "Compose calls it logging.options now; use that"},
	{"services.*.dns", refused, noNames},
	{"services.*.dns_opt", refused, noNames},
	{"services.*.dns_search", refused, noNames},
	{"services.*.domainname", refused, "write the whole name as hostname"},
	{"services.*.mac_address", refused, "the engine chooses it; remove it"},
	{"services.*.memswap_limit", refused, noTuning},
	{"services.*.mem_swappiness", refused, noTuning},
	{"services.*.oom_kill_disable", refused, noTuning},
	{"services.*.oom_score_adj", refused, noTuning},
	{"services.*.blkio_config", refused, noTuning},
	{"services.*.cgroup", refused, noTuning},
	{"services.*.cgroup_parent", refused, noTuning},
	{"services.*.cpu_count", refused, noTuning},
	{"services.*.cpu_percent", refused, noTuning},
	{"services.*.cpu_period", refused, noTuning},
	{"services.*.cpu_quota", refused, noTuning},
	{"services.*.cpu_rt_period", refused, noTuning},
	{"services.*.cpu_rt_runtime", refused, noTuning},
	{"services.*.cpu_shares", refused, noTuning},
	{"services.*.cpuset", refused, noTuning},
	{"services.*.device_cgroup_rules", refused, "name the devices with devices"},
	{"services.*.storage_opt", refused, "the size of a root file system is the engine's; use a volume"},
	{"services.*.runtime", refused, "containers run under the engine's default runtime; set it there"},
	{"services.*.credential_spec", refused, noWindows},
	{"services.*.isolation", refused, noWindows},
	{"services.*.umask", refused, noHooks},
	{"services.*.pre_start", refused, noHooks},
	{"services.*.post_start", refused, noHooks},
	{"services.*.pre_stop", refused, noHooks},
	{"services.*.provider", refused, "only containers are run"},
	{"services.*.models", refused, "models are not run"},
	{"services.*.use_api_socket", refused, "the engine's socket is not handed out; mount it, if its owner allows"},
	{"services.*.pull_refresh_after", refused, "an image is fetched once and not looked for again; remove it, and shoal image push what is newer"},
}

// table finds a row by its path.
var table = func() map[string]*row {
	m := make(map[string]*row, len(rows))
	for i := range rows {
		m[rows[i].path] = &rows[i]
	}
	return m
}()
