package fs

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lockfs/lockfs/lockspace"
)

// What an O_EXCL hold of a lockspace lives as long as.
const (
	holdHandle = iota // its open file
	holdName          // its name
	holdOpen          // its open file, and every other open takes the lock too
	holdValues
)

// What a reader of a held lock with an empty body gets.
const (
	readDefault = iota // the pid where names hold, else the record
	readRecord
	readPid
	readValues
)

// Which process is watched for a hold by name.
const (
	reapPid     = iota // the one whose pid is in the body
	reapCreator        // the one that made the name
	reapNone
	reapValues
)

// Policy is what a lockspace does (design 1.3): of a directory, and of those that
// are made in it. The zero Policy is the default.
type Policy struct {
	hold, read, reap uint8
	publish          uint8
	lease, grace     time.Duration
	// ids is how many numbered locks there are: 0 to maxIDs, or unlimitedIDs.
	ids uint64
	// leaseFrom is since when the lease is what it is, on the clock of
	// [lockspace.Instant.Boot]: what is held then has a whole one.
	leaseFrom time.Duration
	// mirror is where locks are mirrored, see mirrorpolicy.go. "": as in the directory
	// that it is in. It has a record of its own.
	mirror string
}

// policyKey is a key of policies. The table of them is what command lines and
// control directories know.
type policyKey struct {
	name string
	// control is the number of the key's entry in control directories.
	control uint8
	get     func(*Policy) string
	// set reads a value; the error says what can be one.
	set func(*Policy, string) error
}

var policyKeys = []policyKey{
	{
		name: "hold", control: controlHold,
		get: func(p *Policy) string { return holdNames[p.hold] },
		set: func(p *Policy, value string) error { return choose(&p.hold, holdNames[:], value) },
	},
	{
		name: "read", control: controlRead,
		get: func(p *Policy) string {
			if p.readsPid() {
				return readNames[readPid]
			}
			return readNames[readRecord]
		},
		set: func(p *Policy, value string) error { return choose(&p.read, readNames[:], value) },
	},
	{
		name: "reap", control: controlReap,
		get: func(p *Policy) string { return reapNames[p.reap] },
		set: func(p *Policy, value string) error { return choose(&p.reap, reapNames[:], value) },
	},
	{
		name: "lease", control: controlLease,
		get: func(p *Policy) string { return formatSpan(p.lease) },
		set: func(p *Policy, value string) error { return setSpan(&p.lease, value) },
	},
	{
		name: "grace", control: controlGrace,
		get: func(p *Policy) string { return formatSpan(p.grace) },
		set: func(p *Policy, value string) error { return setSpan(&p.grace, value) },
	},
	{
		name: "ids", control: controlIDCount,
		get: func(p *Policy) string { return formatIDs(p.ids) },
		set: func(p *Policy, value string) error { return setIDs(&p.ids, value) },
	},
	{
		name: "publish", control: controlPublish,
		get: func(p *Policy) string { return publishNames[p.publish] },
		set: func(p *Policy, value string) error { return choose(&p.publish, publishNames[:], value) },
	},
	{
		name: "mirror", control: controlMirror,
		get: func(p *Policy) string { return formatMirror(p.mirror) },
		set: func(p *Policy, value string) error { return setMirror(&p.mirror, value) },
	},
}

var (
	holdNames = [holdValues]string{"handle", "name", "open"}
	readNames = [readValues]string{"default", "record", "pid"}
	reapNames = [reapValues]string{"pid", "creator", "none"}
)

// readsPid reports whether a held lock with an empty body reads as a pid.
func (p *Policy) readsPid() bool {
	return p.read == readPid || p.read == readDefault && p.hold == holdName
}

// With returns p with KEY=VALUE,KEY=VALUE set in it. The error says what is
// wrong with that.
func (p Policy) With(settings string) (Policy, error) {
	for _, setting := range strings.Split(settings, ",") {
		key, value, ok := strings.Cut(setting, "=")
		if !ok {
			return p, fmt.Errorf("%q: KEY=VALUE expected", setting)
		}
		if err := p.set(key, value); err != nil {
			return p, err
		}
	}
	return p, nil
}

// IsPolicyKey reports whether there is such a key.
func IsPolicyKey(name string) bool {
	return slices.ContainsFunc(policyKeys, func(k policyKey) bool { return k.name == name })
}

func (p *Policy) set(key, value string) error {
	names := make([]string, 0, len(policyKeys))
	for i := range policyKeys {
		k := &policyKeys[i]
		if k.name == key {
			if err := k.set(p, value); err != nil {
				return fmt.Errorf("%s=%s: %w", key, value, err)
			}
			return nil
		}
		names = append(names, k.name)
	}
	return fmt.Errorf("%s: no such policy; there are: %s", key, strings.Join(names, ", "))
}

