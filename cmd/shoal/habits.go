// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

// verbHabits are verbs that people bring along from docker, kubectl and nomad, and
// what does the same here, or why nothing does.
var verbHabits = map[string]string{
	"apply":        `"shoal deploy" does that`,
	"attach":       `"shoal logs -f SERVICE" shows what a replica prints, "shoal exec -it SERVICE sh" gives a shell`,
	"build":        "docker builds images; \"shoal image push IMAGE\" takes one into the cluster",
	"container":    `"shoal ps" lists replicas; the other verbs need no word before them`,
	"create":       `"shoal run" or "shoal deploy" does that`,
	"delete":       `"shoal rm" does that`,
	"describe":     `"shoal inspect" and "shoal explain" do that`,
	"down":         `"shoal rm SERVICE" removes, "shoal stop SERVICE" only stops`,
	"get":          `"shoal ls" lists services, "shoal ps" replicas, "shoal peer ls" machines`,
	"images":       `"shoal image ls" lists them`,
	"import":       `"shoal image import" does that`,
	"export":       `"shoal image export" does that for images, "shoal cp" for files of replicas`,
	"kill":         `"shoal stop", "shoal restart" or "shoal rm" does that`,
	"load":         `"shoal image import" does that`,
	"node":         `machines are called peers: "shoal peer ls", "shoal drain PEER"`,
	"nodes":        `"shoal peer ls" lists machines`,
	"plan":         `"shoal deploy --plan" does that, and so does --plan of every verb that changes something`,
	"port":         `"shoal ps" shows ports`,
	"port-forward": "ports of replicas answer on the machine that holds them, if they are published",
	"pull":         `"shoal image pull" does that; a peer that is to run one gets it by itself`,
	"push":         `"shoal image push" does that`,
	"rename":       "services keep their names; deploy it under the other name and remove this one",
	"login":        `"shoal image login" does that, for a peer's own registry`,
	"save":         `"shoal image export" does that`,
	"tag":          `"shoal image tag" does that`,
	"rmi":          `"shoal image rm" does that`,
	"history":      `"shoal rollout history SERVICE" lists revisions, "shoal image inspect" shows layers, "shoal events" what happened`,
	"prune":        `"shoal image gc" removes what images left`,
	"system":       `"shoal image gc" removes what images left, "shoal doctor" looks at the machine`,
	"secret":       "configs and secrets are not handed to containers",
	"config":       "configs and secrets are not handed to containers",
	"service":      `services are what the verbs are about: "shoal ls", "shoal ps SERVICE", "shoal scale SERVICE=N"`,
	"services":     `"shoal ls" lists services`,
	"stack":        `"shoal deploy -f FILE" deploys, "shoal ls -f project=NAME" lists`,
	"stats":        `"shoal top" does that`,
	"status":       `"shoal ps" shows replicas, "shoal peer ls" machines`,
	"swarm":        `"shoal init" and "shoal join TOKEN" do that`,
	"up":           `"shoal deploy" does that`,
	"volume":       `volumes are listed by docker, on the machines: docker volume ls --filter label=net.shoal.cluster`,

	"network create":     noMaking,
	"network rm":         noMaking,
	"network remove":     noMaking,
	"network prune":      noMaking,
	"network connect":    noJoining,
	"network disconnect": noJoining,
	"network list":       `"shoal network ls" does that`,
	"rollout undo":       `"shoal rollback SERVICE" does that`,
	"rollout restart":    `"shoal restart SERVICE" does that`,
	"rollout cancel":     `"shoal rollout abort SERVICE" does that`,

	"image build":   "docker builds images; \"shoal image push IMAGE\" takes one into the cluster",
	"image list":    `"shoal image ls" does that`,
	"image load":    `"shoal image import" does that`,
	"image save":    `"shoal image export" does that`,
	"image prune":   `"shoal image gc" does that`,
	"image history": `"shoal image inspect" shows the layers`,
	"image remove":  `"shoal image rm" does that`,
}

