package space

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Directories of a lockfs mount: they say how names are held, in their control
// directory, and files that nobody holds exist in some of them only.

const (
	controlName = ".lockfs"
	goodHold    = "name"
	// policyDelay is how long somebody who has made the directory may take to set
	// its policy.
	policyDelay = 200 * time.Millisecond
)

func policyFile(dir string) string { return filepath.Join(dir, controlName, "policy", "hold") }

// holdPolicy returns how names are held in a directory, "" if it is none of lockfs.
func holdPolicy(dir string) (string, error) {
	text, err := os.ReadFile(policyFile(dir))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(text)), err
}

// checkPolicy fails with [ErrPolicy] if a directory is not for resources, and stays
// so for a time.
func checkPolicy(dir string, delay time.Duration) error {
	for end := time.Now().Add(delay); ; time.Sleep(10 * time.Millisecond) {
		hold, err := holdPolicy(dir)
		if err != nil || hold == "" || hold == goodHold {
			return err
		}
		if time.Now().After(end) {
			return policyError(dir, hold)
		}
	}
}

// checkStays fails with [ErrPolicy] if a file is gone from a directory as soon as it
// is made.
func checkStays(dir string) error {
	hold, err := holdPolicy(dir)
	if hold == "handle" {
		err = policyError(dir, hold)
	}
	return err
}

func policyError(dir, hold string) error {
	return fmt.Errorf("%w: hold=%s; as the directory's owner or root, when nobody uses it: echo %s >%s",
		ErrPolicy, hold, goodHold, policyFile(dir))
}

// setPolicy makes files stay in a directory that was just made.
func setPolicy(dir string) error {
	if hold, err := holdPolicy(dir); err != nil || hold == "" || hold == goodHold {
		return err
	}
	return os.WriteFile(policyFile(dir), []byte(goodHold+"\n"), 0)
}
