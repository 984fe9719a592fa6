# Shoal. `make help` lists what there is; every target runs from a clean checkout.
SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
TOOLS   := bin/tools
SEED    ?= 0
SEEDS   ?= 0
SUITE   ?= all
BENCH   ?= quick
FORMAT  ?= table

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build shoald, shoal and shoal-lab into bin/
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

.PHONY: demo
demo: engine build ## run the main job on this machine: three peers, a Compose file, a kill, everything back
	go run ./lab/demo up

.PHONY: demo-down
demo-down: ## remove everything the demo made
	go run ./lab/demo down

.PHONY: engine
engine: ## make sure a Docker Engine answers (YES=1: install and start one where there is none)
	@scripts/engine.sh

.PHONY: cc
cc: # the race detector needs a C compiler
	@command -v "$$(go env CC)" >/dev/null || { [ "$$(id -u)" = 0 ] && [ "$${YES:-}" = 1 ] && \
		apt-get update -q && apt-get install -y --no-install-recommends gcc libc6-dev; } || \
		{ echo 'error: the race detector needs a C compiler and none is here; apt-get install gcc libc6-dev (or again with YES=1)' >&2; exit 1; }

# Two goroutines of one synctest bubble on two processors can crash the runtime under the race detector
# (go.dev/issue/78156); on one processor they cannot. The detector orders by happens-before either way.
BUBBLED = $(shell git grep -l '"testing/synctest"' -- '*_test.go' ':!bench' | xargs -n1 dirname | sort -u | sed 's|^|./|')

.PHONY: test
test: cc ## all tests that need no engine, with the race detector
	go test -race -timeout 10m $$(go list ./... | grep -vxF "$$(go list $(BUBBLED))")
	go test -race -timeout 10m -cpu 1 $(BUBBLED)

.PHONY: race
race: test ## the same as test: the race detector is always on

.PHONY: test-32
test-32: ## the tests that matter where int has 32 bits, and vet of what ships for armv7
	GOARCH=386 CGO_ENABLED=0 go test -timeout 10m . ./actors/... ./placement/... ./gossip/... ./proto/... ./links/... \
		./wish/... ./compose/... ./api/... ./runtime/... ./node/... ./cmd/shoal/...
	GOARCH=arm GOARM=7 CGO_ENABLED=0 go vet ./cmd/...

.PHONY: integration
integration: engine cc ## the tests that need a Docker Engine, and root
	go test -race -tags integration -timeout 10m ./runtime/... ./internal/pack/... ./images/archive ./images/registry ./ingress

.PHONY: conformance
conformance: ## OCI.s conformance program against our registry, or REGISTRY=live (a daemon: make build) or 127.0.0.1:5050 LOGIN="user password"
	scripts/conformance.sh $(REGISTRY) $(LOGIN)

.PHONY: lab-test
lab-test: cc ## the tests of the lab that need root and dockerd: whole hosts in namespaces of their own
	go test -race -tags lab -timeout 25m -skip '^TestSmoke$$' ./lab ./lab/wire/... ./lab/host/... ./ingress/bridge ./cmd/shoal-lab

.PHONY: lab-smoke
lab-smoke: ## the lab's figures on this machine: three hosts, a power cut, a cut link, distance and loss (root)
	go test -tags lab -timeout 5m -count 1 -v -run '^TestSmoke$$' ./cmd/shoal-lab

.PHONY: kill-loop
kill-loop: ## kill -9 a real daemon KILLS=50 times under writes, SEED=n, within BUDGET=45s or none: nothing acknowledged may be lost
	go test -tags failpoint -timeout 4h -count 1 -v ./lab/kill -args -kills $(or $(KILLS),50) -seed $(SEED) -budget $(or $(BUDGET),0)

.PHONY: soak
soak: ## what takes long: kill-loop with KILLS=1000
	$(MAKE) kill-loop KILLS=$(or $(KILLS),1000)

