package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lockfs/lockfs/fs"
)

// What the command line says about policies, and mount options, which say it too.

// policyHelp is what the keys mean, for --help.
const policyHelp = `
hold=handle (default): a lock taken with O_EXCL lives as long as its open
file; hold=name: as long as its name; hold=open: every open takes the lock
read=record, pid: what a held lock with an empty body reads as
reap=pid, creator, none: whose death ends a hold by name
mirror=inherit, none, DIRECTORY, direct:DIRECTORY: where locks are fcntl locks
too: nowhere but in the backing directory, nowhere, on the files in a directory,
on those that are there already
lease=TIME: a hold ends unless it is renewed in this time (0: never)
grace=TIME: after an abnormal end nobody gets the lock for this long
ids=COUNT, unlimited: there are numbered locks to allocate (0: none)
publish=auto, yes, no: whether who holds a lock is written into its backing file`

// policy is the settings of the root and of the lockspaces, as they were given.
type policy struct {
	root, spaces []string
}

// parse reads them. Errors are for people.
func (p *policy) parse() (root fs.Policy, spaces []fs.Lockspace, err error) {
	for _, settings := range p.root {
		if root, err = root.With(settings); err != nil {
			return root, nil, fmt.Errorf("--policy: %w", err)
		}
	}
	for _, text := range p.spaces {
		s, err := fs.ParseLockspace(text, root)
		if err != nil {
			return root, nil, fmt.Errorf("--space: %w", err)
		}
		if slices.ContainsFunc(spaces, func(other fs.Lockspace) bool { return other.Name == s.Name }) {
			return root, nil, fmt.Errorf("--space: %q is given twice", s.Name)
		}
		spaces = append(spaces, s)
	}
	return root, spaces, nil
}

// flags returns the flags that say the same.
func (p *policy) flags() (flags []string) {
	for _, settings := range p.root {
		flags = append(flags, "--policy="+settings)
	}
	for _, text := range p.spaces {
		flags = append(flags, "--space="+text)
	}
	return flags
}

// meaningless options are those that mount(8) has for every filesystem, and that
// make no difference here.
var meaningless = []string{
	"rw", "defaults", "auto", "noauto", "user", "users", "nouser", "owner", "group", "nofail", "_netdev",
	"nosuid", "nodev", "noexec", "atime", "noatime", "relatime", "norelatime", "nodiratime", "async",
}

// setOptions sets mount options, separated by commas. Errors are for people.
func (c *config) setOptions(text string, level *string) error {
	for _, option := range strings.Split(text, ",") {
		key, value, _ := strings.Cut(option, "=")
		switch {
		case fs.IsPolicyKey(key):
			c.policy.root = append(c.policy.root, option)
		case key == "space":
			// The comma is taken.
			name, settings, some := strings.Cut(value, ":")
			if some {
				settings = strings.ReplaceAll(settings, ":", ",")
				name += ":" + strings.ReplaceAll(settings, "mirror=direct,/", "mirror=direct:/")
			}
			c.policy.spaces = append(c.policy.spaces, name)
		case option == "allow_other":
			c.allowOther = true
		case key == "state-dir":
			c.stateDir = value
		case key == "backing":
			c.backing = value
		case key == "log-level":
			*level = value
		case slices.Contains(meaningless, option) || strings.HasPrefix(option, "x-") || key == "comment":
		default:
			return fmt.Errorf("%q: no such option; see 'lockfs --help'", option)
		}
	}
	return nil
}
