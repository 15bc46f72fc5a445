package space

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What a directory of lockfs says of itself, on any filesystem.
func withPolicy(t *testing.T, hold string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	setHold(t, dir, hold)
	return dir
}

func setHold(t *testing.T, dir, hold string) {
	t.Helper()
	file := policyFile(dir)
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	if err == nil {
		err = os.WriteFile(file, []byte(hold+"\n"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestADirectoryWithAnotherPolicyIsRefused(t *testing.T) {
	for _, hold := range []string{"handle", "open"} {
		dir := withPolicy(t, hold)
		_, err := New(dir)
		if !errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), "echo name >"+dir+"/.lockfs/policy/hold") {
			t.Errorf("hold=%s: %v; want ErrPolicy, and what to do", hold, err)
		}
	}
	if _, err := New(withPolicy(t, "name")); err != nil {
		t.Errorf("hold=name: %v", err)
	}
}

// Somebody else may just have made it.
func TestADirectoryThatIsBeingMadeIsWaitedFor(t *testing.T) {
	dir := withPolicy(t, "handle")
	made := make(chan struct{})
	go func() {
		defer close(made)
		time.Sleep(policyDelay / 2)
		setHold(t, dir, "name")
	}()
	if err := checkPolicy(dir, time.Minute); err != nil {
		t.Error(err)
	}
	<-made
}

func TestAFileThatDoesNotStayIsNotMade(t *testing.T) {
	s, err := New("")
	if err != nil {
		t.Fatal(err)
	}
	for hold, want := range map[string]error{"handle": ErrPolicy, "open": nil, "name": nil} {
		if err := s.CreateResource(withPolicy(t, hold) + "/foo"); !errors.Is(err, want) {
			t.Errorf("hold=%s: %v, want %v", hold, err, want)
		}
	}
}