.PHONY: sim
sim: ## seeded simulation: SUITE=placement|cluster|swarm|all SEED=n (one) SEEDS=n (many)
	SHOAL_SEED=$(SEED) SHOAL_SEEDS=$(SEEDS) scripts/sim.sh $(SUITE)

.PHONY: fuzz
fuzz: ## fuzz every parser and decoder, FUZZTIME=10s each
	scripts/fuzz.sh $(or $(FUZZTIME),10s)

.PHONY: bench
bench: engine build ## measure Shoal, and etcd and HAProxy beside it, in one table (BENCH=quick|full, FORMAT=table|markdown|json)
	@scripts/haproxy.sh
	cd bench && CGO_ENABLED=0 go build -trimpath -o ../bin/ ./...
	bin/bench -o $(FORMAT) $(BENCH)

.PHONY: bench-pure
bench-pure: ## measure the pure core and the store alone
	go test -run '^$$' -bench . -benchtime $(if $(filter full,$(BENCH)),2s,200ms) ./placement ./gossip

.PHONY: bench-test
bench-test: ## the tests of the bench itself, which is a module of its own
	cd bench && go vet ./... && go test ./...

.PHONY: proto
proto: tools ## regenerate the wire messages, lint them
	cd proto && PATH="$(CURDIR)/$(TOOLS):$$PATH" buf lint && PATH="$(CURDIR)/$(TOOLS):$$PATH" buf generate

.PHONY: docs
docs: ## regenerate what is generated from the code's tables: one line for each
	go run ./cmd/shoald --print-reference > docs/configuration.md
	go run ./cmd/shoald --print-config > packaging/shoald.yaml
	go run ./cmd/shoal deploy --print-reference > docs/compose.md
	env -u SHOAL_HOST -u SHOAL_CONTEXT go run ./cmd/shoal --print-reference > docs/cli.md
	go test -count=1 -run '^TestDocs$$' ./node/metrics -update

.PHONY: dist
dist: ## static binaries for every platform, as archives with checksums, in bin/dist
	scripts/dist.sh $(VERSION)

.PHONY: deb
deb: ## Debian packages, ARCH=amd64|arm64|armhf or all of them, in bin/dist
	scripts/deb.sh $(VERSION) $(ARCH)

.PHONY: packaging-test
packaging-test: ## build a package and an archive, install the package into a root of its own, remove it
	scripts/packaging-test.sh

.PHONY: lint
lint: tools house ## gofumpt, golangci-lint, buf lint, the house test
	@test -z "$$($(TOOLS)/gofumpt -l . | grep -v '\.pb\.go' | tee /dev/stderr)"
	$(TOOLS)/golangci-lint run ./...
	cd proto && ../$(TOOLS)/buf lint

.PHONY: house
house: ## the house rules: imports, purity, sizes
	go test -run '^TestHouse$$' .

.PHONY: fmt
fmt: tools ## format everything
	$(TOOLS)/gofumpt -w $$(git ls-files '*.go' | grep -v '\.pb\.go$$' | grep -v connect.go)

.PHONY: tidy
tidy: ## check that go.mod and go.sum are tidy
	go mod tidy -diff

.PHONY: cover
cover: ## coverage of the pure rooms and the rest, in bin/cover.html
	@mkdir -p bin
	go test -coverprofile=bin/cover.out ./... && go tool cover -html=bin/cover.out -o bin/cover.html

.PHONY: tools
tools: ## build the pinned tools into bin/tools
	@mkdir -p $(TOOLS)
	@cd tools && go build -o ../$(TOOLS)/ \
		github.com/bufbuild/buf/cmd/buf google.golang.org/protobuf/cmd/protoc-gen-go \
		connectrpc.com/connect/cmd/protoc-gen-connect-go mvdan.cc/gofumpt \
		github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: ci
ci: ## what continuous integration runs
	scripts/ci.sh
