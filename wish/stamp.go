// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"github.com/shoalnet/shoal"
)

// errExists advises on a name that is taken.
var errExists = errors.New("already exists")

// step is one change of a wish: what would be written, and what it says in a plan.
// A step without bodies changes nothing.
type step struct {
	change  shoal.Change
	rev     *shoal.RevisionBody
	scale   *shoal.ScaleBody
	gone    *shoal.GoneBody
	mark    *shoal.MarkBody
	op      *shoal.OpBody
	rollout *shoal.RolloutBody
	member  *shoal.MemberBody
	spec    *shoal.Spec // as it would be afterwards; nil when the service goes
	preDue  bool        // its pre_deploy runs for the revision that is written
}

func (s *step) bodies() []shoal.Body {
	var out []shoal.Body
	if s.rev != nil {
		out = append(out, s.rev)
	}
	if s.scale != nil {
		out = append(out, s.scale)
	}
	if s.gone != nil {
		out = append(out, s.gone)
	}
	if s.mark != nil {
		out = append(out, s.mark)
	}
	if s.op != nil {
		out = append(out, s.op)
	}
	if s.rollout != nil {
		out = append(out, s.rollout)
	}
	if s.member != nil {
		out = append(out, s.member)
	}
	return out
}

// stamp turns a wish into steps against the folded state. It is pure: the same
// state, author, wish and images give the same steps at the same Unix second. Any error
// refuses the wish whole.
func stamp(d *shoal.Desired, author shoal.PeerID, w shoal.Wish, images findings, now int64) ([]*step, error) {
	switch {
	case w.Deploy != nil:
		steps, err := each(w.Deploy.Specs, func(s shoal.Spec) (*step, error) { return deploy(d, author, s, w.Deploy, images, now) })
		if err != nil {
			return nil, err
		}
		if steps, err = removeSeen(d, steps, w.Deploy); err != nil {
			return nil, err
		}
		return prune(d, steps, w.Deploy)
	case w.Scale != nil:
		return each(w.Scale.Targets, func(t shoal.ScaleTarget) (*step, error) { return scale(d, author, t) })
	case w.Operate != nil:
		return each(w.Operate.Services, func(name string) (*step, error) { return operate(d, author, name, w.Operate.Op, now) })
	case w.Rollout != nil:
		s, err := changeRollout(d, author, w.Rollout, now)
		if err != nil {
			return nil, err
		}
		return []*step{s}, nil
	case w.Run != nil:
		s, err := run(d, author, w.Run)
		if err != nil {
			return nil, err
		}
		return []*step{s}, nil
	case w.Remove != nil:
		return each(w.Remove.Services, func(name string) (*step, error) { return remove(d, name, w.Remove.IgnoreNotFound) })
	}
	return nil, &shoal.InvalidError{Field: "wish", Why: "is empty"}
}

// each applies fn to all, and refuses a name that comes twice.
func each[T any](in []T, fn func(T) (*step, error)) ([]*step, error) {
	if len(in) == 0 {
		return nil, &shoal.InvalidError{Field: "services", Why: "must name at least one"}
	}
	var out []*step
	for _, x := range in {
		s, err := fn(x)
		if err != nil {
			return nil, err
		}
		for _, o := range out {
			if o.change.Service == s.change.Service {
				return nil, &shoal.InvalidError{Field: "services", Why: fmt.Sprintf("name %q twice", s.change.Service)}
			}
		}
		out = append(out, s)
	}
	return out, nil
}

