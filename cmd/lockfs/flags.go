package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/pflag"
)

// config is what the command line asks for.
type config struct {
	mountPoint string
	allowOther bool
	logLevel   slog.Level
	version    bool
	stateDir   string
	backing    string // "" for the directory that the mount covers
	policy     policy
	help       string // the text, if asked for

	// worker: this process was started by a keeper, not by a person. The rest
	// is what that says to it; see worker.go.
	worker   bool
	oomScore string
	mountID  uint64
	kept     bool
	failures int
	first    reservation
	// mirrorFiles: the worker has the line for the mirror's files also without a
	// backing directory.
	mirrorFiles bool
	// isAgent: this process was started by a worker, to mirror in a place; see
	// agentprocess.go.
	isAgent bool
	agent   string
	// couldKeep is the question whether this program could be the keeper, with
	// the format of the handover; see handover.go.
	couldKeep string
}

const usageHead = `Usage: lockfs [flags] MOUNTPOINT

Mounts a filesystem on which every name is a lock, and serves it in the
foreground until it is unmounted or gets SIGINT or SIGTERM. MOUNTPOINT is made
if it is missing. Root mounts for all users, an ordinary user for himself.

Flags:
`

// parse reads the command line. Errors are for people.
func parse(args []string) (config, error) {
	var c config
	flags := pflag.NewFlagSet("lockfs", pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.SortFlags = false
	flags.StringVar(&c.backing, "backing", defaultBacking, "`directory` whose files mirror the locks, which may be MOUNTPOINT, for the one that\n"+
		"the mount covers, as without this flag; 'none' mirrors nothing")
	flags.BoolVar(&c.allowOther, "allow-other", false, "let other users in (root always does; needs user_allow_other in /etc/fuse.conf)")
	flags.StringVar(&c.stateDir, "state-dir", "", "`directory` for what outlives a reboot (fencing tokens) and a restart;\n"+
		"'none' keeps nothing (default /var/lib/lockfs/MOUNTPOINT, of an ordinary user\n~/.local/state/lockfs/MOUNTPOINT)")
	flags.StringArrayVar(&c.policy.root, "policy", nil, "what the root does, as `KEY=VALUE,...`; directories made in it do the same:"+policyHelp)
	flags.StringArrayVar(&c.policy.spaces, "space", nil, "`NAME[:KEY=VALUE,...]`, a directory in the root that is there from the beginning, and\n"+
		"does what the root does but for these")
	options := flags.StringArrayP("options", "o", nil, "the same as mount options, `OPTION,...`, as in fstab(5): KEY=VALUE,\n"+
		"space=NAME[:KEY=VALUE:...], allow_other, backing=DIRECTORY, state-dir=DIRECTORY,\nlog-level=LEVEL")
	level := flags.String("log-level", "info", "`level` of what is logged: debug, info, warn, error")
	flags.BoolVar(&c.version, "version", false, "print the version and exit")
	flags.BoolVar(&c.worker, "worker", false, "")
	flags.StringVar(&c.oomScore, "oom-score", "", "")
	flags.Uint64Var(&c.mountID, "mount-id", 0, "")
	flags.BoolVar(&c.kept, "kept", false, "")
	flags.IntVar(&c.failures, "failures", 0, "")
	flags.Uint64Var(&c.first.used, "first-token", 0, "")
	flags.Uint64Var(&c.first.onDisk, "reserved", 0, "")
	flags.BoolVar(&c.mirrorFiles, "mirror-files", false, "")
	flags.StringVar(&c.agent, "agent", "", "")
	flags.StringVar(&c.couldKeep, "could-keep", "", "")
	for _, internal := range []string{"worker", "oom-score", "mount-id", "kept", "failures", "first-token", "reserved", "mirror-files", "agent", "could-keep"} {
		_ = flags.MarkHidden(internal)
	}
	help := flags.BoolP("help", "h", false, "print this and exit")
	if err := flags.Parse(args); err != nil {
		return c, fmt.Errorf("%w; see 'lockfs --help'", err)
	}
	if *help {
		c.help = usageHead + flags.FlagUsages() + "\n" + exitHelp
		return c, nil
	}
	if c.version {
		return c, nil
	}
	if c.worker && !flags.Changed("backing") {
		c.backing = noBacking // its keeper is of a version that knew no other
	}
	c.isAgent = flags.Changed("agent")
	for _, text := range *options {
		if err := c.setOptions(text, level); err != nil {
			return c, fmt.Errorf("-o %s: %w", text, err)
		}
	}
	if _, _, err := c.policy.parse(); err != nil {
		return c, err
	}
	if err := c.logLevel.UnmarshalText([]byte(*level)); err != nil {
		return c, fmt.Errorf("--log-level %s: not one of debug, info, warn, error", *level)
	}
	switch flags.NArg() {
	case 0:
		return c, errors.New("no mount point given; see 'lockfs --help'")
	case 1:
		c.mountPoint = flags.Arg(0)
	default:
		return c, fmt.Errorf("one mount point expected, got %d arguments: %q", flags.NArg(), flags.Args())
	}
	if c.mountPoint == "" {
		return c, errors.New("the mount point is empty")
	}
	return c, nil
}