// choose sets a value to the number of its name.
func choose(to *uint8, names []string, name string) error {
	i := slices.Index(names, name)
	if i < 0 {
		return fmt.Errorf("not one of %s", strings.Join(names, ", "))
	}
	*to = uint8(i)
	return nil
}

var errSpan = errors.New("a time expected: 0, seconds like 90, or like 1m30s, of 1ms or more")

// setSpan sets a time: 0, a number of seconds, or as [time.ParseDuration] has it,
// of a millisecond at least.
func setSpan(to *time.Duration, value string) error {
	if _, err := strconv.ParseUint(value, 10, 64); err == nil {
		value += "s"
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 || d > 0 && d < time.Millisecond {
		return errSpan
	}
	*to = d
	return nil
}

func formatSpan(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// setPolicy gives a directory a policy.
func (f *FS) setPolicy(dir *node, p Policy) {
	old := dir.file.Policy
	if p.lease != old.lease {
		p.leaseFrom = f.clock.Now().Boot
	}
	dir.file.Policy = p
	f.keepFile(dir.file)
	f.applyPolicy(dir.file)
	if f.mirror != nil && (p.hold == holdName) != (old.hold == holdName) {
		f.mirror.Renamed() // whose files may be locked is another question now
	}
	if p.reap == old.reap {
		return
	}
	for e := range dir.file.content.order.All() {
		f.rewatch(e)
	}
}

// mayChange says what is in the way of another policy for a directory: numbers that
// are reserved are in range, and whether what is held in it is mirrored must not
// change meanwhile.
func (f *FS) mayChange(dir *node, p *Policy) error {
	if err := f.mayHaveIDs(dir, p.ids); err != nil {
		return err
	}
	if f.mirror == nil || (p.hold == holdName) == dir.file.holdsByName() {
		return nil
	}
	if f.isHeldIn(dir.ID, isNone) {
		return errHeldThere
	}
	return nil
}

var errHeldThere = errors.New("something is held or waited for in the directory, and whether that is mirrored would change")

// policyEntries are the entries of control directories for policies.
func policyEntries() []controlEntry {
	entries := make([]controlEntry, 0, len(policyKeys))
	for i := range policyKeys {
		k := &policyKeys[i]
		entries = append(entries, controlEntry{
			number: k.control, in: controlPolicy, name: k.name,
			content: func(_ *FS, dir *node) []byte {
				return append([]byte(k.get(&dir.file.Policy)), '\n')
			},
			set: func(f *FS, dir *node, value string) error {
				p := dir.file.Policy
				if err := p.set(k.name, value); err != nil {
					return err
				}
				if err := f.mayChange(dir, &p); err != nil {
					return err
				}
				f.setPolicy(dir, p)
				f.log.Info("policy set", "directory", f.directoryPath(dir), k.name, k.get(&p))
				return nil
			},
		})
		if k.control == controlMirror {
			entries[i].write = (*FS).writeMirror
		}
	}
	return entries
}

// applyPolicy tells the table of a directory's policy.
func (f *FS) applyPolicy(x *file) {
	f.table.SetPolicy(x.Ino, lockspace.Policy{
		Lease: x.Policy.lease, From: x.Policy.leaseFrom, Grace: x.Policy.grace,
	})
}

// Lockspace is a directory that is there from the beginning of a mount.
type Lockspace struct {
	Name   string
	Policy Policy
}

// ParseLockspace reads NAME or NAME:KEY=VALUE,KEY=VALUE, the policy being root's
// but for what is set. The error says what is wrong with it.
func ParseLockspace(text string, root Policy) (Lockspace, error) {
	name, settings, some := strings.Cut(text, ":")
	s := Lockspace{Name: name, Policy: root.inherited()}
	switch {
	case name == "" || name == "." || name == ".." || name == controlName || strings.Contains(name, "/") || len(name) > maxName:
		return s, fmt.Errorf("%q: not a name that a lockspace can have", name)
	case !some:
		return s, nil
	}
	var err error
	s.Policy, err = s.Policy.With(settings)
	return s, err
}

// makeLockspaces makes directories of the root that are missing, held by nobody,
// and sets their policy.
func (f *FS) makeLockspaces(spaces []Lockspace) error {
	root := f.nodes.get(rootDir)
	for _, s := range spaces {
		k := lockspace.Key{Dir: rootDir, Name: s.Name}
		e := f.entry(k)
		if e == nil {
			e = f.enterAs(k, f.newFile(root.file, directory, root.file.Mode, root.file.UID, root.file.GID))
		}
		if e.file.Kind != directory {
			return fmt.Errorf("lockspace %s: the last mount left something of that name that is not a directory", s.Name)
		}
		e.file.Lapsed, e.file.Foreign = false, false
		f.setPolicy(f.nodes.of(e), s.Policy)
	}
	return nil
}