func deploy(d *shoal.Desired, author shoal.PeerID, spec shoal.Spec, w *shoal.DeployWish, images findings, now int64) (*step, error) {
	old, exists := d.Service(spec.Name)
	if !returned(&spec, old) {
		spec.Digest, spec.Platforms = "", nil // that is not for users to say
	}
	spec.Run = 0 // nor is that
	running := 0
	if exists {
		running = old.Replicas
	}
	if err := cmp.Or(spec.Validate(), spec.CheckRollouts(running)); err != nil {
		return nil, fmt.Errorf("service %s: %w", spec.Name, err)
	}
	switch {
	case !expected(w, old, spec.Name):
		return nil, &shoal.AdviceError{
			Err:    fmt.Errorf("service %q is at revision %s, not at the one you saw: %w", spec.Name, at(old), shoal.ErrConflict),
			Advice: "look at it again",
		}
	case exists && w.Create:
		return nil, &shoal.AdviceError{
			Err:    fmt.Errorf("service %q %w: %w", spec.Name, errExists, shoal.ErrConflict),
			Advice: fmt.Sprintf("change it with \"shoal update %[1]s\", or remove it with \"shoal rm %[1]s\"", spec.Name),
		}
	case exists && old.Spec.Project != spec.Project:
		return nil, &shoal.AdviceError{
			Err:    fmt.Errorf("service %q belongs to %s, not to %s: %w", spec.Name, projectName(old.Spec.Project), projectName(spec.Project), shoal.ErrConflict),
			Advice: fmt.Sprintf("give one of them another name, or remove the old one with \"shoal rm %s\"", spec.Name),
		}
	}
	note, err := images.settle(&spec, old)
	if err != nil {
		return nil, err
	}
	carryRun(&spec, old, now)
	s := &step{spec: &spec, change: shoal.Change{Kind: shoal.ChangeNone, Service: spec.Name, Replicas: spec.Replicas}}
	if exists {
		spec.Restarts = old.Spec.Restarts // no file says that
	}
	preNote, err := s.carryPre(&spec, old, images)
	if err != nil {
		return nil, err
	}
	if !exists {
		s.change.Kind = shoal.ChangeCreate
		s.change.Details = append(s.change.Details, "image "+imageText(&spec))
		s.revise(d, author, nil)
		s.note(note)
		s.note(preNote)
		s.change.Replicas = s.first()
		s.open(scaleOf(d, spec.Name), author, s.change.Replicas, spec.Replicas)
		return s, nil
	}
	s.change.Revision, s.change.Replicas = old.Revision, old.Replicas
	if details := differences(&old.Spec, &spec); len(details) > 0 {
		s.change.Kind, s.change.Details = shoal.ChangeUpdate, details
		s.revise(d, author, old)
		s.note(note)
		s.note(preNote)
	}
	switch {
	case spec.Autoscale != nil:
		s.rescaleLoaded(old, author, w)
	case spec.Mode == shoal.ModeReplicated && !w.KeepScale:
		s.rescale(old, author, w.ResetScale)
	}
	if old.Stopped {
		s.again(old)
	}
	return s, nil
}

// note adds what the user should know; "" is nothing.
func (s *step) note(text string) {
	if text != "" {
		s.change.Notes = append(s.change.Notes, text)
	}
}

// expected reports whether the service is at the revision that the user saw, if the
// wish says so; the zero revision means that there must be none.
func expected(w *shoal.DeployWish, old *shoal.Service, name string) bool {
	seen, asked := w.IfRevision[name]
	if old == nil {
		return !asked || seen.IsZero()
	}
	return !asked || seen == old.Revision
}

// at names a service's revision for people.
func at(s *shoal.Service) string {
	if s == nil {
		return "none"
	}
	return s.Revision.String()
}

// revise adds a new revision that replaces all heads the author sees, removed ones
// included, so that sequence numbers grow across a removal.
func (s *step) revise(d *shoal.Desired, author shoal.PeerID, old *shoal.Service) {
	var heads []shoal.RevisionID
	if old != nil {
		heads = append(heads, old.Heads...)
	}
	if g, ok := gone(d, s.spec.Name); ok {
		heads = append(heads, g.Removes...)
	}
	slices.SortFunc(heads, shoal.RevisionID.Compare)
	heads = slices.Compact(heads)
	seq := uint64(1)
	for _, h := range heads {
		seq = max(seq, h.Seq+1)
	}
	id := shoal.RevisionID{Seq: seq, Author: author}
	if s.preDue {
		s.spec.PreDeploy.For = id
	}
	s.rev = &shoal.RevisionBody{
		Revision: id, Replaces: heads, Spec: *s.spec, Past: past(s.spec, old),
	}
	s.change.Revision = s.rev.Revision
}