// flagHabits are flags that people bring along, by command or "" for all of them.
// Those of one letter have no hyphens.
var flagHabits = map[string]map[string]string{
	"": {
		"dry-run":   "--plan only shows what would be done",
		"format":    "-o json or -o template=... does that",
		"namespace": "services have one name everywhere",
		"no-stream": "--once does that",
	},
	"deploy": {
		"build":          "docker builds images; \"shoal image push IMAGE\" takes one into the cluster",
		"compose-file":   "-f names the Compose file",
		"force-recreate": `"shoal restart" does that`,
		"project-name":   "-p names the project",
		"remove-orphans": "--prune does that",
	},
	"inspect":      {"f": "-o json or -o template=... does that"},
	"ls":           {"a": "all services are listed, also those that are stopped", "all": "all services are listed, also those that are stopped"},
	"ps":           {"a": "all replicas are listed, also those that failed", "all": "all replicas are listed, also those that failed"},
	"image gc":     {"a": "--all removes all that no service needs", "f": "-y asks nothing", "force": "-y asks nothing", "filter": "--room says how much to make free"},
	"image ls":     {"a": "all that are known are listed", "all": "all that are known are listed", "digests": "--no-trunc shows whole digests"},
	"image rm":     {"f": "rm asks nothing; --ignore-not-found if it may be missing", "force": "names that services use stay"},
	"image export": {"f": "-o names the file"},
	"image import": {"i": "the file needs no flag", "input": "the file needs no flag"},
	"restart":      {"t": `"shoal update --stop-grace" says how long stopping may take`},
	"rm": {
		"f": "rm asks nothing; --ignore-not-found if the service may be missing", "force": "rm asks nothing; --ignore-not-found if the service may be missing",
		"v": "named volumes stay; docker removes them, on the machines", "volumes": "named volumes stay; docker removes them, on the machines",
	},
	"run": {
		"cpu": "--cpus does that", "m": "--memory does that",
		"i": inExec, "t": inExec, "interactive": inExec, "tty": inExec,
		"rm":    "a service is there until \"shoal rm\"; --job runs a command to its end",
		"mount": inFile, "net": "--network does that", "privileged": inFile, "u": inFile, "user": inFile,
		"w": inFile, "workdir": inFile, "entrypoint": inFile, "hostname": inFile, "cap-add": inFile, "device": inFile, "tmpfs": inFile,
		"env-file": inFile, "health-cmd": inFile, "init": inFile, "read-only": inFile, "l": "--label does that", "mode": "--global is one on every peer",
	},
	"scale": {"replicas": "write SERVICE=N"},
	"shoal": {"version": `"shoal version" does that`, "v": `"shoal version" does that`},
	"stop":  {"t": `"shoal update --stop-grace" says how long stopping may take`},
	"update": {
		"args": "write -- COMMAND", "env-add": "--env sets one", "label-add": "--label sets one", "constraint-add": "--constraint adds one",
		"force": `"shoal restart" does that`, "limit-cpu": "--cpus does that", "limit-memory": "--memory does that",
		"rollback":    `"shoal rollback SERVICE" does that`,
		"publish-add": inFile, "mount-add": inFile, "network-add": inFile, "network-rm": inFile, "replicas": `"shoal scale SERVICE=N" does that`,
	},
}

// What flagHabits say more than once.
const (
	inExec    = `run starts it in the background; "shoal exec -it SERVICE sh" gives a terminal`
	noMaking  = "a network is there as long as services name it: in a Compose file, or with \"shoal run --network\""
	noJoining = "a service is on the networks that its spec names: change its Compose file, and deploy it"
	inFile    = `write it in a Compose file, for "shoal deploy"`
)

// verbHint returns "; ..." for a verb that is of another tool, "" for any other.
func verbHint(path string) string { return hint(verbHabits[path]) }

// flagHint does the same for a flag of the command with that path.
func flagHint(path, flag string) string {
	if text := flagHabits[path][flag]; text != "" {
		return hint(text)
	}
	return hint(flagHabits[""][flag])
}

func hint(text string) string {
	if text == "" {
		return ""
	}
	return "; " + text
}
