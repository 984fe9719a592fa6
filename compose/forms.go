// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	units "github.com/docker/go-units"
	"gopkg.in/yaml.v3"

	"github.com/shoalnet/shoal"
)

// form says what is wrong with the text of a value; "" if nothing is.
type form func(text string) string

// forms are the values that are judged where they stand, so that all that are wrong
// are named at once and with their lines. compose-go would stop at the first. What
// holds a variable is judged later.
var forms = func() map[string]form {
	m := map[string]form{}
	for _, f := range []struct {
		form  form
		paths string // below services.*
	}{
		{isPort, "ports"},
		{isSize, "mem_limit mem_reservation shm_size deploy.resources.limits.memory deploy.resources.reservations.memory volumes.tmpfs.size"},
		{isTime, "healthcheck.interval healthcheck.timeout healthcheck.start_period stop_grace_period deploy.restart_policy.delay deploy.restart_policy.window " +
			"deploy.update_config.delay deploy.update_config.monitor deploy.rollback_config.delay deploy.rollback_config.monitor"},
		{isCores, "cpus deploy.resources.limits.cpus deploy.resources.reservations.cpus"},
		{isReplicas, "scale deploy.replicas"},
		{isCount, "healthcheck.retries deploy.placement.max_replicas_per_node deploy.restart_policy.max_attempts x-shoal.canary.max_restarts"},
		{isBatch, "deploy.update_config.parallelism deploy.rollback_config.parallelism"},
		{isRatio, "deploy.update_config.max_failure_ratio deploy.rollback_config.max_failure_ratio"},
		{isShare, "x-shoal.rollout.max_unavailable x-shoal.rollout.max_surge x-shoal.canary x-shoal.canary.replicas"},
		{isNumber, "x-shoal.autoscale.min x-shoal.autoscale.max x-shoal.autoscale.connections x-shoal.autoscale.requests"},
		{isPercent, "x-shoal.autoscale.cpu x-shoal.autoscale.memory x-shoal.autoscale.tolerance"},
		{isShare, "x-shoal.autoscale.up.step x-shoal.autoscale.down.step"},
		{isSpan, "x-shoal.autoscale.up.window x-shoal.autoscale.down.window x-shoal.autoscale.idle x-shoal.autoscale.manual"},
		{isSpan, "x-shoal.rollout.min_healthy x-shoal.rollout.deadline x-shoal.canary.promote_after"},
		{isNumber, "x-shoal.job.attempts x-shoal.job.parallelism x-shoal.pre_deploy.attempts"},
		{isSpan, "x-shoal.job.deadline x-shoal.pre_deploy.deadline"},
		{oneOf(string(shoal.MissedSkip), string(shoal.MissedOnce)), "x-shoal.schedule.missed"},
		{oneOf(string(shoal.OverlapSkip), string(shoal.OverlapReplace)), "x-shoal.schedule.overlap"},
		{isWeight, "x-shoal.canary.weight"},
		{isRestart, "restart"},
		{oneOf(startFirst, stopFirst), "deploy.update_config.order deploy.rollback_config.order x-shoal.rollout.order"},
		{oneOf("pause", "continue", "rollback"), "deploy.update_config.failure_action"},
		{oneOf("pause", "continue"), "deploy.rollback_config.failure_action"},
		{oneOf("any", "on-failure", "none"), "deploy.restart_policy.condition"},
		{oneOf(string(shoal.ConditionStarted), string(shoal.ConditionHealthy), string(shoal.ConditionCompleted)), "depends_on.*.condition"},
		{oneOf("replicated", "global", "replicated-job", "global-job"), "deploy.mode"},
		{isEndpoint, "deploy.endpoint_mode"},
		{oneOf("volume", "bind", "tmpfs"), "volumes.type"},
	} {
		for path := range strings.FieldsSeq(f.paths) {
			m["services.*."+path] = f.form
		}
	}
	return m
}()

