//go:build volatile

package main

import (
	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/state"
)

// A build with the tag volatile keeps nothing over a worker's death. It is what
// tests compare with, to tell what that costs.

func newLedger(*state.Memory) device.Ledger { return device.Volatile() }

func newJournal(*state.Memory, *fs.Saved) fs.Journal { return fs.Discard{} }
