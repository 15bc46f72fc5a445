//go:build !crashpoints

package main

import "github.com/lockfs/lockfs/fs/device"

// crashPoints are for tests; see crash_on.go.
type crashPoints struct{}

func newCrashPoints() (*crashPoints, error) { return nil, nil }

func (*crashPoints) memory() func(step string) { return nil }

func (*crashPoints) attach(*device.Conn) {}

func (*crashPoints) at(string) {}