// rescale writes "=n" if the file's number is not the one last deployed from a
// file, or when asked; otherwise the scale stays, and the plan says so.
func (s *step) rescale(old *shoal.Service, author shoal.PeerID, reset bool) {
	n := s.spec.Replicas
	fileChanged := old.Scale.File != n
	switch {
	case (fileChanged || reset) && (old.Replicas != n || fileChanged):
		if old.Replicas != n {
			s.change.Details = append(s.change.Details, fmt.Sprintf("replicas %d -> %d", old.Replicas, n))
			if s.change.Kind == shoal.ChangeNone {
				s.change.Kind = shoal.ChangeUpdate
			}
		}
		s.change.Replicas = n
		s.open(old.Scale, author, n, n)
	case old.Replicas != n:
		s.change.Notes = append(s.change.Notes, fmt.Sprintf("scale stays %d (the file says %d, as when last deployed; --reset-scale takes it)", old.Replicas, n))
	}
}

func scale(d *shoal.Desired, author shoal.PeerID, t shoal.ScaleTarget) (*step, error) {
	old, err := existing(d, t.Service)
	if err != nil {
		return nil, err
	}
	if old.Spec.Mode.IsGlobal() {
		return nil, fmt.Errorf("service %q is global, one replica per peer: %w", t.Service, shoal.ErrRefused)
	}
	n := t.N
	if t.Relative {
		if t.N < -shoal.MaxReplicas || t.N > shoal.MaxReplicas {
			return nil, shoal.CheckReplicas(t.N)
		}
		n += old.Replicas
	}
	if err := shoal.CheckReplicas(n); err != nil {
		return nil, err
	}
	if err := checkScale(old, t, n); err != nil {
		return nil, err
	}
	s := &step{spec: &old.Spec, change: shoal.Change{
		Kind: shoal.ChangeNone, Service: t.Service, Revision: old.Revision, Replicas: n, Stopped: old.Stopped,
	}}
	if old.Stopped {
		s.change.Notes = append(s.change.Notes, fmt.Sprintf("it is stopped, and stays so; shoal start %s runs it", t.Service))
	}
	if n == old.Replicas && (t.Relative || len(old.Scale.Bases) == 1 && !pins(old, t)) {
		return s, nil
	}
	s.change.Kind = shoal.ChangeUpdate
	s.change.Details = []string{fmt.Sprintf("replicas %d -> %d", old.Replicas, n)}
	if t.Relative && !old.Scale.Base.IsZero() {
		s.add(old.Scale, author, t.N)
	} else {
		s.open(old.Scale, author, n, old.Scale.File)
	}
	s.say(old, t)
	return s, nil
}

// open writes "=n": a new base that covers all bases in force.
func (s *step) open(state shoal.ScaleState, author shoal.PeerID, n, file int) {
	seq := uint64(1)
	for _, b := range state.Bases {
		seq = max(seq, b.Seq+1)
	}
	id := shoal.RevisionID{Seq: seq, Author: author}
	s.scale = &shoal.ScaleBody{
		Service: s.change.Service, Seq: state.Seq + 1,
		Base: &shoal.ScaleBase{ID: id, N: n, File: file, Covers: state.Bases},
	}
}

// add writes "+n" or "-n" onto the base in force, on top of all this author added
// to bases that are still in force.
func (s *step) add(state shoal.ScaleState, author shoal.PeerID, delta int) {
	body := &shoal.ScaleBody{Service: s.change.Service, Seq: state.Seq + 1}
	found := false
	if mine := state.By[author]; mine != nil {
		if mine.Base != nil && slices.Contains(state.Bases, mine.Base.ID) {
			body.Base = mine.Base
		}
		for _, a := range mine.Adds {
			if !slices.Contains(state.Bases, a.Base) {
				continue
			}
			if a.Base == state.Base {
				a.Delta += delta
				found = true
			}
			body.Adds = append(body.Adds, a)
		}
	}
	if !found {
		body.Adds = append(body.Adds, shoal.ScaleAdd{Base: state.Base, Delta: delta})
	}
	s.scale = body
}