// judgeForm returns what is wrong with a value, "" being nothing; for a list, with each
// of its items.
func judgeForm(f form, n *yaml.Node) []string {
	n = follow(n)
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		items = n.Content
	}
	wrong := make([]string, len(items))
	for i, item := range items {
		item = follow(item)
		if item.Kind != yaml.ScalarNode || empty(item) || strings.Contains(item.Value, "$") {
			continue
		}
		wrong[i] = f(item.Value)
	}
	return wrong
}

// portPattern is Compose's short form: [[ADDRESS:]PUBLISHED:]CONTAINER[/PROTOCOL].
var portPattern = regexp.MustCompile(`^(?:(?:[0-9.]{7,}|\[[0-9a-fA-F:.]+\]):)?(?:(\d*(?:-\d+)?):)?(\d+(?:-\d+)?)(?:/(?:tcp|udp))?$`)

func isPort(text string) string {
	m := portPattern.FindStringSubmatch(text)
	if m == nil {
		return fmt.Sprintf("must be [PUBLISHED:]CONTAINER[/PROTOCOL] with tcp or udp, got %q", text)
	}
	for n := range strings.SplitSeq(m[1]+"-"+m[2], "-") {
		if v, err := strconv.Atoi(n); n != "" && (err != nil || v < 1 || v > math.MaxUint16) {
			return fmt.Sprintf("must be 1-65535, got %s", n)
		}
	}
	return ""
}

func isSize(text string) string {
	if n, err := units.RAMInBytes(text); err != nil || n <= 0 {
		return fmt.Sprintf("must be a size like 64m or 2g, got %s", text)
	}
	return ""
}

func isTime(text string) string {
	if _, err := strconv.ParseFloat(text, 64); err == nil && text != "0" {
		return fmt.Sprintf("%s has no unit (try %q)", text, text+"s")
	}
	// Compose knows days and weeks, too.
	if _, err := time.ParseDuration(strings.NewReplacer("d", "h", "w", "h").Replace(text)); err != nil {
		return fmt.Sprintf("must be a time like 30s or 1m30s, got %q", text)
	}
	return ""
}

func isCores(text string) string {
	if v, err := strconv.ParseFloat(text, 64); err != nil || math.IsNaN(v) || v < minCores || v > maxCores {
		return fmt.Sprintf("must be %v-%v cores, got %s", minCores, maxCores, text)
	}
	return ""
}

func isReplicas(text string) string {
	if v, err := strconv.Atoi(text); err != nil || v < 0 || v > shoal.MaxReplicas {
		return fmt.Sprintf("must be 0–%d, got %s", shoal.MaxReplicas, text)
	}
	return ""
}

func isCount(text string) string {
	if v, err := strconv.Atoi(text); err != nil || v < 0 || v > math.MaxInt32 {
		return fmt.Sprintf("must be a whole number, got %s", text)
	}
	return ""
}

func isBatch(text string) string {
	if v, err := strconv.Atoi(text); err != nil || v < 1 || v > shoal.MaxReplicas {
		return fmt.Sprintf("must be 1-%d, got %s; all at once is the number of replicas", shoal.MaxReplicas, text)
	}
	return ""
}

// restartPattern is Compose's short form of a restart policy.
var restartPattern = regexp.MustCompile(`^(|no|always|unless-stopped|on-failure(:\d{1,9})?)$`)

func isRestart(text string) string {
	if !restartPattern.MatchString(text) {
		return fmt.Sprintf("must be no, always, on-failure[:N] or unless-stopped, got %q", text)
	}
	return ""
}

func oneOf(words ...string) form {
	return func(text string) string {
		if slices.Contains(words, text) {
			return ""
		}
		return fmt.Sprintf("must be %s, got %q", strings.Join(words, " or "), text)
	}
}

func isEndpoint(text string) string {
	if text != "" && text != "vip" {
		return fmt.Sprintf("must be vip, got %q: a service has one address in each network; for those of its replicas ask for tasks.SERVICE", text)
	}
	return ""
}
