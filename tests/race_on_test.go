//go:build race

package tests

// raceEnabled: the daemon is built with the race detector if the tests are.
const raceEnabled = true
