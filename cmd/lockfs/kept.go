//go:build !volatile

package main

import (
	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/state"
)

// Everything is kept in memory that outlives the process.

func newLedger(m *state.Memory) device.Ledger { return ledger{m} }

func newJournal(m *state.Memory, s *fs.Saved) fs.Journal { return fs.NewRecords(m.Tx(), s) }