func remove(d *shoal.Desired, name string, ignore bool) (*step, error) {
	if _, ok := d.Service(name); !ok && ignore {
		return &step{change: shoal.Change{Kind: shoal.ChangeNone, Service: name, Details: []string{"is not there"}}}, nil
	}
	old, err := existing(d, name)
	if err != nil {
		return nil, err
	}
	removes := slices.Clone(old.Heads)
	if g, ok := gone(d, name); ok {
		removes = append(removes, g.Removes...)
	}
	slices.SortFunc(removes, shoal.RevisionID.Compare)
	return &step{
		change: shoal.Change{Kind: shoal.ChangeRemove, Service: name, Revision: old.Revision, Details: []string{removed(old)}},
		gone:   &shoal.GoneBody{Service: name, Removes: slices.Compact(removes)},
	}, nil
}

// removed says what a removal ends. A global service has no number.
func removed(s *shoal.Service) string {
	switch {
	case s.Spec.Mode.IsGlobal():
		return "every replica of " + s.Spec.Image
	case s.Replicas == 1:
		return "1 replica of " + s.Spec.Image
	}
	return fmt.Sprintf("%d replicas of %s", s.Replicas, s.Spec.Image)
}

func noService(d *shoal.Desired, name string) error {
	if len(d.Services) == 0 {
		return fmt.Errorf("no service %q (there are none yet): %w", name, shoal.ErrNotFound)
	}
	names := make([]string, 0, len(d.Services))
	for i := range d.Services {
		names = append(names, d.Services[i].Spec.Name)
	}
	return fmt.Errorf("no service %q (known here: %s): %w", name, strings.Join(names, ", "), shoal.ErrNotFound)
}

// differences says what a new revision would change, one line a field. The number
// of replicas is no part of a revision (docs/adr/0003).
func differences(old, now *shoal.Spec) []string {
	a, b := reflect.ValueOf(*old), reflect.ValueOf(*now)
	var out []string
	for i := range a.NumField() {
		name := a.Type().Field(i).Name
		x, y := a.Field(i), b.Field(i)
		if name == "Replicas" || name == "Digest" || name == "Platforms" || name == "Run" || same(x, y) && name != "Image" {
			continue
		}
		switch {
		case name == "Image": // with the digest; platforms follow from that
			if text := imageChange(old, now); text != "" {
				out = append(out, text)
			}
		case name == "PreDeploy":
			if !old.PreDeploy.SameAs(now.PreDeploy) {
				out = append(out, "pre deploy changed")
			}
		case name == "Autoscale":
			out = append(out, autoscaleChange(old.Autoscale, now.Autoscale))
		case name == "Schedule":
			out = append(out, scheduleChange(old.Schedule, now.Schedule))
		case name == "Env":
			out = append(out, "environment changed") // its values are nobody's business here
		case x.Kind() == reflect.String || x.Kind() == reflect.Int:
			out = append(out, fmt.Sprintf("%s %v -> %v", words(name), x, y))
		default:
			out = append(out, words(name)+" changed")
		}
	}
	return out
}

// words spells a field's name for people: "stop grace".
func words(field string) string {
	var b strings.Builder
	for i, r := range field {
		if i > 0 && unicode.IsUpper(r) {
			b.WriteByte(' ')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// same compares two fields; nil and empty are one, as they are on the wire.
func same(x, y reflect.Value) bool {
	if k := x.Kind(); (k == reflect.Map || k == reflect.Slice) && x.Len() == 0 && y.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(x.Interface(), y.Interface())
}

func projectName(p string) string {
	if p == "" {
		return "no project"
	}
	return fmt.Sprintf("project %q", p)
}

// gone returns what was ever removed of a service.
func gone(d *shoal.Desired, name string) (*shoal.GoneBody, bool) {
	for i := range d.Gone {
		if d.Gone[i].Service == name {
			return &d.Gone[i], true
		}
	}
	return nil, false
}

// scaleOf returns the scale that a service which is not there had when it was removed.
func scaleOf(d *shoal.Desired, name string) shoal.ScaleState { return d.GoneScale[name] }
